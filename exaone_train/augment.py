"""Multi-crop on the training device: all crops of a batch at once, so that nobody else has to make any."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exaone_train import colour
from exaone_train.chance import Bools, Drawn, Floats, View, draw, views_of
from exaone_train.config import CropConfig
from exaone_train.resample import column_table, resample

MEAN: Final = (0.485, 0.456, 0.406)
STD: Final = (0.229, 0.224, 0.225)
"""Of ImageNet, 0 to 1."""

JITTERS: Final = (colour.brightness, colour.contrast, colour.saturation, colour.hue)
# Images worked on at once: what the caches of a core hold; what leaves a card's memory to the model.
_AT_ONCE: Final = {"cpu": 4, "cuda": 128}


class MultiCrop:
    """Two global crops and some local ones of each image (Caron et al. 2021), for DINO.

    What becomes of an image follows from the seed, the step and its place in the global batch: ranks and accumulated
    parts that make the crops of their own images make those that one rank would.
    """

    def __init__(self, crops: CropConfig, *, seed: int, batch_size: int) -> None:
        self._views, self._seed, self._batch_size = views_of(crops), seed, batch_size

    @torch.no_grad()
    def __call__(self, images: Tensor, *, step: int, first: int = 0) -> list[Tensor]:
        """Make the crops of some images of one step.

        Args:
            images: uint8 (b, side, side, 3) on any device.
            step: Of the run.
            first: Place of the first image in the global batch.

        Returns:
            One float32 (b, 3, size, size) per crop, the global ones first, on the images' device, less MEAN and over
            STD. On a CPU the same bits however a batch is divided; elsewhere the same but for rounding.

        Raises:
            ValueError: The images do not lie within the batch.
        """
        count, side_px, device = len(images), images.shape[1], images.device
        if not 0 <= first <= first + count <= self._batch_size:
            raise ValueError(f"images {first} to {first + count} do not lie within a batch of {self._batch_size}")
        mean, std = (_sent(np.reshape(values, (3, 1, 1)), device) for values in (MEAN, STD))
        # A tensor per crop and not one for all: the smaller ones get memory that the last step's gave back.
        shapes = [(count, 3, view.size_px, view.size_px) for view in self._views for _ in view.blurred]
        made = [torch.empty(shape, device=device) for shape in shapes]
        at_once = _AT_ONCE.get(device.type, count)
        for begin in range(0, count, at_once):
            some = slice(begin, min(begin + at_once, count))
            columns, size = column_table(images[some]), some.stop - begin
            plans = draw(self._views, side_px, seed=self._seed, step=step, first=first + begin, count=size)
            views = (torch.split(_crops(columns, *one), size) for one in zip(self._views, plans, strict=True))
            for crop, out in zip(chain.from_iterable(views), made, strict=True):
                torch.sub(crop, mean, out=out[some]).div_(std)
        return made


def _crops(columns: Tensor, view: View, drawn: Drawn) -> Tensor:
    """Crops of one kind, float32 (n, 3, size, size), 0 to 1."""
    device, side_px = columns.device, columns.shape[1] // 3
    image = torch.arange(len(columns) // side_px, device=device).repeat(len(view.blurred))
    boxes, mirrored = _sent(drawn.boxes, device), _sent(drawn.mirrored, device)
    sizes = {"size_px": view.size_px, "largest_px": view.largest_px(side_px)}
    crops = resample(columns, image, boxes, mirrored, **sizes)
    crops = _changed(crops, drawn.turned, lambda some: some.mT.contiguous())
    if any(view.preset.stain):
        change = colour.stain_change(drawn.stain[:, 0], drawn.stain[:, 1])
        crops = colour.stain(crops, *(_sent(part, device) for part in change))

    def jitter(some: Tensor, strengths: Tensor) -> Tensor:
        for number in drawn.order:
            some = JITTERS[number](some, strengths[:, number])
        return some

    crops = _changed(crops, drawn.jittered, jitter, drawn.jitter)
    crops = _changed(crops, drawn.grey, colour.to_grey)
    crops = _changed(crops, drawn.blurred, colour.blur, drawn.sigma_px)
    return _changed(crops, drawn.solarized, colour.solarize)


def _changed(crops: Tensor, which: Bools, change: Callable[..., Tensor], *strengths: Floats) -> Tensor:
    """The crops after a change of some. Which ones is known here already: the device is not asked, nor waited for."""
    rows = np.flatnonzero(which)
    if not len(rows):
        return crops
    sent = [_sent(strength[rows], crops.device) for strength in strengths]
    if len(rows) == len(crops):
        return change(crops, *sent)
    where = _sent(rows, crops.device)
    return crops.index_copy_(0, where, change(crops.index_select(0, where), *sent))


def _sent(values: NDArray[np.generic], device: torch.device) -> Tensor:
    """On the device as float32, or int64 if it was; a card fetches it from pinned memory, and nobody waits."""
    tensor = torch.from_numpy(np.ascontiguousarray(values, np.int64 if values.dtype == np.int64 else np.float32))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
