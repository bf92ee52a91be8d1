"""Changes of colour and sharpness, each with its own strength per image: torchvision's definitions, batched.

Images are float32 (n, 3, height, width), 0 to 1; strengths are float32 (n,) on the same device. Images are changed in
place where that is quicker: use what a function returns, and not what it was given.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

Floats = NDArray[np.float64]

BLUR_RADIUS_PX: Final = 6
"""The kernel ends here: at 3 sigma of the strongest blur."""

STAINS: Final = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Optical density of haematoxylin, eosin and DAB in red, green and blue (Ruifrok and Johnston 2001)."""

_GREY: Final = (0.2989, 0.587, 0.114)
_DARKEST: Final = 1 / 255


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply, as torchvision's `adjust_brightness`."""
    return images.mul_(_wide(factor)).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Move away from or towards the image's mean grey, as torchvision's `adjust_contrast`."""
    # The mean of means of lines: a sum over all at once is split among threads where there is one image alone.
    mean = _grey(images).mean(-1).mean(-1)
    return images.mul_(_wide(factor)).add_(_wide(mean * (1 - factor))).clamp_(0, 1)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Move away from or towards each pixel's grey, as torchvision's `adjust_saturation`."""
    grey = _grey(images).mul_((1 - factor)[:, None, None])
    return images.mul_(_wide(factor)).add_(grey[:, None]).clamp_(0, 1)


def hue(images: Tensor, turn: Tensor) -> Tensor:
    """Go around the hexagon of HSV by `turn` of a whole round, as torchvision's `adjust_hue`.

    A pixel keeps its largest and its smallest channel, so HSV itself is never needed: only where on the hexagon the
    pixel is, 0 to 6 from red, and what share of the way from smallest to largest each channel goes there.
    """
    red, green, blue = images.unbind(1)
    largest, smallest = images.amax(1), images.amin(1)
    reach = largest - smallest
    step = reach.clamp(min=torch.finfo(reach.dtype).tiny).reciprocal_()
    # 1 where red, or green, is not the largest; sign and lerp are quick on a CPU, where() is not.
    not_red, not_green = (largest - red).sign_(), (largest - green).sign_()
    at_red, at_green, at_blue = (green - blue) * step, (blue - red) * step, (red - green) * step
    at = torch.lerp(at_red, torch.lerp(at_green.add_(2), at_blue.add_(4), not_green), not_red)
    at += (6 * turn)[:, None, None]
    at -= (at / 6).floor_().mul_(6)
    shares = ((at - 3).abs_().sub_(1), (at - 2).abs_().neg_().add_(2), (at - 4).abs_().neg_().add_(2))
    for channel, share in zip((red, green, blue), shares, strict=True):
        torch.addcmul(smallest, share.clamp_(0, 1), reach, out=channel)
    return images


def to_grey(images: Tensor) -> Tensor:
    """All channels the grey of ITU-R BT.601, as torchvision's `rgb_to_grayscale`."""
    return images.copy_(_grey(images)[:, None])


def solarize(images: Tensor) -> Tensor:
    """Invert what is brighter than one half, as torchvision's `solarize` with a threshold of 0.5."""
    return torch.minimum(images, 1 - images)


def blur(images: Tensor, sigma_px: Tensor) -> Tensor:
    """Gaussian blur, as torchvision's `gaussian_blur` with a kernel of 13: mirrored at the border."""
    radius = min(BLUR_RADIUS_PX, images.shape[-1] - 1)
    kernel = (torch.arange(radius + 1, device=images.device) / sigma_px[:, None]).square_().mul_(-0.5).exp_()
    kernel /= 2 * kernel.sum(1, keepdim=True) - kernel[:, :1]
    taps = kernel[:, :, None, None, None].unbind(1)
    for axis, border in ((3, (radius, radius, 0, 0)), (2, (0, 0, radius, radius))):
        wide, size = pad(images, border, mode="reflect"), images.shape[axis]
        moved = [wide.narrow(axis, place, size) for place in range(2 * radius + 1)]
        images = moved[radius] * taps[0]
        for away in range(1, radius + 1):
            images.addcmul_(moved[radius - away] + moved[radius + away], taps[away])
    return images


def stain_change(gain: Floats, shift: Floats) -> tuple[Floats, Floats]:
    """The change of colour by which the amount of each stain becomes gain · amount + shift (Tellez et al. 2018).

    Stains are haematoxylin, eosin and DAB of Ruifrok and Johnston (2001); in H&E the third takes what is left over.

    Args:
        gain: (n, 3), per stain.
        shift: (n, 3), in optical density (natural logarithm).

    Returns:
        What `stain` takes: a matrix on the logarithms of red, green and blue to base 2, (n, 3, 3), and what is added,
        (n, 3).
    """
    stains = np.array(STAINS).T
    return (stains * gain[:, None]) @ np.linalg.inv(stains), shift @ stains.T / -math.log(2)


def stain(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Change colours in optical density by a matrix (n, 3, 3) and an offset (n, 3) of `stain_change`.

    Light below 1/255 counts as 1/255: its density would be infinite.
    """
    logarithms = images.clamp_(min=_DARKEST).log2_()
    columns = matrix[..., None, None].unbind(2)
    # No matrix product: on a card, or under autocast, it could be one of fewer digits.
    changed = offset[:, :, None, None] + logarithms[:, 0:1] * columns[0]
    changed.addcmul_(logarithms[:, 1:2], columns[1]).addcmul_(logarithms[:, 2:3], columns[2])
    return changed.exp2_().clamp_(max=1)


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(1)
    return (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])


def _wide(strength: Tensor) -> Tensor:
    return strength[:, None, None, None]
