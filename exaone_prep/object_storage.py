"""A data set in an object store, by fsspec: S3, and Google's and Microsoft's by the same code.

A name appears by one conditional PUT. What was put is known to be whole, since the store compares checksums on the way
and answers only then; nothing is read back but by who asks for a checksum. Faults that pass are met here and nowhere
else: whoever uses a storage sees them only when they last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import fsspec

from exaone_prep.checksum import sha256_of
from exaone_prep.errors import PrepError, StorageConflictError, UnreachableError
from exaone_prep.faults import ATTEMPTS, fault_of, patiently, words_of
from exaone_prep.s3_upload import upload_new, within_s

READ_BACK_BYTES: Final = 32 << 20
"""Of one request of a checksum; memory of as many shards as are compared at a time."""

T = TypeVar("T")


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it; it leaves trying again to `faults.patiently`.

    Raises:
        ImportError, ValueError: There is none for such a URL.
    """
    files, path = fsspec.core.url_to_fs(url)
    if hasattr(files, "call_s3"):
        # Otherwise each of our attempts would be five of s3fs, each of them five of botocore.
        files.retries = 1
        files.config_kwargs = {"retries": {"total_max_attempts": 1}, **files.config_kwargs}
    return files, path


class ObjectStorage:
    """A prefix in an object store."""

    def __init__(self, url: str) -> None:
        try:
            self._fs, self._root = filesystem(url.rstrip("/"))
        except (ImportError, ValueError) as error:
            raise PrepError(f"{url} cannot be opened: {error} (extra `s3` brings S3).") from error
        self._fs.use_listings_cache = False
        self._url = url.rstrip("/")
        self._is_s3 = hasattr(self._fs, "call_s3")
        # s3fs would ask for a whole object twice, the first time to learn whether to fetch it in parts.
        self._whole = {"max_concurrency": 1} if self._is_s3 else {}

    @property
    def url(self) -> str:
        return self._url

    @property
    def local(self) -> Path | None:
        return None

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _ask(self, ask: Callable[[], T]) -> T:
        return self._in_words(lambda: patiently(ask))

    def _in_words(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except Exception as error:
            fault = fault_of(error)
            if fault == "passing":
                raise UnreachableError(
                    f"{self._url} cannot be reached, tried {ATTEMPTS} times ({words_of(error)}): what is committed is "
                    "kept, run the same command again once the store answers."
                ) from error
            if fault == "denied":
                raise UnreachableError(
                    f"{self._url} denies access ({words_of(error)}): check the credentials in the environment and "
                    "what they allow."
                ) from error
            if fault == "exists":
                raise FileExistsError(str(error)) from error
            raise

    def read(self, path: str) -> bytes:
        return self._ask(lambda: bytes(self._fs.cat_file(self._at(path), **self._whole)))

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        return self._ask(lambda: bytes(self._fs.cat_file(self._at(path), start=offset, end=offset + length)))

    def size(self, path: str) -> int | None:
        def ask() -> int:
            self._fs.invalidate_cache()
            return int(self._fs.info(self._at(path))["size"])

        try:
            return self._ask(ask)
        except FileNotFoundError:
            return None

    def sha256(self, path: str) -> str:
        digest, offset = hashlib.sha256(), 0
        while True:
            try:
                part = self.read_range(path, offset, READ_BACK_BYTES)
            except OSError as error:
                if fault_of(error) != "beyond":
                    raise
                part = b""
            digest.update(part)
            offset += len(part)
            if len(part) < READ_BACK_BYTES:
                return digest.hexdigest()

    def names(self, folder: str) -> list[str]:
        return sorted(self.sizes(folder))

    def sizes(self, folder: str) -> dict[str, int]:
        def ask() -> list[dict[str, Any]]:
            self._fs.invalidate_cache()
            return list(self._fs.ls(self._at(folder), detail=True))

        try:
            entries = self._ask(ask)
        except FileNotFoundError:
            return {}
        return {str(one["name"]).rsplit("/", 1)[-1]: int(one["size"]) for one in entries if one["type"] == "file"}

    def put_new(self, path: str, file: Path) -> bool:
        try:
            self._in_words(lambda: self._create(path, file))
        except FileExistsError:
            if self.size(path) != file.stat().st_size or self.sha256(path) != sha256_of(file):
                raise StorageConflictError(
                    f"{path} exists in {self.url} with other bytes than this build makes"
                ) from None
            return False
        return True

    def _create(self, path: str, file: Path) -> None:
        if self._is_s3:
            bucket, key, _ = self._fs.split_path(self._at(path))
            upload_new(self._fs, bucket, key, file)
        else:
            patiently(lambda: self._fs.put_file(str(file), self._at(path), mode="create"))

    def replace(self, path: str, data: bytes) -> None:
        limit = {"timeout": within_s(len(data))} if self._is_s3 else {}
        self._ask(lambda: self._fs.pipe_file(self._at(path), data, **limit))

    def remove(self, path: str) -> None:
        try:
            self._ask(lambda: self._fs.rm_file(self._at(path)))
        except FileNotFoundError:
            return
