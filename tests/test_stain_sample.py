"""Which pixels a slide's stain is fitted on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from exaone_prep import stain
from exaone_prep.stain_sample import without_outliers
from tests.realdata import camelyon_patches, needs_real_data, read_rgb
from tests.smallslides import tissue_rgb

Rgb = NDArray[np.uint8]


def _patches(seed: int, count: int = 6) -> list[Rgb]:
    rgb = tissue_rgb(seed)
    return [rgb[100 + 64 * n : 356 + 64 * n, 128 + 96 * n : 384 + 96 * n].reshape(-1, 3) for n in range(count)]


def _under_ink(patch: Rgb) -> Rgb:
    """Blue ink over tissue: every pixel darker, red most, and still the colour of a strong haematoxylin."""
    inked: Rgb = (patch * np.array([0.25, 0.3, 0.62])).astype(np.uint8)
    return inked


def _angle_deg(a: stain.StainFit, b: stain.StainFit) -> float:
    assert a.stain_matrix is not None
    assert b.stain_matrix is not None
    left, right = np.array(a.stain_matrix), np.array(b.stain_matrix)
    return max(math.degrees(math.acos(min(1.0, float(left[:, n] @ right[:, n])))) for n in (0, 1))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_patches_under_ink_are_left_out(seed: int) -> None:
    clean = _patches(seed)
    inked = [*clean[:4], *map(_under_ink, clean[4:])]
    assert [patch is inked[n] for n, patch in enumerate(without_outliers(inked))] == [True] * 4


def test_without_the_rule_ink_would_move_the_fit() -> None:
    clean = _patches(0)
    inked = [*clean[:4], *map(_under_ink, clean[4:])]
    true = stain.fit(np.concatenate(clean))
    assert _angle_deg(stain.fit(np.concatenate(inked)), true) > 10
    assert _angle_deg(stain.fit(np.concatenate(without_outliers(inked))), true) < 2


def test_of_two_patches_neither_is_the_odd_one() -> None:
    first, second, *_ = _patches(0)
    assert len(without_outliers([first, _under_ink(second)])) == 2


def test_patches_without_a_fit_of_their_own_stay() -> None:
    blank = np.full((65536, 3), 250, dtype=np.uint8)
    assert len(without_outliers([*_patches(0), blank])) == 7


@needs_real_data
def test_real_patches_of_a_slide_all_stay() -> None:
    slides: dict[str, list[Rgb]] = {}
    for path in camelyon_patches():
        slides.setdefault(path.name[:9], []).append(read_rgb(path).reshape(-1, 3))
    assert len(slides) == 4
    for patches in slides.values():
        assert len(without_outliers(patches)) == len(patches)
