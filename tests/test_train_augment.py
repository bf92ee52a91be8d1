"""Multi-crop: what one image at a time would give with Pillow and torchvision, the same wherever a batch is cut."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from exaone_train.augment import MEAN, STD, MultiCrop
from exaone_train.chance import PRESETS, Drawn, draw, views_of
from exaone_train.config import CropConfig
from tests.smallslides import tissue_rgb

HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
SEED = 5


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Ten pictures of tissue with some glass, uint8 (10, 128, 128, 3)."""
    slide = tissue_rgb(2)
    places = [(96 + 128 * row, 160 + 128 * column) for row in range(2) for column in range(5)]
    return torch.from_numpy(np.stack([slide[top : top + 128, left : left + 128] for top, left in places]))


def config(preset: str) -> CropConfig:
    return CropConfig.model_validate({"preset": preset, "global_size_px": 64, "local_size_px": 32, "local_crops": 3})


def multi_crop(preset: str, *, seed: int = SEED) -> MultiCrop:
    return MultiCrop(config(preset), seed=seed, batch_size=64)


def in_light(crop: Tensor) -> Tensor:
    """Before normalisation, 0 to 1."""
    return crop * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]


def one_by_one(image: NDArray[np.uint8], plan: Drawn, row: int, size_px: int) -> Tensor:
    """One crop by Pillow and torchvision, and the stain by its definition, float32 (3, size, size)."""
    top, left, height, width = (int(value) for value in plan.boxes[row])
    cut = Image.fromarray(image).crop((left, top, left + width, top + height))
    crop = np.asarray(cut.resize((size_px, size_px), Image.Resampling.BICUBIC)) / 255
    crop = crop[::-1] if plan.mirrored[row, 0] else crop
    crop = crop[:, ::-1] if plan.mirrored[row, 1] else crop
    crop = crop.transpose(1, 0, 2) if plan.turned[row] else crop
    gain, shift = plan.stain[row]
    amounts = -np.log(crop.clip(1 / 255, None)) @ np.linalg.inv(HED)
    crop = np.exp(-((amounts * gain + shift) @ HED)).clip(0, 1)
    light = torch.from_numpy(crop).float().permute(2, 0, 1)
    changes = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    for number in plan.order if plan.jittered[row] else ():
        light = changes[number](light, float(plan.jitter[row, number]))
    if plan.grey[row]:
        light = functional.rgb_to_grayscale(light, 3)
    if plan.blurred[row]:
        light = functional.gaussian_blur(light, [13, 13], [float(plan.sigma_px[row])] * 2)
    return functional.solarize(light, 0.5) if plan.solarized[row] else light


@pytest.mark.parametrize("preset", PRESETS)
def test_crops_are_those_of_pillow_and_torchvision_one_by_one(preset: str, images: Tensor) -> None:
    differences = []
    for step in range(3):
        crops = iter(multi_crop(preset)(images, step=step, first=4))
        views = views_of(config(preset))
        for view, plan in zip(views, draw(views, 128, seed=SEED, step=step, first=4, count=10), strict=True):
            for number, crop in enumerate(itertools.islice(crops, len(view.blurred))):
                rows = range(number * 10, (number + 1) * 10)
                expected = [
                    one_by_one(image, plan, row, view.size_px) for image, row in zip(images.numpy(), rows, strict=True)
                ]
                differences.append(255 * (in_light(crop) - torch.stack(expected)).abs().flatten())
    levels = torch.cat(differences)
    # Pillow rounds twice, and jitter makes more of it: up to 1.15 levels, times 1.4 · 1.4 · 1.2 in dino.
    assert levels.max() < 1.15 * math.prod(1 + strength for strength in PRESETS[preset].jitter[:3]) * 1.3
    assert levels.mean() < 0.5


def test_global_crops_come_first_in_float32_on_imagenets_scale(images: Tensor) -> None:
    crops = multi_crop("normalized")(images, step=0)
    assert [tuple(crop.shape) for crop in crops] == [(10, 3, 64, 64)] * 2 + [(10, 3, 32, 32)] * 3
    assert {crop.dtype for crop in crops} == {torch.float32}
    assert all(crop.is_contiguous() for crop in crops)
    light = torch.cat([in_light(crop).flatten() for crop in crops])
    assert light.min() >= -1e-6
    assert light.max() <= 1 + 1e-6
    assert light.max() > 0.9


def cuts() -> Iterator[list[int]]:
    yield [0, 5, 10]
    yield list(range(11))
    yield [0, 1, 4, 10]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_batch_has_the_same_bits_however_it_is_divided(preset: str, threads: int, images: Tensor) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        crops = multi_crop(preset)
        for step in range(2):
            whole = crops(images, step=step, first=20)
            for edges in cuts():
                parts = [
                    crops(images[begin:end], step=step, first=20 + begin) for begin, end in itertools.pairwise(edges)
                ]
                for number, crop in enumerate(whole):
                    assert torch.equal(torch.cat([part[number] for part in parts]), crop)
    finally:
        torch.set_num_threads(before)


def test_a_crop_depends_on_nothing_but_its_image_seed_step_and_place(images: Tensor) -> None:
    crop = multi_crop("pathology")(images, step=3)[2]
    others = images.flip(0).clone()
    others[6] = images[6]
    assert torch.equal(multi_crop("pathology")(others, step=3)[2][6], crop[6])
    same = images[6:7].expand(10, -1, -1, -1)
    elsewhere = multi_crop("pathology")(same, step=3)[2]
    assert [place for place in range(10) if torch.equal(elsewhere[place], crop[6])] == [6]
    assert not torch.equal(multi_crop("pathology")(images, step=4)[2][6], crop[6])
    assert not torch.equal(multi_crop("pathology", seed=6)(images, step=3)[2][6], crop[6])


def test_the_images_stay_as_they_are(images: Tensor) -> None:
    before = images.clone()
    multi_crop("dino")(images, step=0)
    assert torch.equal(images, before)


def test_crops_are_float32_and_need_no_gradient_in_any_mode(images: Tensor) -> None:
    expected = multi_crop("dino")(images, step=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = multi_crop("dino")(images, step=0)
    with torch.inference_mode():
        inferred = multi_crop("dino")(images, step=0)
    for crops in (mixed, inferred):
        assert all(torch.equal(crop, same) for crop, same in zip(crops, expected, strict=True))
    assert not any(crop.requires_grad for crop in expected)


@pytest.mark.parametrize("preset", PRESETS)
def test_no_value_of_an_image_is_waited_for(preset: str, images: Tensor) -> None:
    # Tensors on "meta" have a shape and no values: whoever asks one for a value fails.
    crops = multi_crop(preset)(images.to("meta"), step=0)
    assert [tuple(crop.shape) for crop in crops] == [(10, 3, 64, 64)] * 2 + [(10, 3, 32, 32)] * 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU is needed")
@pytest.mark.parametrize("preset", PRESETS)
def test_a_gpu_makes_the_same_crops_and_is_never_waited_for(preset: str, images: Tensor) -> None:
    on_card = images.cuda()
    crops = multi_crop(preset)
    crops(on_card, step=0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = crops(on_card, step=1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for crop, same in zip(made, crops(images, step=1), strict=True):
        torch.testing.assert_close(crop.cpu(), same, atol=2e-3, rtol=0)


def test_images_beyond_the_batch_are_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match="images 60 to 70 do not lie within a batch of 64"):
        multi_crop("dino")(images, step=0, first=60)


def test_the_benchmark_measures_what_it_says(suite: Any, images: Tensor) -> None:
    benchmark, patches = suite("augment"), images[:3].repeat(1, 2, 2, 1).numpy()
    figures, ratios = benchmark.beside_lightly(patches, runs=1)
    for preset in PRESETS:
        assert ratios[f"{preset}_over_lightly"] == figures[f"{preset}_ms"] / figures["lightly_ms"] > 0
    parts = benchmark.part_figures(patches, runs=1)
    assert {f"normalized_{part}_ms" for part in ("resample", "stain", "contrast", "blur", "rest")} <= set(parts)
    assert not {name for name in parts if name.startswith(("dino_stain", "normalized_hue"))}
    assert min(parts.values()) >= 0
    near = benchmark.pillow_figures(patches)
    assert near["pillow_global_max_levels"] == near["pillow_local_max_levels"] == 1
