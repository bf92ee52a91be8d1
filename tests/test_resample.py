"""Area means, in integers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from exaone_prep.resample import reduce_area, resize_area
from tests.realdata import camelyon_patches, needs_real_data, read_rgb


def noise(height_px: int, width_px: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)


def area_weights(read_size_px: int, size_px: int) -> NDArray[np.float64]:
    """Row j: the share of every old pixel in new pixel j, from the overlap of intervals."""
    old, new = np.arange(read_size_px)[None, :], np.arange(size_px)[:, None] * read_size_px / size_px
    overlap = np.minimum(old + 1, new + read_size_px / size_px) - np.maximum(old, new)
    weights: NDArray[np.float64] = np.clip(overlap, 0, None) * size_px / read_size_px
    return weights


def resized_in_floats(rgb: NDArray[np.uint8], size_px: int) -> NDArray[np.float64]:
    weights = area_weights(len(rgb), size_px)
    shrunk: NDArray[np.float64] = np.einsum("jy,yxc,kx->jkc", weights, rgb.astype(np.float64), weights, optimize=True)
    return shrunk


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8, 16, 17, 32])
def test_reduction_is_the_mean_of_each_square_with_halves_rounded_up(factor: int) -> None:
    rgb = noise(5 * factor, 7 * factor)
    sums = rgb.reshape(5, factor, 7, factor, 3).sum(axis=(1, 3), dtype=np.int64)
    expected = (2 * sums + factor * factor) // (2 * factor * factor)
    np.testing.assert_array_equal(reduce_area(rgb, factor), expected)


def test_a_half_is_rounded_up_and_white_stays_white() -> None:
    square = np.array([[1, 0], [1, 0]], dtype=np.uint8)[..., None].repeat(3, axis=2)
    assert reduce_area(square, 2).tolist() == [[[1, 1, 1]]]
    for factor in (2, 4, 8, 32):
        assert (reduce_area(np.full((factor, factor, 3), 255, dtype=np.uint8), factor) == 255).all()


@pytest.mark.parametrize(("height_px", "width_px", "factor"), [(5, 4, 2), (4, 5, 2), (4, 4, 0), (4, 4, 8)])
def test_sides_that_do_not_divide_are_refused(height_px: int, width_px: int, factor: int) -> None:
    with pytest.raises(ValueError, match="reduce"):
        reduce_area(noise(height_px, width_px), factor)


@settings(max_examples=60, deadline=None)
@given(size_px=st.integers(1, 24), more_px=st.integers(0, 40), seed=st.integers(0, 99))
def test_resampling_is_the_exact_mean_over_each_new_pixels_area(size_px: int, more_px: int, seed: int) -> None:
    read_size_px = size_px + more_px
    rgb = noise(read_size_px, read_size_px, seed)
    resized = resize_area(rgb, size_px)
    assert resized.shape == (size_px, size_px, 3)
    assert resized.dtype == np.uint8
    # One pixel in exact fractions, the rest against floats.
    row, column = seed % size_px, (seed * 7) % size_px
    total = Fraction(0)
    step = Fraction(read_size_px, size_px)
    for y in range(read_size_px):
        high = min(Fraction(y + 1), step * (row + 1)) - max(Fraction(y), step * row)
        for x in range(read_size_px):
            wide = min(Fraction(x + 1), step * (column + 1)) - max(Fraction(x), step * column)
            if high > 0 and wide > 0:
                total += int(rgb[y, x, 1]) * high * wide
    assert resized[row, column, 1] == (total / step**2 + Fraction(1, 2)).__floor__()
    assert np.abs(resized - resized_in_floats(rgb, size_px)).max() <= 0.5 + 1e-6


@needs_real_data
@pytest.mark.parametrize("size_px", [255, 233, 128, 100])
def test_real_tissue_is_resampled_to_the_nearest_grey_level(size_px: int) -> None:
    rgb = read_rgb(camelyon_patches()[0])
    assert np.abs(resize_area(rgb, size_px) - resized_in_floats(rgb, size_px)).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_whole_factor_gives_the_same_either_way(factor: int) -> None:
    rgb = noise(32 * factor, 32 * factor)
    np.testing.assert_array_equal(resize_area(rgb, 32), reduce_area(rgb, factor))


@pytest.mark.parametrize("read_size_px", [4103, 4104, 4105, 5000])
def test_sums_hold_where_32_bits_end(read_size_px: int) -> None:
    white = np.full((read_size_px, read_size_px, 3), 255, dtype=np.uint8)
    assert (resize_area(white, 3) == 255).all()


def test_nothing_is_upsampled_and_only_squares_are_taken() -> None:
    with pytest.raises(ValueError, match="shrink"):
        resize_area(noise(8, 8), 9)
    with pytest.raises(ValueError, match="shrink"):
        resize_area(noise(8, 9), 4)
