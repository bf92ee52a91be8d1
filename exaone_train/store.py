"""Bytes of files, on disk or at a URL; tried again where a fault may pass."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from fsspec.core import url_to_fs

from exaone_train.errors import ShardError

WAITS_S: Final = (0.25, 1.0, 4.0)
"""Between attempts."""

T = TypeVar("T")


def read(place: str) -> bytes:
    """The whole of a file.

    Args:
        place: Path or fsspec URL.

    Raises:
        FileNotFoundError: There is no such file.
        ShardError: It cannot be read.
    """
    files, path = url_to_fs(place)
    return patiently(place, lambda: bytes(files.cat_file(path)))


def read_into(memory: memoryview, place: str, begin: int) -> int:
    """Fill memory with what a file has from an offset on.

    Returns:
        Bytes that were read; fewer than there is memory where the file ends before.

    Raises:
        FileNotFoundError: There is no such file.
        ShardError: It cannot be read.
    """
    return patiently(place, lambda: (_read_url if "://" in place else _read_local)(memory, place, begin))


def _read_local(memory: memoryview, path: str, begin: int) -> int:
    with Path(path).open("rb") as file:
        file.seek(begin)
        return file.readinto(memory)


def _read_url(memory: memoryview, url: str, begin: int) -> int:
    files, path = url_to_fs(url)
    try:
        data = files.cat_file(path, start=begin, end=begin + len(memory))
    except Exception:
        # Stores refuse a range behind the end, each in words of its own.
        if files.info(path)["size"] <= begin:
            return 0
        raise
    memory[: len(data)] = data
    return len(data)


def patiently(place: str, ask: Callable[[], T]) -> T:
    """Ask for something of a file, again and again while that may help.

    Raises:
        FileNotFoundError: There is no such file.
        ShardError: Nothing helped.
    """
    for wait_s in (*WAITS_S, None):
        try:
            return ask()
        except Exception as error:  # each client of a store has a family of its own
            if isinstance(error, FileNotFoundError | ShardError):
                raise
            if wait_s is None or isinstance(error, PermissionError | ImportError | ValueError | LookupError):
                words = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".:")
                raise ShardError(f"{place} cannot be read: {words}.") from error
            time.sleep(wait_s * random.uniform(0.5, 1))  # noqa: S311 (so that many ranks do not come back at once)
    raise AssertionError
