"""Boxes of many images brought to one size at once: Pillow's antialiased bicubic as weighted sums of whole lines.

A new pixel is a sum over few old ones, so a product with a matrix would be one with zeros mostly. `embedding_bag` sums
rows of a table by their numbers and weights, on any device: first the table's rows are the images' columns, then,
turned over, the lines of what came of them.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

_SUPPORT_PX: Final = 2


def column_table(images: Tensor) -> Tensor:
    """Images as `resample` takes them, uint8 (b, side, side, 3) to float32 (b · side, 3 · side): columns as rows."""
    side = images.shape[1]
    return images.permute(0, 2, 3, 1).to(torch.float32, memory_format=torch.contiguous_format).view(-1, 3 * side)


def resample(
    columns: Tensor, image: Tensor, boxes: Tensor, mirrored: Tensor, *, size_px: int, largest_px: int
) -> Tensor:
    """Cut boxes out of images and resize them as Pillow's `crop(box).resize((size_px, size_px), BICUBIC)` does.

    The cubic of Keys (1981) with a = −1/2, made wider where an image shrinks, cut off at the border of the box; along
    lines first, then along columns. Pillow rounds after both; here values are only kept within their range, and so are
    about 1 grey level from Pillow's at most. A crop's values are the same in any batch.

    Args:
        columns: Of `column_table`.
        image: int64 (n,), which image a crop is of.
        boxes: float32 (n, 4): top, left, height and width, whole pixels, within the image.
        mirrored: float32 (n, 2), 1 where lines (a flip upside down) or columns are in reverse order, else 0.
        size_px: Side of a crop.
        largest_px: No box is higher or wider.

    Returns:
        float32 (n, 3, size_px, size_px), 0 to 1.
    """
    crops, side = len(image), columns.shape[1] // 3
    taps = min(side, math.ceil(2 * _SUPPORT_PX * max(largest_px / size_px, 1)))
    (down, across), (weights, across_weights) = _taps(boxes[:, :2].T, boxes[:, 2:].T, mirrored.T, size_px, taps, side)
    half = _sums(columns, image[:, None, None] * side + across, across_weights).clamp_(0, 255)
    # Channel, line, crop, column: that is one matrix turned over, which is quicker than many.
    lines = half.t().contiguous().view(-1, size_px)
    crop, channel = (torch.arange(count, device=image.device)[:, None, None] for count in (crops, 3))
    line = (channel * side + down[:, None]) * crops + crop[:, None]
    made = _sums(lines, line, (weights / 255)[:, None].expand(line.shape)).clamp_(0, 1)
    return made.view(crops, 3, size_px, size_px)


def _sums(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows of a table. The last axis but one counts what belongs to a sum, the others the sums."""
    bags, weighed = (part.mT.reshape(-1, part.shape[-2]) for part in (rows, weights))
    return embedding_bag(bags, table, per_sample_weights=weighed, mode="sum")


def _taps(start: Tensor, length: Tensor, mirrored: Tensor, size_px: int, taps: int, side: int) -> tuple[Tensor, Tensor]:
    """Per axis (2, n): the old pixels of each new one and their weights, int64 and float32 (2, n, taps, size_px)."""
    start, length, mirrored = (part[..., None, None] for part in (start, length, mirrored))
    scale = length / size_px
    stretch = scale.clamp(min=1)
    place = torch.arange(size_px, device=start.device) + 0.5
    centre = start + (mirrored * size_px - place).abs_() * scale
    first = (centre - _SUPPORT_PX * stretch + 0.5).floor_().clamp_(0, side - taps)
    pixel = first + torch.arange(taps, device=start.device)[:, None]
    away = (pixel + 0.5 - centre).abs_().div_(stretch)
    # Keys' two cubics, each in powers of the way to where it ends: no branches.
    outer, inner = (2 - away).clamp_(min=0), (1 - away).clamp_(min=0)
    weights = outer.square() * (outer - 1) / 2 + inner.square() * (1 - 2 * inner)
    weights *= ((pixel >= start) & (pixel < start + length)).float()
    return pixel.long(), weights / weights.sum(-2, keepdim=True)
