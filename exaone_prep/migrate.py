"""Bring the metadata of a complete data set to the present format version, step by step; shards stay as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from exaone_prep import layout
from exaone_prep.errors import DatasetError
from exaone_prep.storage import Storage


class Metadata:
    """What a step may do to a data set: read all of it, and write anew what is no shard."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def read(self, path: str) -> bytes:
        """The whole of a file; `FileNotFoundError` if there is none."""
        return self._storage.read(path)

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder, sorted."""
        return self._storage.names(folder)

    def replace(self, path: str, data: bytes) -> None:
        """Write a file anew, whole or not at all."""
        if path.endswith(".tar") or path == layout.BUILD:
            raise AssertionError(f"{path} is not a step's to write")
        self._storage.replace(path, data)


Step = Callable[[Metadata], None]
"""Rewrites metadata from one version to the next; may be run again after it was interrupted anywhere."""

STEPS: Final[Mapping[int, Step]] = {}
"""By the version that they begin with. Version 1 is the first, so there is none yet."""


def migrate(storage: Storage, steps: Mapping[int, Step] = STEPS, *, to: int = layout.FORMAT_VERSION) -> tuple[int, int]:
    """Run the steps that are missing. `build.json` comes last of each: until then the data set has the old version.

    Args:
        storage: Of a data set.
        steps: By the version that they begin with.
        to: The present version.

    Returns:
        Version found, version reached.

    Raises:
        DatasetError: It is not complete, of a later version, of one that no step leads on from, or damaged.
    """
    found, summary = _read(storage)
    if found > to:
        raise DatasetError(
            f"{storage.url} has format version {found}, and this software knows those up to {to}: install a later one."
        )
    missing = next((version for version in range(found, to) if version not in steps), None)
    if missing is not None:
        raise DatasetError(f"{storage.url} has format version {found}, and no step leads on from version {missing}.")
    for version in range(found, to):
        steps[version](Metadata(storage))
        summary = {**summary, "format_version": version + 1}
        storage.replace(layout.BUILD, (json.dumps(summary, indent=1, sort_keys=True) + "\n").encode())
    return found, to


def _read(storage: Storage) -> tuple[int, dict[str, Any]]:
    try:
        summary = json.loads(storage.read(layout.BUILD))
    except FileNotFoundError as error:
        raise DatasetError(
            f"{storage.url} is no complete data set: finish the build with the software that began it, then migrate."
        ) from error
    except ValueError as error:
        raise DatasetError(f"{layout.BUILD} in {storage.url} is damaged: restore it from a copy.") from error
    version = summary.get("format_version") if isinstance(summary, dict) else None
    if not isinstance(version, int) or version < 1:
        raise DatasetError(f"{layout.BUILD} in {storage.url} is damaged (no format version): restore it from a copy.")
    return version, summary
