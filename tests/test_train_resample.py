"""Crops of a batch in one go are Pillow's crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from exaone_train.resample import column_table, resample
from tests.smallslides import tissue_rgb

Rgb = NDArray[np.uint8]
Boxes = NDArray[np.int64]

SIDE_PX = 256


def noise(count: int, side_px: int = SIDE_PX, seed: int = 0) -> Rgb:
    return np.random.default_rng(seed).integers(0, 256, (count, side_px, side_px, 3), dtype=np.uint8)


def chequered(side_px: int = SIDE_PX) -> Rgb:
    """Squares of 1, 2, 3 and 7 px, black and white: every filter overshoots, and Pillow clips."""
    y, x = np.mgrid[0:side_px, 0:side_px]
    return np.stack([(255 * ((y // px + x // px) % 2)).astype(np.uint8)[..., None].repeat(3, 2) for px in (1, 2, 3, 7)])


def tissue() -> Rgb:
    picture = tissue_rgb(3)
    return np.stack([picture[256:512, left : left + 256] for left in (0, 256, 512, 768)])


PICTURES = {"noise": noise(4), "edges": chequered(), "tissue": tissue()}


def random_boxes(count: int, side_px: int, largest_px: int, seed: int = 1) -> Boxes:
    random = np.random.default_rng(seed)
    sizes = random.integers(1, largest_px + 1, (count, 2))
    return np.concatenate([random.integers(0, side_px - sizes + 1), sizes], axis=1)


def resampled(
    images: Rgb,
    which: Sequence[int] | NDArray[Any],
    boxes: Boxes,
    mirrored: NDArray[Any],
    size_px: int,
    largest_px: int,
) -> NDArray[np.float32]:
    """Crops in grey levels, (n, size, size, 3)."""
    crops = resample(
        column_table(torch.from_numpy(images)),
        torch.as_tensor(which),
        torch.from_numpy(boxes).float(),
        torch.from_numpy(mirrored).float(),
        size_px=size_px,
        largest_px=largest_px,
    )
    levels: NDArray[np.float32] = (255 * crops).permute(0, 2, 3, 1).numpy()
    return levels


def by_pillow(image: Rgb, box: NDArray[np.int64], mirrored: NDArray[Any], size_px: int) -> Rgb:
    top, left, height, width = (int(value) for value in box)
    cut = Image.fromarray(image).crop((left, top, left + width, top + height))
    crop = np.asarray(cut.resize((size_px, size_px), Image.Resampling.BICUBIC))
    crop = crop[::-1] if mirrored[0] else crop
    return crop[:, ::-1] if mirrored[1] else crop


def all_by_pillow(images: Rgb, which: NDArray[Any], boxes: Boxes, mirrored: NDArray[Any], size_px: int) -> Rgb:
    crops = zip(which, boxes, mirrored, strict=True)
    return np.stack([by_pillow(images[number], box, mirror, size_px) for number, box, mirror in crops])


@pytest.mark.parametrize(("size_px", "largest_px"), [(224, 256), (96, 148), (32, 256)])
@pytest.mark.parametrize("name", PICTURES)
def test_crops_are_those_of_pillow_to_one_grey_level(name: str, size_px: int, largest_px: int) -> None:
    images, count = PICTURES[name], 48
    which = np.arange(count) % len(images)
    boxes = random_boxes(count, SIDE_PX, largest_px)
    mirrored = np.random.default_rng(2).integers(0, 2, (count, 2))
    ours = resampled(images, which, boxes, mirrored, size_px, largest_px)
    pillows = all_by_pillow(images, which, boxes, mirrored, size_px).astype(np.float32)
    # Pillow rounds twice: half a level times the sum of a cubic's weights, and half a level.
    assert np.abs(ours - pillows).max() <= 1.15
    assert np.abs(np.rint(ours) - pillows).max() <= 1


@pytest.mark.parametrize(("size_px", "largest_px"), [(224, 256), (96, 148)])
def test_crops_are_those_of_pillow_without_rounding(size_px: int, largest_px: int) -> None:
    # Levels that no cubic takes out of their range, so that nothing is clipped: Pillow does not clip floats.
    images, count = noise(2) // 4 + 96, 16
    boxes = random_boxes(count, SIDE_PX, largest_px)
    ours = resampled(images, np.arange(count) % 2, boxes, np.zeros((count, 2)), size_px, largest_px)
    for number, (top, left, height, width) in enumerate(boxes.tolist()):
        for channel in range(3):
            cut = Image.fromarray(images[number % 2, ..., channel].astype(np.float32))
            cut = cut.crop((left, top, left + width, top + height))
            exact = np.asarray(cut.resize((size_px, size_px), Image.Resampling.BICUBIC))
            assert np.abs(ours[number, ..., channel] - exact).max() < 0.01


@settings(max_examples=150, deadline=None)
@given(data=st.data(), side_px=st.integers(4, 40), size_px=st.integers(1, 48))
def test_any_box_of_any_image_in_any_size_is_pillows(data: st.DataObject, side_px: int, size_px: int) -> None:
    height, width = (data.draw(st.integers(1, side_px)) for _ in range(2))
    top, left = data.draw(st.integers(0, side_px - height)), data.draw(st.integers(0, side_px - width))
    box, mirrored = np.array([[top, left, height, width]]), np.array([data.draw(st.tuples(*[st.integers(0, 1)] * 2))])
    largest_px = data.draw(st.integers(max(height, width), side_px))
    images = noise(1, side_px, seed=data.draw(st.integers(0, 9)))
    ours = resampled(images, [0], box, mirrored, size_px, largest_px)
    assert np.abs(np.rint(ours[0]) - by_pillow(images[0], box[0], mirrored[0], size_px)).max() <= 1


def test_a_box_of_the_crops_size_is_copied() -> None:
    images = noise(1)
    crop = resampled(images, [0], np.array([[3, 5, 96, 96]]), np.zeros((1, 2)), 96, 148)[0]
    assert np.abs(crop - images[0, 3:99, 5:101]).max() < 1e-4


def test_nothing_beyond_the_border_of_a_box_is_seen() -> None:
    images = noise(1)
    box, mirrored = np.array([[20, 30, 150, 130]]), np.zeros((1, 2))
    other = np.full_like(images, 255)
    other[:, 20:170, 30:160] = images[:, 20:170, 30:160]
    crops = [resampled(seen, [0], box, mirrored, 96, 200) for seen in (images, other)]
    np.testing.assert_array_equal(crops[0], crops[1])


def test_a_crop_has_the_same_bits_in_any_batch() -> None:
    images, count = noise(4), 12
    which, boxes = np.arange(count) % 4, random_boxes(count, SIDE_PX, 148)
    mirrored = np.random.default_rng(2).integers(0, 2, (count, 2))
    together = resampled(images, which, boxes, mirrored, 96, 148)
    for number in range(count):
        alone = np.s_[number : number + 1]
        crop = resampled(images[[which[number]]], [0], boxes[alone], mirrored[alone], 96, 148)
        np.testing.assert_array_equal(crop[0], together[number])


def test_a_plain_area_stays_what_it_is() -> None:
    images = np.full((1, 64, 64, 3), (0, 128, 255), dtype=np.uint8)
    crops = resampled(images, [0] * 8, random_boxes(8, 64, 64), np.zeros((8, 2)), 40, 64)
    assert np.abs(crops - images[0, 0, 0]).max() < 1e-3
