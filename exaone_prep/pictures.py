"""Pictures of a group's slides as one Zarr archive in a zip file, the same bytes for the same pictures."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from exaone_prep.survey import Pictures, load_pictures

_WHEN: Final = (1980, 1, 1, 0, 0, 0)
_CHUNK: Final = 1024
_LEVEL: Final = 3


def write_slides_zip(file: Path, slides: Sequence[tuple[str, Path]]) -> None:
    """Write a zip with a Zarr group per slide, one slide in memory at a time.

    Args:
        file: To be written.
        slides: Slide id, and the file that its survey left (`exaone_prep.survey.Pictures`).
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _write(archive, "", _Members().data)
        for slide_id, pictures in sorted(slides):
            members = _Members()
            for name, array in vars(load_pictures(pictures)).items():
                members.add(name, array)
            _write(archive, f"{slide_id}/", members.data)


def read_slide_pictures(file: bytes | BinaryIO, slide_id: str) -> Pictures | None:
    """The pictures of one slide from such a file, None if it has none there.

    Args:
        file: Its bytes, or itself, open: only what is of this slide is read then.
        slide_id: The slide.
    """
    members = _Members()
    with zipfile.ZipFile(io.BytesIO(file) if isinstance(file, bytes) else file) as archive:
        prefix = f"{slide_id}/"
        names = [name for name in archive.namelist() if name.startswith(prefix)]
        for name in names:
            members.put(name.removeprefix(prefix), archive.read(name))
    if not names:
        return None
    return Pictures(**members.arrays())


def _write(archive: zipfile.ZipFile, prefix: str, members: dict[str, Any]) -> None:
    for name in sorted(members):
        # The time of writing must not be part of the bytes.
        archive.writestr(zipfile.ZipInfo(prefix + name, _WHEN), members[name].to_bytes())


@contextmanager
def _without_cupy() -> Iterator[None]:
    """Zarr imports CuPy where it is installed, for arrays on a card: two seconds that pictures have no use for."""
    if "cupy" in sys.modules:
        yield
        return
    sys.modules["cupy"] = None  # type: ignore[assignment]  # what Python documents for "not to be imported"
    try:
        yield
    finally:
        del sys.modules["cupy"]


class _Members:
    """A Zarr group in memory."""

    def __init__(self) -> None:
        with _without_cupy():
            import zarr  # half a second that other commands need not pay

        self.data: dict[str, Any] = {}
        self.store = zarr.storage.MemoryStore(self.data)
        self._group = zarr.create_group(self.store, zarr_format=3)

    def add(self, name: str, array: Any) -> None:
        from zarr.codecs import ZstdCodec

        chunks = tuple(max(1, min(size, _CHUNK)) for size in array.shape)
        stored = self._group.create_array(
            name, shape=array.shape, dtype=array.dtype, chunks=chunks, compressors=ZstdCodec(level=_LEVEL)
        )
        if array.size:
            stored[...] = array

    def arrays(self) -> dict[str, Any]:
        import zarr

        group: Any = zarr.open_group(self.store, mode="r", zarr_format=3)
        return {name: group[name][...] for name in group.array_keys()}

    def put(self, name: str, data: bytes) -> None:
        from zarr.core.buffer import default_buffer_prototype

        self.data[name] = default_buffer_prototype().buffer.from_bytes(data)
