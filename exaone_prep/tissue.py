"""Where on a slide there is tissue, judged on an overview at about 8 µm/px."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exaone_prep.errors import ManifestError
from exaone_prep.manifest import Tissue
from exaone_prep.quality import DARK_MAX, pen_pixels

THRESHOLD_FLOOR: Final = 20
"""Least saturation of tissue: below it lie the noise and the colour fringes of glass."""

THRESHOLD_CEILING: Final = 48
"""Where all is tissue, Otsu parts strongly from weakly stained; whatever is above this is stained."""

GLASS_MARGIN: Final = 15
"""Tissue is at least this much more saturated than the glass of its slide, whatever light the scanner has."""

GLASS_BAND: Final = 12
"""Glass is what lies within so many grey levels of the brightest part."""

CLAM_THRESHOLD: Final = 8
_CLAM_MEDIAN_PX: Final = 7
_CLAM_CLOSING_PX: Final = 4

_BRIGHT_MIN: Final = 150
_DARK_SHARE: Final = (4, 10)
_BRIGHT_SHARE: Final = (5, 100)

_EDGES: Final = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.bool_)
_EDGES_AND_CORNERS: Final = np.ones((3, 3), dtype=np.bool_)


@dataclass(frozen=True, kw_only=True)
class TissueMask:
    """What was found on an overview.

    Attributes:
        mask: bool (H, W), true on tissue and where the overview could not be read.
        threshold: Saturation (0 to 255) that tissue exceeds; grey level that it stays below for TIAToolbox's maskers.
        separable: Whether anything stands out from the background; where not, the slide is empty.
        background_dark: Light on dark, as in fluorescence: not a slide stained with haematoxylin and eosin.
    """

    mask: NDArray[np.bool_]
    threshold: int
    separable: bool
    background_dark: bool


def tissue_mask(
    overview: NDArray[np.uint8],
    *,
    mpp: float,
    settings: Tissue,
    unreadable: NDArray[np.bool_] | None = None,
) -> TissueMask:
    """Find the tissue on a slide.

    `otsu` thresholds the saturation (Otsu, IEEE Trans. SMC 9(1), 1979), within limits, since a method that always
    finds two classes finds them on an empty slide as well. `fixed` is the fixed threshold on saturation of CLAM (Lu
    et al., Nature Biomedical Engineering 5, 2021). Both count in integers and find the same on every CPU. The other
    two are TIAToolbox's.

    Args:
        overview: uint8 (H, W, 3), RGB; transparent places already laid on the slide's background colour.
        mpp: µm per pixel of the overview.
        settings: Method, and the areas below which specks and holes do not count.
        unreadable: bool (H, W), where the file could not be decoded.

    Raises:
        ManifestError: The method needs TIAToolbox, which is not installed.
        ValueError: The overview is not uint8 (H, W, 3), or `mpp` is not positive.
    """
    if overview.dtype != np.uint8 or overview.ndim != 3 or overview.shape[2] != 3 or not mpp > 0:
        raise ValueError(
            f"an overview must be uint8 (H, W, 3) with µm per pixel, not {overview.dtype} {overview.shape}"
        )
    hidden = np.zeros(overview.shape[:2], dtype=np.bool_) if unreadable is None else unreadable
    if overview.size == 0:
        return TissueMask(mask=hidden.copy(), threshold=THRESHOLD_FLOOR, separable=False, background_dark=False)
    background_dark = _is_background_dark(overview, hidden)
    if settings.method == "otsu":
        found, threshold = _otsu(overview, hidden, background_dark=background_dark)
    elif settings.method == "fixed":
        found, threshold = _fixed(overview)
    else:
        found, threshold = _tiatoolbox(settings.method, overview, mpp)
    found = fill_holes(found & ~hidden, _pixels(settings.max_hole_um2, mpp))
    found = drop_specks(found, _pixels(settings.min_speck_um2, mpp))
    # What cannot be seen counts as tissue: its patches are planned, tried at full resolution (where they may well be
    # readable) and otherwise counted as unreadable, instead of leaving the data set without a trace.
    return TissueMask(
        mask=found | hidden, threshold=threshold, separable=bool(found.any()), background_dark=background_dark
    )


def saturation(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Saturation of the HSV model, 255·(max − min)/max rounded half up, 0 for black: uint8 (..., 3) to uint8 (...)."""
    lightest = _lightest(pixels).astype(np.uint32)
    spread = lightest - _darkest(pixels)
    rounded: NDArray[np.uint8] = ((510 * spread + lightest) // (2 * np.maximum(lightest, 1))).astype(np.uint8)
    return rounded


def otsu_threshold(counts: NDArray[np.int64]) -> int:
    """Otsu's threshold of a histogram: the last value of the lower class.

    In Python's whole numbers, so that the maximum is exact; the smallest of equally good thresholds.

    Args:
        counts: int64 (K,), how often each value occurs.
    """
    total = int(counts.sum())
    weighted = sum(value * int(count) for value, count in enumerate(counts))
    best_threshold, best_above, best_below = 0, 0, 1
    lower_count = lower_sum = 0
    for value, count in enumerate(counts):
        lower_count += int(count)
        lower_sum += value * int(count)
        upper_count = total - lower_count
        if lower_count == 0 or upper_count == 0:
            continue
        # Between-class variance is this fraction, but for a factor that all thresholds share.
        above = (lower_sum * total - weighted * lower_count) ** 2
        below = lower_count * upper_count
        if above * best_below > best_above * below:
            best_threshold, best_above, best_below = value, above, below
    return best_threshold


def fill_holes(mask: NDArray[np.bool_], max_px: int) -> NDArray[np.bool_]:
    """Fill what is enclosed by tissue and no larger than `max_px` pixels; what touches the border is no hole."""
    from scipy import ndimage

    labels, count = ndimage.label(~mask, structure=_EDGES)
    if count == 0 or max_px < 1:
        return mask
    small = np.bincount(labels.ravel(), minlength=count + 1) <= max_px
    for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        small[border] = False
    small[0] = False
    filled: NDArray[np.bool_] = mask | small[labels]
    return filled


def drop_specks(mask: NDArray[np.bool_], min_px: int) -> NDArray[np.bool_]:
    """Drop connected pieces of tissue of fewer than `min_px` pixels; corners connect."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, structure=_EDGES_AND_CORNERS)
    large = np.bincount(labels.ravel(), minlength=count + 1) >= min_px
    large[0] = False
    kept: NDArray[np.bool_] = large[labels]
    return kept


def _lightest(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # Plane by plane: ten times as fast as a maximum over an axis of three.
    lightest: NDArray[np.uint8] = np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])
    return lightest


def _darkest(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    darkest: NDArray[np.uint8] = np.minimum(np.minimum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])
    return darkest


def _median_of_nine(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Separable median over 3×3 (Narendra, IEEE Trans. PAMI 3(1), 1981): of each row's three, then of three rows."""
    padded = np.pad(values, 1, mode="edge")
    in_rows = _median_of_three(padded[:, :-2], padded[:, 1:-1], padded[:, 2:])
    return _median_of_three(in_rows[:-2], in_rows[1:-1], in_rows[2:])


def _median_of_three(
    first: NDArray[np.uint8], second: NDArray[np.uint8], third: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    median: NDArray[np.uint8] = np.maximum(np.minimum(first, second), np.minimum(np.maximum(first, second), third))
    return median


def _pixels(area_um2: float, mpp: float) -> int:
    return math.ceil(area_um2 / (mpp * mpp))


def _is_background_dark(overview: NDArray[np.uint8], hidden: NDArray[np.bool_]) -> bool:
    """Much darkness and next to no bright glass; black edges around a slide leave its glass bright."""
    dark = (_lightest(overview) < DARK_MAX) & ~hidden
    bright = (_darkest(overview) >= _BRIGHT_MIN) & ~hidden
    readable = int(np.count_nonzero(~hidden))
    much = int(np.count_nonzero(dark)) * _DARK_SHARE[1] > readable * _DARK_SHARE[0]
    return much and int(np.count_nonzero(bright)) * _BRIGHT_SHARE[1] < readable * _BRIGHT_SHARE[0]


def _otsu(
    overview: NDArray[np.uint8], hidden: NDArray[np.bool_], *, background_dark: bool
) -> tuple[NDArray[np.bool_], int]:
    blurred = _median_of_nine(saturation(overview))
    # Saturation means nothing where there is no light; slide edges and black felt-tip are darker than any fold.
    # Ink is left out as well, but not on a dark background, where pure colours are what the slide shows.
    out = _lightest(overview) < DARK_MAX
    if not background_dark:
        out |= pen_pixels(overview)
    # Places that were not scanned are painted pure white: no tissue, and no glass to learn from either.
    judged = ~(out | hidden | (_darkest(overview) == 255))
    counts = np.bincount(blurred[judged], minlength=256)
    floor = max(THRESHOLD_FLOOR, _glass_saturation(overview, blurred, judged) + GLASS_MARGIN)
    threshold = max(floor, min(otsu_threshold(counts), THRESHOLD_CEILING))
    return (blurred > threshold) & ~out, threshold


def _glass_saturation(overview: NDArray[np.uint8], blurred: NDArray[np.uint8], judged: NDArray[np.bool_]) -> int:
    """Median saturation of the brightest part; where there is no glass, no more than a pale tissue's."""
    if not judged.any():
        return 0
    red, green, blue = (overview[..., channel][judged].astype(np.uint16) for channel in range(3))
    luma = (red + 2 * green + blue) >> 2
    brightest = _ranked(np.bincount(luma, minlength=256), 99)
    glass = np.bincount(blurred[judged][luma >= brightest - GLASS_BAND], minlength=256)
    return min(_ranked(glass, 50), THRESHOLD_CEILING - GLASS_MARGIN)


def _ranked(counts: NDArray[np.int64], percent: int) -> int:
    """The value below or at which `percent` of a histogram lies."""
    return int(np.searchsorted(100 * np.cumsum(counts), percent * int(counts.sum())))


def _fixed(overview: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], int]:
    from scipy import ndimage

    blurred = ndimage.median_filter(saturation(overview), size=_CLAM_MEDIAN_PX, mode="nearest")
    box = np.ones((_CLAM_CLOSING_PX, _CLAM_CLOSING_PX), dtype=np.bool_)
    # Padded, since a closing erodes what it finds at the border of the picture.
    padded = np.pad(blurred > CLAM_THRESHOLD, _CLAM_CLOSING_PX)
    inner = slice(_CLAM_CLOSING_PX, -_CLAM_CLOSING_PX)
    closed: NDArray[np.bool_] = ndimage.binary_closing(padded, structure=box)[inner, inner]
    return closed, CLAM_THRESHOLD


def _tiatoolbox(method: str, overview: NDArray[np.uint8], mpp: float) -> tuple[NDArray[np.bool_], int]:
    masker = _tiatoolbox_masker(method, mpp)
    found: NDArray[np.bool_] = np.asarray(masker.fit_transform(overview[np.newaxis])[0], dtype=np.bool_)
    return found, int(masker.threshold)


def _tiatoolbox_masker(method: str, mpp: float) -> Any:
    # Importing TIAToolbox warns of packages that it can do without.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from tiatoolbox.tools import tissuemask
        except ImportError as error:
            raise ManifestError(
                f"tissue.method: {method} needs TIAToolbox, which is not installed here; install "
                "exaone-prep[tiatoolbox], or choose `otsu` or `fixed`."
            ) from error
    makers: dict[str, Callable[[], Any]] = {
        "tiatoolbox_otsu": tissuemask.OtsuTissueMasker,
        "tiatoolbox_morphological": lambda: tissuemask.MorphologicalMasker(mpp=mpp),
    }
    return makers[method]()
