"""Frozen features of a task's pictures, by the published way: normalise, resize to 256, crop the middle 224."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from exaone_train.errors import ProbeError
from exaone_train.probe.encoder import Encoder, Floats, Rgb
from exaone_train.probe.task import Split

RESIZE_PX = 256
CROP_PX = 224


def resized(image: Rgb) -> Rgb:
    """The shorter side to 256 px by Pillow's bicubic filter, then the middle 224×224 px, as torchvision does it."""
    height, width = image.shape[:2]
    short = min(height, width)
    size = (int(RESIZE_PX * width / short), int(RESIZE_PX * height / short))
    larger = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    top, left = (round((side - CROP_PX) / 2) for side in larger.shape[:2])
    return larger[top : top + CROP_PX, left : left + CROP_PX]


def features_of(
    split: Split, encoder: Encoder, batch_size: int, on_batch: Callable[[int], None] | None = None
) -> Floats:
    """Features n×d of a split.

    Args:
        split: Its pictures.
        encoder: Frozen.
        batch_size: Pictures at once.
        on_batch: Told how many are done.

    Raises:
        ProbeError: A picture cannot be decoded, or the encoder returns something else.
    """
    parts: list[Floats] = []
    for start in range(0, len(split), batch_size):
        rows = range(start, min(start + batch_size, len(split)))
        images = [split.images[row] for row in rows]
        normalised = encoder.normalise(np.stack(images)) if len({image.shape for image in images}) == 1 else [
            encoder.normalise(image[None])[0] for image in images
        ]  # fmt: skip
        features = np.asarray(encoder.embed(np.stack([resized(image) for image in normalised])), dtype=np.float32)
        if features.ndim != 2 or len(features) != len(images) or not np.isfinite(features).all():
            raise ProbeError(f"{encoder.name} gives no row of finite features for each of {len(images)} patches.")
        parts.append(features)
        if on_batch is not None:
            on_batch(rows.stop)
    return np.concatenate(parts)
