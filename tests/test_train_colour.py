"""Changes of colour and sharpness are torchvision's, each image with its own strength."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional

from exaone_train import colour
from tests.smallslides import tissue_rgb

HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])


def pictures() -> Tensor:
    """Tissue, noise, greys, pure colours, black, white, and few distinct levels, so that channels are equal."""
    rgb = torch.from_numpy(tissue_rgb(1)[200:296, 300:396].copy()).permute(2, 0, 1) / 255
    noise = torch.from_numpy(np.random.default_rng(0).random((3, 96, 96), dtype=np.float32))
    corners = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0, 1, 1], [0, 1, 0, 1, 0, 1, 0, 1]])
    pure = corners.float().repeat_interleave(12, 1)[:, None].expand(3, 96, 96)
    grey, coarse = noise[:1].expand(3, 96, 96), (noise * 4).round() / 4
    return torch.stack([rgb, noise, pure, grey, coarse, torch.zeros_like(rgb), torch.ones_like(rgb)])


def strengths(low: float, high: float) -> Tensor:
    return torch.linspace(low, high, len(pictures()))


Changes = tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, float], Tensor], Tensor]

CHANGES: dict[str, Changes] = {
    "brightness": (colour.brightness, functional.adjust_brightness, strengths(0.6, 1.4)),
    "contrast": (colour.contrast, functional.adjust_contrast, strengths(1.4, 0.6)),
    "saturation": (colour.saturation, functional.adjust_saturation, strengths(0.2, 1.8)),
    "hue": (colour.hue, functional.adjust_hue, strengths(-0.5, 0.5)),
    "blur": (
        colour.blur,
        lambda image, sigma: functional.gaussian_blur(image, [13, 13], [sigma, sigma]),
        strengths(0.1, 2.0),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("turn", [0, 3, 5])
def test_a_change_is_that_of_torchvision_image_by_image(name: str, turn: int) -> None:
    ours, theirs, strength = CHANGES[name]
    strength = strength.roll(turn)
    expected = torch.stack([theirs(image, float(one)) for image, one in zip(pictures(), strength, strict=True)])
    assert (ours(pictures(), strength) - expected).abs().max() < 2e-6


def test_grey_and_solarisation_are_those_of_torchvision() -> None:
    torch.testing.assert_close(colour.to_grey(pictures()), functional.rgb_to_grayscale(pictures(), 3))
    torch.testing.assert_close(colour.solarize(pictures()), functional.solarize(pictures(), 0.5))


@pytest.mark.parametrize(("name", "none"), [("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0)])
def test_no_strength_is_no_change(name: str, none: float) -> None:
    changed = CHANGES[name][0](pictures(), torch.full((len(pictures()),), float(none)))
    assert (changed - pictures()).abs().max() < 1e-6


def test_a_whole_turn_of_hue_is_none() -> None:
    assert (colour.hue(pictures(), strengths(1, 1)) - pictures()).abs().max() < 2e-6


def test_blur_of_an_image_smaller_than_the_kernel_keeps_its_mean_colour() -> None:
    image = torch.full((1, 3, 4, 4), 0.25)
    torch.testing.assert_close(colour.blur(image.clone(), torch.tensor([1.5])), image)


def stained(image: NDArray[np.float64], gain: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ruifrok and Johnston's colour deconvolution in double precision, pixel by pixel: (3, height, width)."""
    density = -np.log(image.clip(1 / 255, None)).transpose(1, 2, 0)
    amounts = density @ np.linalg.inv(HED)
    light: NDArray[np.float64] = np.exp(-((amounts * gain + shift) @ HED))
    return light.clip(0, 1).transpose(2, 0, 1)


def changed_stain(gain: NDArray[np.float64], shift: NDArray[np.float64], images: Tensor) -> Tensor:
    matrix, offset = (torch.from_numpy(part).float() for part in colour.stain_change(gain, shift))
    return colour.stain(images, matrix, offset)


def test_stains_change_as_in_double_precision() -> None:
    random = np.random.default_rng(0)
    gain, shift = random.uniform(0.8, 1.2, (len(pictures()), 3)), random.uniform(-0.05, 0.05, (len(pictures()), 3))
    ours = changed_stain(gain, shift, pictures())
    images = pictures().double().numpy()
    expected = np.stack([stained(*one) for one in zip(images, gain, shift, strict=True)])
    assert np.abs(ours.numpy() - expected).max() < 5e-6


def test_a_gain_of_haematoxylin_leaves_pure_eosin_as_it_is() -> None:
    amounts = np.linspace(0, 1.5, 16)
    eosin, haematoxylin = (np.exp(-amounts[None, :] * HED[row][:, None]) for row in (1, 0))
    images = torch.from_numpy(np.stack([eosin, haematoxylin])[:, :, None]).float()
    changed = changed_stain(np.tile([1.2, 1, 1], (2, 1)), np.zeros((2, 3)), images.clone())
    torch.testing.assert_close(changed[0], images[0], atol=1e-5, rtol=0)
    expected = torch.from_numpy(np.exp(-1.2 * amounts[None, :] * HED[0][:, None])).float()
    torch.testing.assert_close(changed[1, :, 0], expected, atol=1e-5, rtol=0)


def test_glass_stays_white_without_a_shift_and_takes_its_tint_from_one() -> None:
    glass, none = torch.ones(1, 3, 8, 8), np.zeros((1, 3))
    torch.testing.assert_close(changed_stain(none + 1.2, none, glass.clone()), glass, atol=1e-6, rtol=0)
    tinted = changed_stain(none + 1, np.array([[0.05, 0, 0]]), glass.clone())
    expected = [math.exp(-0.05 * value) for value in HED[0]]
    assert tinted[0, :, 0, 0].tolist() == pytest.approx(expected, abs=1e-6)
