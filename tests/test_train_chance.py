"""Numbers behind crops: torchvision's distributions, and the same for an image wherever its batch is cut."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torchvision.transforms import v2

from exaone_train.chance import JITTERED, PRESETS, SIGMA_PX, Drawn, View, draw, views_of
from exaone_train.config import CropConfig

SIDE_PX = 256
IMAGES = 4000
P_VALUE = 1e-3
"""Chance that a right distribution fails a test: once in a thousand seeds, and the seeds are fixed."""


def drawn(preset: str = "dino", seed: int = 0, step: int = 0, first: int = 0, count: int = IMAGES) -> list[Drawn]:
    crops = CropConfig.model_validate({"preset": preset, "local_crops": 2})
    return draw(views_of(crops), SIDE_PX, seed=seed, step=step, first=first, count=count)


@pytest.fixture(scope="module")
def dino() -> list[Drawn]:
    return drawn()


def torchvision_boxes(scale: tuple[float, float], count: int) -> NDArray[np.float64]:
    """Top, left, height and width as torchvision draws them."""
    crop = v2.RandomResizedCrop(224, scale=scale)
    image = torch.empty(3, SIDE_PX, SIDE_PX)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        params = [crop.make_params([image]) for _ in range(count)]
    return np.array([[one[name] for name in ("top", "left", "height", "width")] for one in params], dtype=float)


def same_distribution(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> bool:
    return bool(stats.ks_2samp(ours, theirs).pvalue > P_VALUE)


@pytest.mark.parametrize("scale", [(0.25, 1.0), (0.05, 0.25), (0.9, 1.0)])
def test_boxes_are_distributed_as_those_of_torchvision(scale: tuple[float, float]) -> None:
    view = View(96, scale, (0,), (0,), PRESETS["dino"])
    ours = draw([view], SIDE_PX, seed=3, step=0, first=0, count=IMAGES)[0].boxes
    theirs = torchvision_boxes(scale, IMAGES)
    measures: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
        "area": lambda boxes: boxes[:, 2] * boxes[:, 3],
        "ratio": lambda boxes: boxes[:, 3] / boxes[:, 2],
        "height": lambda boxes: boxes[:, 2],
        "top": lambda boxes: boxes[:, 0],
        "left": lambda boxes: boxes[:, 1],
        "centre": lambda boxes: boxes[:, 0] + boxes[:, 2] / 2,
        "diagonal": lambda boxes: boxes[:, 0] - boxes[:, 1],
    }
    assert [name for name, of in measures.items() if not same_distribution(of(ours), of(theirs))] == []


def test_where_no_try_fits_the_box_is_the_image() -> None:
    scale = (0.9, 1.0)
    view = View(96, scale, (0,), (0,), PRESETS["dino"])
    share = np.mean(draw([view], 64, seed=0, step=0, first=0, count=IMAGES)[0].boxes[:, 2:].min(axis=1) == 64)
    assert 0 < share < 0.2


@settings(max_examples=100, deadline=None)
@given(
    side_px=st.integers(1, 300),
    low=st.floats(0.001, 1),
    high=st.floats(0.001, 1),
    seed=st.integers(0, 2**63 - 1),
    step=st.integers(0, 10**9),
)
def test_boxes_lie_within_the_image_and_are_no_longer_than_their_view_says(
    side_px: int, low: float, high: float, seed: int, step: int
) -> None:
    scale = (min(low, high), max(low, high))
    view = View(16, scale, (0, 0), (0, 0), PRESETS["dino"])
    boxes = draw([view], side_px, seed=seed, step=step, first=7, count=20)[0].boxes
    assert (boxes == np.rint(boxes)).all()
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] >= 1).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= side_px).all()
    assert boxes[:, 2:].max() <= view.largest_px(side_px)


def torchvision_jitter(count: int) -> tuple[NDArray[np.float64], list[tuple[int, ...]]]:
    """Strengths and orders of a `ColorJitter` as DINO's code has it."""
    jitter = v2.ColorJitter(0.4, 0.4, 0.2, 0.1)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        params = [jitter.make_params([]) for _ in range(count)]
    names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
    strengths = np.array([[one[name] for name in names] for one in params], dtype=float)
    return strengths, [tuple(int(number) for number in one["fn_idx"]) for one in params]


def test_strengths_of_jitter_are_distributed_as_those_of_torchvision(dino: list[Drawn]) -> None:
    theirs, _ = torchvision_jitter(IMAGES)
    for view in dino:
        assert [number for number in range(4) if not same_distribution(view.jitter[:, number], theirs[:, number])] == []


def test_every_order_of_jitter_is_as_frequent_as_any_other_over_the_steps() -> None:
    orders = [tuple(view.order) for step in range(1200) for view in drawn(step=step, count=1)]
    _, counts = np.unique(np.array(orders), axis=0, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > P_VALUE


def as_frequent(switch: NDArray[np.bool_], share: float) -> bool:
    return bool(stats.binomtest(int(switch.sum()), switch.size, share).pvalue > P_VALUE)


def test_switches_are_as_frequent_as_in_dino(dino: list[Drawn]) -> None:
    large, local = dino
    first, second = np.split(large.blurred, 2)
    for view in dino:
        assert as_frequent(view.jittered, JITTERED)
        assert as_frequent(view.grey, 0.2)
        assert stats.kstest((view.sigma_px - SIGMA_PX[0]) / (SIGMA_PX[1] - SIGMA_PX[0]), "uniform").pvalue > P_VALUE
    assert first.all()
    assert as_frequent(second, 0.1)
    assert as_frequent(local.blurred, 0.5)
    first, second = np.split(large.solarized, 2)
    assert not first.any()
    assert as_frequent(second, 0.2)
    assert not local.solarized.any()


def test_all_eight_symmetries_of_a_square_are_as_frequent(dino: list[Drawn]) -> None:
    for view in dino:
        codes = view.mirrored[:, 0] * 4 + view.mirrored[:, 1] * 2 + view.turned
        counts = np.bincount(codes, minlength=8)
        assert stats.chisquare(counts).pvalue > P_VALUE


def test_stains_change_within_the_presets_strengths_and_not_at_all_without_any() -> None:
    without = [name for name, preset in PRESETS.items() if not any(preset.stain)]
    assert without == ["dino", "jitter"]
    assert all((view.stain == [[[1], [0]]]).all() for name in without for view in drawn(name))
    for name, (gain, shift) in ((name, preset.stain) for name, preset in PRESETS.items() if name not in without):
        stain = drawn(name)[0].stain
        assert stats.kstest((stain[:, 0].ravel() - 1) / gain, stats.uniform(-1, 2).cdf).pvalue > P_VALUE
        assert stats.kstest(stain[:, 1].ravel() / shift, stats.uniform(-1, 2).cdf).pvalue > P_VALUE


def test_a_normalised_image_keeps_its_hue_and_is_never_solarised() -> None:
    for view in drawn("normalized"):
        assert 3 not in view.order
        assert len(view.order) == 3
        assert (view.jitter[:, 3] == 0).all()
        assert not view.solarized.any()


def test_jitter_is_pathology_without_its_change_of_stain() -> None:
    assert PRESETS["jitter"] == dataclasses.replace(PRESETS["pathology"], stain=(0, 0))


def columns(view: Drawn) -> Iterator[NDArray[np.float64]]:
    """Every independent number that was drawn for a view, as columns."""
    top_left = view.boxes[:, :2] / (SIDE_PX + 1 - view.boxes[:, 2:])
    size = np.log(view.boxes[:, 2] * view.boxes[:, 3]), np.log(view.boxes[:, 3] / view.boxes[:, 2])
    switches = (view.turned, view.jittered, view.grey, view.blurred, view.solarized)
    for part in (top_left, *size, view.mirrored, view.stain, view.jitter, view.sigma_px, *switches):
        yield from np.asarray(part, dtype=float).reshape(len(view.boxes), -1).T


def test_numbers_of_a_crop_its_crops_and_its_steps_have_nothing_to_do_with_each_other() -> None:
    found = [
        column
        for step in (0, 1)
        for view in drawn("pathology", step=step)
        for crops in np.split(np.array(list(columns(view))), len(view.boxes) // IMAGES, axis=1)
        for column in crops
        if column.std() > 0
    ]
    correlations = np.corrcoef(found)[np.triu_indices(len(found), 1)]
    assert len(found) > 150
    # The largest of many normal variables.
    assert np.abs(correlations).max() * np.sqrt(IMAGES) < stats.norm.isf(P_VALUE / 2 / len(correlations))


def test_seed_step_and_place_each_give_other_numbers() -> None:
    base = drawn(seed=1, step=2, first=3, count=1)[1].sigma_px
    for other in (drawn(seed=2, step=2, first=3, count=1), drawn(seed=1, step=3, first=3, count=1)):
        assert not np.isin(base, other[1].sigma_px).any()
    assert len(np.unique(drawn()[1].sigma_px)) == 2 * IMAGES


@settings(max_examples=50, deadline=None)
@given(cuts=st.sets(st.integers(1, 39)), first=st.integers(0, 10**6), seed=st.integers(0, 2**63 - 1))
def test_an_image_has_the_same_numbers_wherever_its_batch_is_cut(cuts: set[int], first: int, seed: int) -> None:
    whole = drawn(seed=seed, step=11, first=first, count=40)
    edges = [0, *sorted(cuts), 40]
    parts = [
        drawn(seed=seed, step=11, first=first + begin, count=end - begin) for begin, end in itertools.pairwise(edges)
    ]
    for number, view in enumerate(whole):
        for field in dataclasses.fields(Drawn):
            expected = getattr(view, field.name)
            if field.name == "order":
                assert all(part[number].order == expected for part in parts)
                continue
            # Crop by crop, all images of a part.
            crops = [np.split(getattr(part[number], field.name), len(view.boxes) // 40) for part in parts]
            together = np.concatenate([np.concatenate(crop) for crop in zip(*crops, strict=True)])
            np.testing.assert_array_equal(together, expected)


def test_without_local_crops_there_is_no_view_of_them() -> None:
    views = views_of(CropConfig(local_crops=0))
    assert [len(view.blurred) for view in views] == [2]
    assert len(draw(views, SIDE_PX, seed=0, step=0, first=0, count=3)[0].boxes) == 6
