"""The grid lies on whole pixels inside the scanned part, and tissue fractions are exact areas."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from exaone_prep.grid import FRACTION_STEPS, patch_grid, tissue_fractions

sizes = st.integers(1, 40)
lengths = st.integers(0, 120)


def test_cmu_small_region_has_eight_by_eleven_patches() -> None:
    grid = patch_grid(
        level_width_px=2220, level_height_px=2967, bounds_px=(0, 0, 2220, 2967), read_size_px=256, stride_px=256
    )
    assert grid.dtype == np.int64
    assert grid.shape == (88, 2)
    assert grid[:9].tolist() == [[256 * column, 0] for column in range(8)] + [[0, 256]]
    assert grid[-1].tolist() == [1792, 2560]


@examples(deadline=None)
@given(lengths, lengths, st.integers(-20, 60), st.integers(-20, 60), lengths, lengths, sizes, sizes)
def test_grid_is_every_step_that_fits_level_and_bounds(
    width: int, height: int, left: int, top: int, across: int, down: int, size: int, stride: int
) -> None:
    grid = patch_grid(
        level_width_px=width,
        level_height_px=height,
        bounds_px=(left, top, across, down),
        read_size_px=size,
        stride_px=stride,
    )
    x0, y0 = max(left, 0), max(top, 0)
    expected = [
        [x, y]
        for y in range(y0, height)
        for x in range(x0, width)
        if (x - x0) % stride == 0
        and (y - y0) % stride == 0
        and x + size <= min(width, left + across)
        and y + size <= min(height, top + down)
    ]
    assert grid.tolist() == expected


@pytest.mark.parametrize(("size", "stride"), [(0, 1), (1, 0), (-3, 1)])
def test_a_grid_without_extent_is_refused(size: int, stride: int) -> None:
    with pytest.raises(ValueError, match="no grid"):
        patch_grid(level_width_px=9, level_height_px=9, bounds_px=(0, 0, 9, 9), read_size_px=size, stride_px=stride)


def exact_fraction(mask: NDArray[np.bool_], x: int, y: int, size: int, scale: Fraction) -> Fraction:
    """Overlap of a square with every single mask pixel, in rational numbers."""

    def overlap(low: Fraction, high: Fraction, pixel: int) -> Fraction:
        return max(Fraction(0), min(high, Fraction(pixel + 1)) - max(low, Fraction(pixel)))

    left, right = x * scale, (x + size) * scale
    top, bottom = y * scale, (y + size) * scale
    covered = sum(
        (overlap(left, right, int(column)) * overlap(top, bottom, int(row)) for row, column in np.argwhere(mask)),
        Fraction(0),
    )
    return covered / (size * scale) ** 2


@examples(deadline=None)
@given(
    hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)),
    st.lists(st.tuples(st.integers(0, 150), st.integers(0, 150)), min_size=1, max_size=5),
    st.integers(1, 80),
    st.floats(0.01, 3.0),
)
def test_fractions_are_the_area_on_tissue(
    mask: NDArray[np.bool_], corners: list[tuple[int, int]], size: int, scale: float
) -> None:
    found = tissue_fractions(mask, np.array(corners, dtype=np.int64), read_size_px=size, mask_px_per_level_px=scale)
    assert found.dtype == np.float64
    for fraction, (x, y) in zip(found, corners, strict=True):
        expected = exact_fraction(mask, x, y, size, Fraction(scale))
        # Rounding of a coordinate moves the edge of a tiny square by a share of its side.
        assert abs(Fraction(float(fraction)) - expected) <= Fraction(1, FRACTION_STEPS) + Fraction(1, 10**9)
        assert 0 <= fraction <= 1


@examples(deadline=None)
@given(st.integers(1, 2000), st.integers(0, 3000), st.integers(0, 3000), st.floats(0.005, 0.1))
def test_a_square_all_on_tissue_is_exactly_one(size: int, x: int, y: int, scale: float) -> None:
    mask = np.ones((501, 501), dtype=np.bool_)
    found = tissue_fractions(mask, np.array([[x, y]]), read_size_px=size, mask_px_per_level_px=scale)
    assert found.tolist() == [1.0]


def test_half_a_mask_pixel_counts_half() -> None:
    mask = np.array([[True, False]])
    corners = np.array([[0, 0], [8, 0], [16, 0]])
    found = tissue_fractions(mask, corners, read_size_px=16, mask_px_per_level_px=1 / 16)
    assert found.tolist() == [1.0, 0.5, 0.0]


def test_beyond_the_mask_there_is_no_tissue() -> None:
    found = tissue_fractions(
        np.ones((2, 2), dtype=np.bool_), np.array([[1, 0], [5, 5]]), read_size_px=2, mask_px_per_level_px=1.0
    )
    assert found.tolist() == [0.5, 0.0]


def test_without_squares_or_mask_there_is_nothing_to_find() -> None:
    mask = np.ones((3, 3), dtype=np.bool_)
    nowhere = np.empty((0, 2), dtype=np.int64)
    assert tissue_fractions(mask, nowhere, read_size_px=2, mask_px_per_level_px=1.0).shape == (0,)
    nothing = np.empty((0, 3), dtype=np.bool_)
    assert tissue_fractions(nothing, np.array([[0, 0]]), read_size_px=2, mask_px_per_level_px=1.0).tolist() == [0.0]


@pytest.mark.parametrize(("size", "scale"), [(0, 1.0), (4, 0.0), (4, float("nan"))])
def test_squares_without_area_are_refused(size: int, scale: float) -> None:
    with pytest.raises(ValueError, match="no area"):
        tissue_fractions(
            np.ones((2, 2), dtype=np.bool_), np.array([[0, 0]]), read_size_px=size, mask_px_per_level_px=scale
        )


def test_a_million_squares_are_judged_at_once() -> None:
    rng = np.random.default_rng(5)
    mask = rng.random((500, 700)) < 0.5
    corners = rng.integers(0, 8000, size=(1_000_000, 2))
    found = tissue_fractions(mask, corners, read_size_px=256, mask_px_per_level_px=1 / 16)
    some = rng.integers(0, len(corners), size=50)
    for number in some:
        alone = tissue_fractions(mask, corners[number : number + 1], read_size_px=256, mask_px_per_level_px=1 / 16)
        assert alone[0] == found[number]
