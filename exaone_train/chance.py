"""What becomes of each image of a batch: boxes, symmetries and strengths, from seed, step and place alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exaone_train.config import CropConfig

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RATIO: Final = (3 / 4, 4 / 3)
"""Width over height of a box."""
JITTERED: Final = 0.8
"""Share of crops whose brightness, contrast, saturation and hue change."""
SIGMA_PX: Final = (0.1, 2.0)
"""Of the blur."""

_TRIES: Final = 10
# Uniform numbers of a crop: areas, ratios, place, symmetries, jitter, stain, switches, sigma. A step of the counter
# gives four, and a crop takes whole steps.
_COLUMNS: Final = (_TRIES, _TRIES, 2, 3, 4, 6, 4, 1)
_NUMBERS: Final = 40


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Strengths of the changes of colour; docs/augmentation.md has the reasons.

    Attributes:
        jitter: Brightness, contrast, saturation, hue, as torchvision's `ColorJitter` takes them.
        stain: How far the gain of a stain goes from 1, and its shift from 0 (optical density).
        grey: Share of crops that lose their colour.
        solarized: Share of the second global crops that are solarised.
    """

    jitter: tuple[float, float, float, float]
    stain: tuple[float, float] = (0, 0)
    grey: float = 0.2
    solarized: float = 0


PRESETS: Final = {
    "dino": Preset(jitter=(0.4, 0.4, 0.2, 0.1), solarized=0.2),
    "jitter": Preset(jitter=(0.4, 0.4, 0.2, 0.02)),
    "pathology": Preset(jitter=(0.4, 0.4, 0.2, 0.02), stain=(0.2, 0.05)),
    "normalized": Preset(jitter=(0.2, 0.2, 0.1, 0), stain=(0.05, 0.02)),
}


@dataclass(frozen=True)
class View:
    """Crops of one size.

    Attributes:
        size_px: Their side.
        scale: Share of the image's area that a box has, smallest and largest.
        blurred: Of each crop of an image, how often it is blurred.
        solarized: Likewise, how often it is solarised.
        preset: Strengths of the other changes of colour.
    """

    size_px: int
    scale: tuple[float, float]
    blurred: tuple[float, ...]
    solarized: tuple[float, ...]
    preset: Preset

    def largest_px(self, side_px: int) -> int:
        """The longest side that a box can have in an image."""
        least, most = (round(side_px * (scale * ratio) ** 0.5) for scale, ratio in zip(self.scale, RATIO, strict=True))
        return min(most, side_px) if least else side_px


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What becomes of n crops, in the order of what is done.

    Attributes:
        boxes: (n, 4): top, left, height, width, whole pixels.
        mirrored: (n, 2): whether lines, and whether columns, are in reverse order.
        turned: (n,): whether lines then become columns.
        stain: (n, 2, 3): gain, and shift in optical density, of haematoxylin, eosin and what is left over.
        jittered: (n,): whether `jitter` applies.
        jitter: (n, 4): brightness, contrast, saturation, hue.
        order: In which these four change, without those that never do.
        grey: (n,).
        blurred: (n,): whether `sigma_px` applies.
        sigma_px: (n,).
        solarized: (n,).
    """

    boxes: Floats
    mirrored: Bools
    turned: Bools
    stain: Floats
    jittered: Bools
    jitter: Floats
    order: tuple[int, ...]
    grey: Bools
    blurred: Bools
    sigma_px: Floats
    solarized: Bools


def views_of(crops: CropConfig) -> tuple[View, ...]:
    """The two global crops, and the local ones: blur and solarisation as in DINO's code (Caron et al. 2021)."""
    preset, local = PRESETS[crops.preset], crops.local_crops
    large = View(crops.global_size_px, crops.global_scale, (1, 0.1), (0, preset.solarized), preset)
    small = View(crops.local_size_px, crops.local_scale, local * (0.5,), local * (0,), preset)
    return (large, small) if local else (large,)


def draw(views: Sequence[View], side_px: int, *, seed: int, step: int, first: int, count: int) -> list[Drawn]:
    """What becomes of images `first` to `first + count` of a step's batch.

    The numbers come from Philox (Salmon et al. 2011), a function of a key and a counter: those of an image are found
    without those of the images before it.

    Args:
        views: Kinds of crops.
        side_px: Of the images.
        seed: Of the run.
        step: Of the run.
        first: Place of the first image in the global batch.
        count: Images.

    Returns:
        Per view all first crops of the images, then all second ones, and so on.
    """
    crops = [len(view.blurred) for view in views]
    numbers = _uniform((seed, step), (first * sum(crops) * _NUMBERS // 4, 0), count * sum(crops) * _NUMBERS)
    of_views = np.split(numbers.reshape(count, -1, _NUMBERS).swapaxes(0, 1), np.cumsum(crops)[:-1])
    orders = _uniform((seed, step), (0, 1), 4 * len(views)).reshape(-1, 4).argsort(axis=1)
    return [_drawn(*one, side_px) for one in zip(views, of_views, orders.tolist(), strict=True)]


def draw_boxes(areas: Floats, ratios: Floats, places: Floats, scale: tuple[float, float], side_px: int) -> Floats:
    """Boxes as torchvision's `RandomResizedCrop` draws them, from uniform numbers.

    Args:
        areas: (n, tries): the first try whose box fits into the image counts; if none does, the box is the image.
        ratios: (n, tries).
        places: (n, 2): down and across.
        scale: Share of the image's area, smallest and largest.
        side_px: Of the image.

    Returns:
        (n, 4): top, left, height, width, whole pixels.
    """
    area, ratio = side_px**2 * _between(scale, areas), np.exp(_between(np.log(RATIO), ratios))
    sizes = np.rint(np.sqrt(np.stack([area / ratio, area * ratio], axis=-1)))
    fits = np.all((sizes >= 1) & (sizes <= side_px), axis=-1)
    size = np.take_along_axis(sizes, fits.argmax(axis=1)[:, None, None], axis=1)[:, 0]
    size = np.where(fits.any(axis=1, keepdims=True), size, side_px)
    return np.concatenate([np.floor(places * (side_px - size + 1)), size], axis=1)


def _drawn(view: View, numbers: Floats, order: list[int], side_px: int) -> Drawn:
    shares = [(JITTERED, view.preset.grey, *of_crop) for of_crop in zip(view.blurred, view.solarized, strict=True)]
    columns = np.split(numbers.reshape(-1, _NUMBERS), np.cumsum(_COLUMNS), axis=1)
    areas, ratios, places, symmetries, jitter, stain, switches, sigma = columns[: len(_COLUMNS)]
    jittered, grey, blurred, solarized = (switches < np.repeat(shares, numbers.shape[1], axis=0)).T
    preset = view.preset
    return Drawn(
        boxes=draw_boxes(areas, ratios, places, view.scale, side_px),
        mirrored=symmetries[:, :2] < 0.5,
        turned=symmetries[:, 2] < 0.5,
        stain=np.array([[1], [0]]) + np.reshape(preset.stain, (2, 1)) * (2 * stain.reshape(-1, 2, 3) - 1),
        jittered=jittered,
        jitter=np.array([1, 1, 1, 0]) + np.array(preset.jitter) * (2 * jitter - 1),
        order=tuple(number for number in order if preset.jitter[number]),
        grey=grey,
        blurred=blurred,
        sigma_px=_between(SIGMA_PX, sigma[:, 0]),
        solarized=solarized,
    )


def _between(ends: Sequence[float] | Floats, uniform: Floats) -> Floats:
    return ends[0] + (ends[1] - ends[0]) * uniform


def _uniform(key: tuple[int, int], counter: tuple[int, int], count: int) -> Floats:
    """Numbers from 0 to 1; streams of other keys, or of another second part of the counter, never meet."""
    bits = np.random.Philox(key=np.array(key, np.uint64), counter=np.array((*counter, 0, 0), np.uint64))
    return np.float64(2.0**-53) * (bits.random_raw(count) >> np.uint64(11))
