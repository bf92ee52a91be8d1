"""The pixels a slide's stain is fitted on: of patches spread over the tissue, without ink.

Ink is kept out three times: patches that fail the quality measures, pixels of an ink's colour with the rim around
them, and patches whose own stain lies far outside that of the others. The last is for ink over tissue, whose colour
alone can be that of a strong haematoxylin (`docs/decisions/012-patches-outside-the-stain.md`; for rims and the number
of patches 013).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exaone_prep import stain
from exaone_prep.manifest import Manifest
from exaone_prep.patches import PatchReader
from exaone_prep.quality import measure, pen_pixels, verdict
from exaone_prep.slides import UnreadableRegionError
from exaone_prep.stain.algebra import Vector, columns, dot, unit

PATCHES: Final = 64
"""4.2 million pixels of 256×256 patches; with 32, which ones are taken alone moves eosin by up to 2°."""

SHOWN: Final = 4
_TRIES: Final = 4
_LEAST_TO_COMPARE: Final = 3

_RIM_PX: Final = 16
_SPOT_PX: Final = 3

# cos 7° and sin 7°. Patches of real slides reach 6.8° beyond their slide's median, inked ones lie 7° to 17° beyond.
_COS_BEYOND: Final = 0.992546151641322
_SIN_BEYOND: Final = 0.12186934340514748


@dataclass(frozen=True, kw_only=True)
class StainSample:
    """What was read of a slide to find its stain.

    Attributes:
        pixels: uint8 (N, 3), those to fit on.
        unfiltered: uint8 (M, 3), those of all patches looked at, ink and all.
        clear: How many of those are in patches that passed, and neither ink nor near it.
        shown: uint8 (n, size, size, 3), a few whole patches.
        shown_numbers: int32 (n,), which of the planned ones these are.
    """

    pixels: NDArray[np.uint8]
    unfiltered: NDArray[np.uint8]
    clear: int
    shown: NDArray[np.uint8]
    shown_numbers: NDArray[np.int32]

    def fit(self, *, background_dark: bool) -> stain.StainFit:
        """The slide's stain with the verdict on it."""
        fit = stain.fit(self.pixels)
        fit = fit.judged(stain.verdict_slide(fit, dark_background=background_dark))
        if fit.status != "not_he" and 2 * self.clear < len(self.unfiltered):
            # Ink never covers most of a slide's tissue: where most of it looks like ink, its colours are not those of
            # H&E, and the few pixels left must not decide.
            whole = stain.fit(self.unfiltered)
            verdict_of_whole = stain.verdict_slide(whole)
            if verdict_of_whole.status == "not_he":
                return whole.judged(verdict_of_whole)
        return fit


def take_sample(patches: PatchReader, positions: NDArray[np.int64], manifest: Manifest, slide_id: str) -> StainSample:
    """Read planned patches spread over the tissue, exactly as the build will.

    Args:
        patches: Of the slide.
        positions: int64 (N, 2), planned patches in raster order, in pixels of the level read.
        manifest: Quality limits, patch size and seed.
        slide_id: Part of the key by which patches are chosen.
    """
    kept: list[NDArray[np.uint8]] = []
    unfiltered: list[NDArray[np.uint8]] = []
    shown: list[NDArray[np.uint8]] = []
    numbers: list[int] = []
    for candidates in _spread(len(positions), PATCHES, f"{manifest.seed}:{slide_id}"):
        first = True
        for number in candidates[:_TRIES]:
            try:
                patch = patches.read(int(positions[number, 0]), int(positions[number, 1]))
            except UnreadableRegionError:
                continue
            flat = patch.reshape(-1, 3)
            if first:
                unfiltered.append(flat)
                first = False
            if verdict(measure(patch), manifest.quality) != "kept":
                continue
            ink = ink_with_rim(patch)
            kept.append(patch[~ink] if ink.any() else flat)
            if len(shown) < SHOWN:
                shown.append(patch)
                numbers.append(number)
            break
    none = np.empty((0, 3), dtype=np.uint8)
    size_px = manifest.patch.size_px
    return StainSample(
        pixels=np.concatenate([none, *without_outliers(kept)]),
        unfiltered=np.concatenate([none, *unfiltered]),
        clear=sum(map(len, kept)),
        shown=np.stack(shown) if shown else np.empty((0, size_px, size_px, 3), dtype=np.uint8),
        shown_numbers=np.array(numbers, dtype=np.int32),
    )


def ink_with_rim(patch: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell ink by its colour, and take what lies within 16 px of a spot of it for ink as well.

    At the rims of a mark black ink thins out to brown and red ink to pink, which their colour does not tell from
    tissue; under 1 % of such brown turns a fit by 20°. Spots below 3×3 px are tissue that looks like ink, without rims.

    Args:
        patch: uint8 (H, W, 3), RGB as scanned.

    Returns:
        bool (H, W), true for ink.
    """
    ink = pen_pixels(patch)
    if not ink.any():
        return ink
    # A third of a second, which processes without pixels need not wait for.
    from scipy import ndimage

    spots = ndimage.binary_opening(ink, np.ones((_SPOT_PX, _SPOT_PX), dtype=np.bool_))
    if spots.any():
        ink |= ndimage.maximum_filter(spots.view(np.uint8), size=2 * _RIM_PX + 1).view(np.bool_)
    return ink


def without_outliers(patches: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """The patches whose own stain vectors lie at most 7° beyond the median ones of all.

    Only what lies outside counts: a patch without nuclei has a "haematoxylin" nearer to eosin, which is no fault.

    Args:
        patches: uint8 (N, 3) each, of one slide.
    """
    pairs = [_vectors(stain.fit(patch)) for patch in patches]
    known = [pair for pair in pairs if pair is not None]
    if len(known) < _LEAST_TO_COMPARE:
        return list(patches)
    haematoxylin = _median([pair[0] for pair in known])
    eosin = _median([pair[1] for pair in known])
    cosine = dot(haematoxylin, eosin)
    # cos(angle + 7°), without an arc cosine: its last bit depends on the CPU.
    limit = cosine * _COS_BEYOND - sqrt(max(0.0, 1.0 - cosine * cosine)) * _SIN_BEYOND
    return [
        patch
        for patch, pair in zip(patches, pairs, strict=True)
        if pair is None or (dot(pair[0], eosin) >= limit and dot(pair[1], haematoxylin) >= limit)
    ]


def _vectors(fit: stain.StainFit) -> tuple[Vector, Vector] | None:
    return columns(fit.stain_matrix) if fit.status == "ok" and fit.stain_matrix is not None else None


def _median(vectors: Sequence[Vector]) -> Vector:
    """The median of each component, at unit length."""
    red, green, blue = (sorted(components)[len(vectors) // 2] for components in zip(*vectors, strict=True))
    return unit((red, green, blue))


def _spread(count: int, strata: int, key: str) -> Iterator[list[int]]:
    """Cut 0…count−1 into equal strata, and order each by a keyed hash; strata come in hash order as well."""

    def rank(number: int) -> bytes:
        return hashlib.blake2b(f"{key}:{number}".encode(), digest_size=8).digest()

    strata = min(strata, count)
    parts = [range(count * part // strata, count * (part + 1) // strata) for part in range(strata)]
    for part in sorted(parts, key=lambda numbers: rank(-1 - numbers.start)):
        step = max(1, len(part) // 64)  # a stratum of a huge slide need not be hashed whole
        yield sorted(part[::step], key=rank)
