"""Looking for collapse: what the teacher makes of held-out patches.

DINO's teacher can come to say the same of every image in two ways: one prototype for all, or all prototypes alike
(Caron et al. 2021, section 5.3). Its entropy falls to 0 or rises to its maximum; in both, what it says of an image
tells nothing of the image. And features can come to tell the slide instead of the tissue: that is the share of nearest
neighbours that come from the same slide.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from exaone_train.dino import Learner
from exaone_train.model import plain_view

NEIGHBOURS = 10
AT_ONCE = 64
LEAST_INFORMATION = 0.02
LEAST_FEATURE_STD = 0.05
"""Below these a warning is given."""

log = logging.getLogger(__name__)


class Watch:
    """Held-out patches to look at again and again.

    Args:
        images: uint8 (n, size, size, 3).
        slide_ids: Of each.
        size_px: Side of what the teacher is shown of each.
    """

    def __init__(self, images: Tensor, slide_ids: Sequence[str], size_px: int) -> None:
        self._images, self._size_px = images, size_px
        self._slides = torch.from_numpy(np.unique(slide_ids, return_inverse=True)[1])

    @torch.no_grad()
    def look(self, learner: Learner, temperature: float) -> dict[str, float]:
        """Measure the teacher.

        Returns:
            `teacher_entropy` of its softmax over the prototypes, mean of the images, in nats; `prototype_entropy` of
            the mean softmax; `information`, the second less the first over the logarithm of the number of prototypes:
            how much the teacher tells of an image, 0 in either collapse; `centre_norm`; `feature_std`, of unit
            features per dimension, times √dim: 0 if all are alike, 1 if they point everywhere; `same_slide`, share of
            the nearest neighbours by cosine, and `same_slide_chance`, the same of all others.
        """
        centre = learner.loss.center[0]
        features, entropy, mean = [], 0.0, torch.zeros_like(centre[0])
        for start in range(0, len(self._images), AT_ONCE):
            images = self._images[start : start + AT_ONCE].to(mean.device)
            shown, said = learner.teach(plain_view(images, self._size_px))
            softmax = functional.softmax((said - centre) / temperature, dim=-1)
            features.append(functional.normalize(shown, dim=-1))
            entropy += torch.special.entr(softmax).sum().item() / len(self._images)
            mean += softmax.sum(dim=0) / len(self._images)
        found = {"teacher_entropy": entropy, "prototype_entropy": torch.special.entr(mean).sum().item()}
        found["information"] = (found["prototype_entropy"] - entropy) / math.log(len(mean))
        unit = torch.cat(features).cpu()
        found["centre_norm"] = centre.norm().item()
        found["feature_std"] = unit.std(dim=0).mean().item() * math.sqrt(unit.shape[1])
        found["same_slide"], found["same_slide_chance"] = same_slide_share(unit, self._slides)
        if found["information"] < LEAST_INFORMATION or found["feature_std"] < LEAST_FEATURE_STD:
            log.warning("The teacher says nearly the same of every held-out patch: collapsed, or not yet trained.")
        return found


def same_slide_share(unit: Tensor, slides: Tensor) -> tuple[float, float]:
    """Share of the nearest neighbours that come from the same slide, and the share of all others that do.

    Args:
        unit: float32 (n, dim), features of unit length.
        slides: int64 (n,), number of the slide of each.
    """
    likeness = (unit @ unit.T).fill_diagonal_(-math.inf)
    nearest = likeness.topk(min(NEIGHBOURS, len(slides) - 1)).indices
    same = (slides[:, None] == slides).fill_diagonal_(fill_value=False)
    return same.gather(1, nearest).float().mean().item(), same.float().mean().item() * len(slides) / (len(slides) - 1)
