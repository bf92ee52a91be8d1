"""Slides read through TIAToolbox, for what OpenSlide cannot open: OME-TIFF, JP2, NGFF, unusual DICOM.

TIAToolbox's own `read_rect` addresses levels by level-0 positions and interpolates, and its `mpp` may be guessed from
the objective. Its readers are used to open and decode; pixels are taken from their levels directly, and what the file
claims is read from the file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exaone_prep.errors import ManifestError, PrepError, SlideProblemError, UnreachableError
from exaone_prep.slides.mpp import ClaimedMpp, as_number, claim, claim_of_ome_xml, claim_of_tiff_tags
from exaone_prep.slides.reach import ensure_reachable
from exaone_prep.slides.reader import WHITE, Level, SlideInfo, UnreadableRegionError, check_region, flatten

_TIFF_SUFFIXES: Final = (".tif", ".tiff", ".qptiff", ".svs")

_ICC_TAG: Final = 34675
_TIFF_UNITS: Final = {2: "inch", 3: "centimeter"}

Fetch = Callable[[int, int, int, int], NDArray[Any]]
"""x, y, width, height in pixels of a level → H×W×C."""


@dataclass(frozen=True, kw_only=True)
class _Plane:
    """One level: its size, and how its pixels are had."""

    width_px: int
    height_px: int
    fetch: Fetch
    downsample: float | None = None
    """Where the format says so, instead of the ratio of the sizes."""


class TiatoolboxReader:
    """A slide opened by TIAToolbox; see `SlideReader` for the contract. All its levels are exact."""

    def __init__(self, path: Path) -> None:
        """Open a slide: a file, the directory of one DICOM series, or an NGFF directory (``.zarr``).

        Raises:
            SlideProblemError: ``not_a_slide``.
            UnreachableError: The file cannot be read.
            ManifestError: TIAToolbox is not installed.
        """
        self._path = path
        self._handle: Any = None
        self._planes: tuple[_Plane, ...] = ()
        try:
            self._open()
            self.info = _describe(self._handle, self._planes)
        except (PrepError, MemoryError):
            self.close()
            raise
        except ImportError as error:
            raise ManifestError(
                "The manifest names the reader `tiatoolbox`, which is not (or not wholly) installed here: "
                "run `pip install 'exaone-prep[tiatoolbox]'` or take it out of `readers`."
            ) from error
        except Exception as error:  # each of TIAToolbox's many decoders has errors of its own
            self.close()
            ensure_reachable(path)
            raise SlideProblemError(
                "not_a_slide", "TIAToolbox cannot open this as a slide: it is damaged, or of a kind it does not know."
            ) from error

    def read(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> NDArray[np.uint8]:
        """See `SlideReader.read`."""
        check_region(self.info.levels, level, x_px, y_px, width_px, height_px)
        try:
            return self._fetch(level, x_px, y_px, width_px, height_px)
        except (PrepError, MemoryError):
            raise
        except Exception:  # noqa: BLE001 - any decoder's error; the second try tells what it was
            self.close()
            ensure_reachable(self._path)
        try:
            return self._fetch(level, x_px, y_px, width_px, height_px)
        except (PrepError, MemoryError):
            raise
        except Exception as error:
            self.close()
            ensure_reachable(self._path)
            raise UnreadableRegionError(
                f"The {width_px}×{height_px} px at ({x_px}, {y_px}) of level {level} cannot be decoded: "
                "the slide is damaged there."
            ) from error

    def close(self) -> None:
        """See `SlideReader.close`."""
        handle, self._handle, self._planes = self._handle, None, ()
        if handle is None:
            return
        for view in getattr(handle, "level_arrays", {}).values():
            view.array.store.close()
        for name in ("tiff", "wsi"):
            if hasattr(handle, name):
                getattr(handle, name).close()

    def _open(self) -> None:
        self._handle = _open_handle(self._path)
        self._planes = _planes(self._handle)

    def _reopen(self) -> None:
        try:
            self._open()
        except Exception as error:
            self.close()
            ensure_reachable(self._path)
            raise UnreachableError(
                "The slide was opened before and no longer opens: is another program writing it?"
            ) from error

    def _fetch(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> NDArray[np.uint8]:
        if self._handle is None:
            self._reopen()
        pixels = self._planes[level].fetch(x_px, y_px, width_px, height_px)
        if pixels.dtype != np.uint8 or pixels.shape[:2] != (height_px, width_px) or pixels.shape[2] not in (3, 4):
            raise ValueError(f"decoded {pixels.shape} of {pixels.dtype} instead of {height_px}×{width_px}×3 bytes")
        return flatten(pixels, WHITE) if pixels.shape[2] == 4 else np.ascontiguousarray(pixels)


def _open_handle(path: Path) -> Any:
    from tiatoolbox.wsicore import wsireader

    # Not WSIReader.open: it fails on folders without a suffix, and loads whole pictures into memory.
    kind = path.suffix.lower()
    if kind == ".dcm" or (path.is_dir() and any(entry.suffix.lower() == ".dcm" for entry in path.iterdir())):
        return wsireader.DICOMWSIReader(path, post_proc=None)
    if kind == ".zarr":
        if not wsireader.is_ngff(str(path)):
            raise SlideProblemError("not_a_slide", "The zarr hierarchy is no NGFF image of version 0.4.")
        return wsireader.NGFFWSIReader(str(path), post_proc=None)
    if kind in _TIFF_SUFFIXES:
        return wsireader.TIFFWSIReader(path, post_proc=None)
    if kind == ".jp2":
        _require_openjpeg()
        return wsireader.JP2WSIReader(path, post_proc=None)
    raise SlideProblemError(
        "not_a_slide", "The reader `tiatoolbox` takes OME-TIFF, TIFF, SVS, JP2, NGFF (.zarr) and DICOM, by file name."
    )


def _require_openjpeg() -> None:
    import glymur  # type: ignore[import-untyped]

    if glymur.lib.openjp2.OPENJP2 is None:
        raise ManifestError("JP2 slides need the OpenJPEG library, which is not installed here: install `libopenjp2`.")


def _planes(handle: Any) -> tuple[_Plane, ...]:
    """The levels of a TIAToolbox reader, the largest first."""
    if hasattr(handle, "level_arrays"):
        planes = [_plane_of_array(view.array, str(view.axes)) for view in handle.level_arrays.values()]
    elif hasattr(handle, "wsi"):
        planes = [_plane_of_dicom(handle.wsi, level) for level in handle.wsi.levels]
    elif hasattr(handle, "glymur_jp2"):
        planes = [_plane_of_jp2(handle.glymur_jp2, level) for level in range(handle.info.level_count)]
    else:
        raise SlideProblemError("not_a_slide", f"TIAToolbox's {type(handle).__name__} has no levels that can be read.")
    return tuple(sorted(planes, key=lambda plane: -plane.width_px * plane.height_px))


def _plane_of_array(array: Any, axes: str) -> _Plane:
    """A level kept as a zarr array, its axes in any order."""
    size = dict(zip(axes, array.shape, strict=True))
    channel = "S" if "S" in size else "C"
    further = [axis for axis in axes if axis not in ("Y", "X", channel) and size[axis] != 1]
    if array.dtype != np.uint8 or size.get(channel) not in (3, 4) or further or not {"Y", "X"} <= size.keys():
        raise SlideProblemError(
            "not_a_slide",
            f"The image is {'×'.join(map(str, array.shape))} ({axes}) of {array.dtype}; only 8-bit RGB can be built.",
        )
    kept = [axis for axis in axes if axis in ("Y", "X", channel)]
    order = [kept.index(axis) for axis in ("Y", "X", channel)]

    def fetch(x_px: int, y_px: int, width_px: int, height_px: int) -> NDArray[Any]:
        part = {"Y": slice(y_px, y_px + height_px), "X": slice(x_px, x_px + width_px), channel: slice(None)}
        return np.asarray(array[tuple(part.get(axis, 0) for axis in axes)]).transpose(order)

    return _Plane(width_px=size["X"], height_px=size["Y"], fetch=fetch)


def _plane_of_dicom(slide: Any, level: Any) -> _Plane:
    def fetch(x_px: int, y_px: int, width_px: int, height_px: int) -> NDArray[Any]:
        return np.asarray(slide.read_region((x_px, y_px), level.level, (width_px, height_px)).convert("RGB"))

    return _Plane(width_px=level.size.width, height_px=level.size.height, fetch=fetch)


def _plane_of_jp2(image: Any, level: int) -> _Plane:
    """A resolution of JPEG 2000: level-0 size divided by a power of two, rounded up (ISO/IEC 15444-1, B.5)."""
    height, width = image.shape[:2]
    step = 2**level

    def fetch(x_px: int, y_px: int, width_px: int, height_px: int) -> NDArray[Any]:
        rows = slice(y_px * step, min((y_px + height_px) * step, height), step)
        columns = slice(x_px * step, min((x_px + width_px) * step, width), step)
        return np.asarray(image[rows, columns])

    return _Plane(width_px=-(-width // step), height_px=-(-height // step), fetch=fetch, downsample=float(step))


def _describe(handle: Any, planes: tuple[_Plane, ...]) -> SlideInfo:
    base = planes[0]
    levels = tuple(
        Level(
            width_px=plane.width_px,
            height_px=plane.height_px,
            downsample=plane.downsample or (base.width_px / plane.width_px + base.height_px / plane.height_px) / 2,
            exact=True,
        )
        for plane in planes
    )
    vendor, claims, objective_power = _own_words(handle)
    return SlideInfo(
        reader="tiatoolbox",
        vendor=vendor,
        levels=levels,
        claimed_mpp=tuple(claimed for claimed in claims if claimed is not None),
        objective_power=objective_power,
        bounds_px=(0, 0, base.width_px, base.height_px),
        background=WHITE,
        properties={},
        icc_sha256=_icc_sha256(handle),
    )


def _icc_sha256(handle: Any) -> str | None:
    if not hasattr(handle, "tiff"):
        return None
    tag = handle.tiff.series[handle.series_n].pages[0].tags.get(_ICC_TAG)
    return hashlib.sha256(bytes(tag.value)).hexdigest() if tag is not None else None


def _own_words(handle: Any) -> tuple[str, list[ClaimedMpp | None], float | None]:
    """Vendor, claims and objective power as the file has them, without what TIAToolbox would infer."""
    if hasattr(handle, "tiff"):
        return _words_of_tiff(handle)
    if hasattr(handle, "wsi"):
        spacing_mm = handle.wsi.levels.base_level.pixel_spacing
        return "dicom", [claim(spacing_mm.width * 1000, spacing_mm.height * 1000, "dicom")], None
    if hasattr(handle, "zattrs"):
        units = {axis.unit for axis in handle.zattrs.multiscales.axes if axis.name in ("x", "y")}
        sizes = handle.info.mpp if units == {"micrometer"} else None
        return "ngff", [claim(sizes[0], sizes[1], "vendor")] if sizes is not None else [], None
    return _words_of_jp2(handle)


def _words_of_tiff(handle: Any) -> tuple[str, list[ClaimedMpp | None], float | None]:
    tiff = handle.tiff
    page = tiff.series[handle.series_n].pages[0]
    tags = {name: page.tags[name].value for name in ("XResolution", "YResolution") if name in page.tags}
    unit = _TIFF_UNITS.get(int(page.tags["ResolutionUnit"].value)) if "ResolutionUnit" in page.tags else None
    of_tags = claim_of_tiff_tags(_ratio(tags.get("XResolution")), _ratio(tags.get("YResolution")), unit)
    if tiff.is_ome:
        text = tiff.ome_metadata
        powers = set(re.findall(r'NominalMagnification="([^"]*)"', text))
        power = as_number(powers.pop()) if len(powers) == 1 else None
        return "ome-tiff", [claim_of_ome_xml(text, image=int(handle.series_n)), of_tags], power
    if tiff.is_svs:
        um_per_px, power = _words_of_aperio(page.description)
        return "aperio", [claim(um_per_px, um_per_px, "vendor"), of_tags], power
    return "generic-tiff", [of_tags], None


def _words_of_jp2(handle: Any) -> tuple[str, list[ClaimedMpp | None], float | None]:
    """Omnyx and Aperio write a description into an XML box; a capture resolution box is vendor's as well."""
    import glymur

    description, per_metre = "", None
    pending = list(handle.glymur_jp2.box)
    while pending:
        box = pending.pop()
        pending += getattr(box, "box", None) or []
        if isinstance(box, glymur.jp2box.XMLBox) and box.xml is not None:
            description += " ".join(box.xml.getroot().itertext())
        if isinstance(box, glymur.jp2box.CaptureResolutionBox):
            per_metre = (box.horizontal_resolution, box.vertical_resolution)
    um_per_px, power = _words_of_aperio(description)
    claims = [claim(um_per_px, um_per_px, "vendor")]
    if per_metre is not None and all(per_metre):
        claims.append(claim(1e6 / per_metre[0], 1e6 / per_metre[1], "vendor"))
    return "jp2", claims, power


def _words_of_aperio(description: str) -> tuple[str | None, float | None]:
    """µm per pixel and objective power of a description such as ``... |AppMag = 20|MPP = 0.499``."""
    um_per_px = re.search(r"\bMPP\s*=\s*([0-9.]+)", description)
    power = re.search(r"\bAppMag\s*=\s*([0-9.]+)", description)
    return (um_per_px.group(1) if um_per_px else None), (as_number(power.group(1)) if power else None)


def _ratio(value: tuple[int, int] | None) -> float | None:
    return value[0] / value[1] if value is not None and value[1] else None
