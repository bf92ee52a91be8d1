"""Slides read through OpenSlide: its handles, its addressing and its errors, kept from everyone else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from exaone_prep.errors import SlideProblemError, UnreachableError
from exaone_prep.slides.mpp import ClaimedMpp, as_number, claim, claim_of_ome_xml, claim_of_tiff_tags
from exaone_prep.slides.properties import allowed_properties
from exaone_prep.slides.reach import ensure_reachable
from exaone_prep.slides.reader import WHITE, Level, SlideInfo, UnreadableRegionError, check_region, flatten

EXACT_WITHIN_PX: Final = 1 / 512
"""Half of cairo's 1/256 px: a translation nearer than this to a whole pixel is one, and nothing is interpolated."""

CACHE_BYTES: Final = 128 * 2**20
"""Of decoded tiles per handle: holds two rows of 256 px tiles across 64,000 px, so raster order decodes a tile once."""

_CHANGED: Final = "The slide was opened before and no longer opens as it was: is another program writing it?"


class OpenSlideReader:
    """A slide opened by OpenSlide; see `SlideReader` for the contract.

    OpenSlide refuses everything on a handle that failed once, so a handle is given up after an error and a new one is
    opened at the next read.
    """

    _handle: openslide.OpenSlide | None

    def __init__(self, path: Path) -> None:
        """Open a slide: a file, or the directory of one DICOM series.

        Raises:
            SlideProblemError: ``not_a_slide`` (no format OpenSlide knows) or ``unreadable`` (known, but broken).
            UnreachableError: The file cannot be read.
        """
        try:
            self._entry, self._handle = _open_any(_entries(path))
        except SlideProblemError:
            ensure_reachable(path)
            raise
        self._path = path
        self.info = _describe(self._handle)

    def read(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> NDArray[np.uint8]:
        """See `SlideReader.read`; a region is called unreadable only if it fails twice, once on a new handle."""
        check_region(self.info.levels, level, x_px, y_px, width_px, height_px)
        downsample = self.info.levels[level].downsample
        location = (round(x_px * downsample), round(y_px * downsample))
        try:
            image = self._opened().read_region(location, level, (width_px, height_px))
        except openslide.OpenSlideError:
            self.close()
            ensure_reachable(self._path)
            reopened = self._opened()
            try:
                image = reopened.read_region(location, level, (width_px, height_px))
            except openslide.OpenSlideError as error:
                self.close()
                ensure_reachable(self._path)
                raise UnreadableRegionError(
                    f"The {width_px}×{height_px} px at ({x_px}, {y_px}) of level {level} cannot be decoded: "
                    "the slide is damaged there."
                ) from error
        return _rgb(image, self.info.background)

    def close(self) -> None:
        """See `SlideReader.close`."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def _opened(self) -> openslide.OpenSlide:
        if self._handle is None:
            try:
                handle = _open(self._entry)
                sizes = handle.level_dimensions
            except openslide.OpenSlideError as error:
                ensure_reachable(self._path)
                raise UnreachableError(_CHANGED) from error
            # A DICOM series opens without the files that cannot be read just now, and its levels move up.
            if sizes != tuple((level.width_px, level.height_px) for level in self.info.levels):
                handle.close()
                ensure_reachable(self._path)
                raise UnreachableError(_CHANGED)
            self._handle = handle
        return self._handle


def addressable(downsample: float, length_px: int) -> bool:
    """Whether OpenSlide reads every whole pixel of a level without interpolating.

    It takes positions in whole level-0 pixels, so pixel i of a level lies nearest to round(i × downsample), and is
    displaced by that value / downsample − i.

    Args:
        downsample: Level-0 pixels per pixel of the level, as OpenSlide has it (mean of both axes).
        length_px: Longer side of the level.
    """
    pixels = np.arange(length_px, dtype=np.float64)
    displaced_px = np.rint(pixels * downsample) / downsample - pixels
    return bool((np.abs(displaced_px) < EXACT_WITHIN_PX).all())


def _entries(path: Path) -> list[Path]:
    """What OpenSlide is to be given: any one file of a DICOM series stands for all of it."""
    if not path.is_dir():
        return [path]
    entries = sorted(entry for entry in path.iterdir() if entry.suffix.lower() == ".dcm" and entry.is_file())
    if not entries:
        raise SlideProblemError("not_a_slide", "The folder holds no DICOM files (.dcm): name the slide files instead.")
    return entries


def _open_any(entries: list[Path]) -> tuple[Path, openslide.OpenSlide]:
    broken: openslide.OpenSlideError | None = None
    for entry in entries:
        try:
            return entry, _open(entry)
        except openslide.OpenSlideUnsupportedFormatError:
            continue
        except openslide.OpenSlideError as error:
            broken = error
    if broken is None:
        raise SlideProblemError(
            "not_a_slide",
            "This is no slide that OpenSlide knows, or it is cut off: copy it again, or try the reader `tiatoolbox`.",
        )
    raise SlideProblemError(
        "unreadable",
        "OpenSlide knows the format but cannot open this slide, which is damaged or of an unusual kind: "
        "copy it again, or try the reader `tiatoolbox`.",
    ) from broken


def _open(entry: Path) -> openslide.OpenSlide:
    handle = openslide.OpenSlide(entry)
    handle.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
    return handle


def _rgb(image: Image.Image, background: tuple[int, int, int]) -> NDArray[np.uint8]:
    # Almost every region is opaque, and Pillow drops the alpha channel twice as fast as NumPy does.
    lowest_alpha, _ = image.getchannel("A").getextrema()
    if lowest_alpha == 255:
        return np.array(image.convert("RGB"))
    return flatten(np.asarray(image), background)


def _describe(handle: openslide.OpenSlide) -> SlideInfo:
    properties = handle.properties
    levels = tuple(
        Level(
            width_px=width,
            height_px=height,
            downsample=downsample,
            exact=addressable(downsample, max(width, height)),
        )
        for (width, height), downsample in zip(handle.level_dimensions, handle.level_downsamples, strict=True)
    )
    # An empty region costs nothing and carries the profile as the file has it; `color_profile` writes it anew.
    profile = handle.read_region((0, 0), 0, (0, 0)).info.get("icc_profile")
    return SlideInfo(
        reader="openslide",
        vendor=properties.get("openslide.vendor", "unknown"),
        levels=levels,
        claimed_mpp=_claims(properties),
        objective_power=as_number(properties.get("openslide.objective-power")),
        bounds_px=_bounds(properties, levels[0]),
        background=_background(properties.get("openslide.background-color")),
        properties=allowed_properties(properties),
        icc_sha256=hashlib.sha256(profile).hexdigest() if profile else None,
    )


def _claims(properties: Mapping[str, str]) -> tuple[ClaimedMpp, ...]:
    vendor = properties.get("openslide.vendor")
    first: ClaimedMpp | None
    if vendor == "generic-tiff":
        # OpenSlide's mpp of a generic TIFF is its resolution tags; OME-XML, which it does not look at, is better.
        first = claim_of_ome_xml(properties.get("tiff.ImageDescription"))
    else:
        mpp_x, mpp_y = properties.get("openslide.mpp-x"), properties.get("openslide.mpp-y")
        first = claim(mpp_x, mpp_y, "dicom" if vendor == "dicom" else "vendor")
    tags = claim_of_tiff_tags(
        properties.get("tiff.XResolution"), properties.get("tiff.YResolution"), properties.get("tiff.ResolutionUnit")
    )
    return tuple(claimed for claimed in (first, tags) if claimed is not None)


def _bounds(properties: Mapping[str, str], level_0: Level) -> tuple[int, int, int, int]:
    whole = (0, 0, level_0.width_px, level_0.height_px)
    try:
        x, y, width, height = (int(properties[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height"))
    except (KeyError, ValueError):
        return whole
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, level_0.width_px), min(y + height, level_0.height_px)
    return (left, top, right - left, bottom - top) if left < right and top < bottom else whole


def _background(colour: str | None) -> tuple[int, int, int]:
    try:
        red, green, blue = bytes.fromhex(colour or "")
    except ValueError:
        return WHITE
    return red, green, blue
