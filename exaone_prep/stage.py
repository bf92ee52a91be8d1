"""Bring the slides of a group within reach of native decoders: local ones stay where they are."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import fsspec

from exaone_prep.catalog import CatalogRow, check_stamp, members_of
from exaone_prep.errors import UnreachableError


def stage(row: CatalogRow, uri: str, folder: Path) -> Path:
    """A local path of the slide, after its content stamp was found unchanged.

    Args:
        row: The slide in the catalog.
        uri: Where it is: a local path or an fsspec URL.
        folder: Receives copies of remote slides.

    Raises:
        SlideChangedError: It is not what the catalog froze.
        UnreachableError: It cannot be reached.
    """
    scheme = urlsplit(uri).scheme
    local = scheme in {"", "file"}
    path = Path(uri.removeprefix("file://")) if local else _fetch(uri, folder / row.slide_id)
    check_stamp(row, path)
    return path


def _fetch(uri: str, folder: Path) -> Path:
    """Copy a remote slide with all its files, laid out as they were."""
    root = uri.rsplit("/", 1)[0]
    try:
        for member in members_of(uri):
            target = folder / member.removeprefix(root).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            files, path = fsspec.core.url_to_fs(member)
            files.get_file(path, str(target))
    except (OSError, ImportError, ValueError) as error:
        raise UnreachableError(f"{uri} cannot be fetched from its store: {error}.") from error
    return folder / uri.removeprefix(root).lstrip("/")
