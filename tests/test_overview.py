"""The overview of a slide: block means of its coarsest suitable level, in spite of damaged places."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from exaone_prep.errors import SlideProblemError
from exaone_prep.overview import BLOCK_PX, MAX_FAILURES, read_overview
from tests.fakereader import Box, FakeReader

Rgb = NDArray[np.uint8]
SLIDE_MPP = 0.5


def noise(height: int, width: int, seed: int = 0) -> Rgb:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def expected_means(rgb: Rgb, factor: int) -> NDArray[np.float64]:
    """Mean of each block; blocks that the edge cuts are filled up with its last row and column."""
    height, width = -(-rgb.shape[0] // factor), -(-rgb.shape[1] // factor)
    means = np.empty((height, width, 3))
    for y in range(height):
        for x in range(width):
            rows = np.minimum(np.arange(y * factor, (y + 1) * factor), rgb.shape[0] - 1)
            columns = np.minimum(np.arange(x * factor, (x + 1) * factor), rgb.shape[1] - 1)
            means[y, x] = rgb[np.ix_(rows, columns)].reshape(-1, 3).mean(axis=0)
    return means


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.sampled_from([1.0, 2.0, 4.0, 8.0]))
def test_each_pixel_is_the_mean_of_the_slides_pixels_under_it(height: int, width: int, target_mpp: float) -> None:
    rgb = noise(height, width)
    factor = round(target_mpp / SLIDE_MPP)
    overview = read_overview(FakeReader(rgb), slide_mpp=SLIDE_MPP, target_mpp=target_mpp)
    expected = expected_means(rgb, factor)
    assert overview.rgb.shape == expected.shape
    assert overview.rgb.dtype == np.uint8
    assert np.abs(overview.rgb - expected).max() <= 0.5 + 1e-9  # rounded, not truncated
    assert (overview.mpp, overview.scale_px) == (SLIDE_MPP * factor, factor)
    assert not overview.unreadable.any()


def test_a_slide_larger_than_a_block_is_read_in_blocks_that_cover_it_once() -> None:
    rgb = noise(BLOCK_PX + 300, 2 * BLOCK_PX + 17)
    reader = FakeReader(rgb)
    overview = read_overview(reader, slide_mpp=SLIDE_MPP, target_mpp=8)
    assert sum(width * height for _, _, _, width, height in reader.reads) == rgb.shape[0] * rgb.shape[1]
    assert max(max(width, height) for _, _, _, width, height in reader.reads) <= BLOCK_PX
    whole = rgb[: rgb.shape[0] // 16 * 16, : rgb.shape[1] // 16 * 16]
    means = whole.reshape(whole.shape[0] // 16, 16, whole.shape[1] // 16, 16, 3).mean(axis=(1, 3))
    assert np.abs(overview.rgb[: means.shape[0], : means.shape[1]] - means).max() <= 0.5 + 1e-9


def test_the_coarsest_level_that_is_fine_enough_is_read() -> None:
    full, quarter, sixteenth, coarse = noise(640, 640), noise(160, 160, 1), noise(40, 40, 2), noise(10, 10, 3)
    reader = FakeReader(full, quarter, sixteenth, coarse)
    overview = read_overview(reader, slide_mpp=SLIDE_MPP, target_mpp=8)
    assert {read[0] for read in reader.reads} == {2}
    assert np.array_equal(overview.rgb, sixteenth)
    assert (overview.mpp, overview.scale_px) == (8, 16)
    between = read_overview(reader, slide_mpp=SLIDE_MPP, target_mpp=4)
    assert reader.reads[-1][0] == 1
    assert np.abs(between.rgb - expected_means(quarter, 2)).max() <= 0.5 + 1e-9


def places_over(box: Box, shape: tuple[int, ...], factor: int) -> NDArray[np.bool_]:
    """Overview pixels that lie over a box."""
    left, top, width, height = box
    over = np.zeros(shape, dtype=np.bool_)
    over[top // factor : -(-(top + height) // factor), left // factor : -(-(left + width) // factor)] = True
    return over


@pytest.mark.parametrize(
    "box", [(700, 900, 40, 40), (0, 0, 1, 1), (2499, 2299, 1, 1), (0, 1024, 2500, 16), (2040, 100, 16, 900)]
)
def test_only_places_around_the_damage_are_unreadable(box: Box) -> None:
    rgb = noise(2300, 2500)
    background = (240, 241, 242)
    overview = read_overview(FakeReader(rgb, damaged=[box], background=background), slide_mpp=SLIDE_MPP, target_mpp=8)
    damaged = places_over(box, overview.unreadable.shape, 16)
    assert overview.unreadable[damaged].all()
    # Pieces are halved down to 4 overview pixels a side: no further than 3 from the damage.
    near = np.zeros_like(damaged)
    for y, x in np.argwhere(damaged):
        near[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4] = True
    assert not overview.unreadable[~near].any()
    assert (overview.rgb[overview.unreadable] == background).all()
    whole = read_overview(FakeReader(rgb), slide_mpp=SLIDE_MPP, target_mpp=8)
    assert np.array_equal(overview.rgb[~overview.unreadable], whole.rgb[~overview.unreadable])


def test_a_slide_of_which_nothing_can_be_read_is_given_up_in_bounded_time() -> None:
    reader = FakeReader(noise(4000, 4000), damaged=[(0, 0, 4000, 4000)])
    with pytest.raises(SlideProblemError, match=f"Over {MAX_FAILURES} places .* damaged at") as caught:
        read_overview(reader, slide_mpp=SLIDE_MPP, target_mpp=8)
    assert caught.value.reason == "unreadable"
    assert len(reader.reads) == MAX_FAILURES + 1


def test_many_small_damages_are_borne() -> None:
    boxes = [(400 * n + 100, 500 * n + 100, 8, 8) for n in range(6)]
    overview = read_overview(FakeReader(noise(3200, 2600), damaged=boxes), slide_mpp=SLIDE_MPP, target_mpp=8)
    for box in boxes:
        assert overview.unreadable[places_over(box, overview.unreadable.shape, 16)].all()
    assert overview.unreadable.mean() < 0.01


def test_blocks_without_pixels_keep_the_background_of_the_slide() -> None:
    overview = read_overview(
        FakeReader(noise(64, 64), damaged=[(0, 0, 64, 64)], background=(1, 2, 3)), slide_mpp=SLIDE_MPP, target_mpp=8
    )
    assert overview.unreadable.all()
    assert (overview.rgb == (1, 2, 3)).all()
