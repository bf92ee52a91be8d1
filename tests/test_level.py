"""Which level is read, and how it becomes a patch of the requested mpp."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from exaone_prep.errors import SlideProblemError
from exaone_prep.slides.level import REDUCTIONS, LevelChoice, choose_level
from exaone_prep.slides.reader import Level


def pyramid(*downsamples: float, inexact: frozenset[int] = frozenset()) -> tuple[Level, ...]:
    return tuple(
        Level(width_px=round(80_000 / d), height_px=round(60_000 / d), downsample=d, exact=index not in inexact)
        for index, d in enumerate(downsamples)
    )


def chosen(levels: tuple[Level, ...], mpp_um: float, target_mpp: float = 0.5, tolerance: float = 0.05) -> LevelChoice:
    return choose_level(levels, mpp_um, target_mpp=target_mpp, size_px=256, tolerance=tolerance)


@pytest.mark.parametrize(
    ("mpp_um", "downsamples", "expected"),
    [
        # level, reduction, read_size_px, effective mpp
        (0.499, (1.0,), (0, 1, 256, 0.499)),
        (0.25, (1.0, 4.0, 16.0), (0, 2, 512, 0.5)),
        (0.25, (1.0, 2.0, 4.0), (1, 1, 256, 0.5)),
        (0.2425, (1.0, 2.0), (1, 1, 256, 0.485)),
        (0.121, (1.0, 8.0), (0, 4, 1024, 0.484)),
        (0.475, (1.0,), (0, 1, 256, 0.475)),
        (0.525, (1.0,), (0, 1, 256, 0.525)),
        (0.2282, (1.0, 2.0), (1, None, 280, 0.2282 * 2 * 280 / 256)),
        (0.35, (1.0, 4.0), (0, None, 366, 0.35 * 366 / 256)),
        (0.02, (1.0,), (0, None, 6400, 0.5)),
    ],
)
def test_typical_slides_are_read_as_expected(
    mpp_um: float, downsamples: tuple[float, ...], expected: tuple[int, int | None, int, float]
) -> None:
    choice = chosen(pyramid(*downsamples), mpp_um)
    assert (choice.level, choice.reduction, choice.read_size_px) == expected[:3]
    assert choice.effective_mpp == pytest.approx(expected[3], rel=1e-12)


def test_a_level_between_whole_pixels_is_passed_over_for_a_finer_one() -> None:
    levels = pyramid(1.0, 2.0005, inexact=frozenset({1}))
    assert (chosen(levels, 0.25).level, chosen(levels, 0.25).reduction) == (0, 2)


def test_a_slide_coarser_than_the_target_is_refused_with_both_values() -> None:
    with pytest.raises(SlideProblemError, match=r"28\.97.*0\.5") as raised:
        chosen(pyramid(1.0), 28.97)
    assert raised.value.reason == "too_coarse"
    with pytest.raises(SlideProblemError):
        chosen(pyramid(1.0), 0.5251)


slides = st.lists(st.tuples(st.floats(1.2, 6), st.booleans()), max_size=6)


@given(
    steps=slides,
    mpp_um=st.floats(0.05, 2),
    target_mpp=st.floats(0.1, 16),
    tolerance=st.floats(0, 0.3),
    size_px=st.integers(16, 1024),
)
def test_every_choice_keeps_the_rule(
    steps: list[tuple[float, bool]], mpp_um: float, target_mpp: float, tolerance: float, size_px: int
) -> None:
    assume(mpp_um <= target_mpp)
    downsamples, exact = [1.0], [True]
    for step, addressable in steps:
        downsamples.append(downsamples[-1] * step)
        exact.append(addressable)
    levels = tuple(
        Level(width_px=100, height_px=100, downsample=d, exact=e) for d, e in zip(downsamples, exact, strict=True)
    )
    choice = choose_level(levels, mpp_um, target_mpp=target_mpp, size_px=size_px, tolerance=tolerance)

    # Never upsampled, and from a level whose pixels are its own.
    assert choice.read_size_px >= size_px
    assert levels[choice.level].exact
    # No coarser level would have done.
    for level in levels[choice.level + 1 :]:
        assert not level.exact or mpp_um * level.downsample > target_mpp * (1 + tolerance)
    # As near to the target as whole pixels allow, or within the tolerance.
    half_a_pixel = 0.5 * choice.level_mpp / size_px
    off = abs(choice.effective_mpp - target_mpp)
    assert off <= max(half_a_pixel, tolerance * target_mpp) * (1 + 1e-6) + 1e-8
    # A whole reduction reads that many pixels, and where one is within the tolerance nothing is resampled.
    if choice.reduction is None:
        assert off <= half_a_pixel * (1 + 1e-6)
        assert all(abs(choice.level_mpp * r / target_mpp - 1) > tolerance for r in REDUCTIONS)
    else:
        assert choice.read_size_px == choice.reduction * size_px
        assert all(off <= abs(choice.level_mpp * r - target_mpp) + 1e-8 for r in REDUCTIONS) or off <= half_a_pixel
    assert choice.footprint_px == pytest.approx(choice.effective_mpp * size_px / mpp_um)
