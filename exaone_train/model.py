"""The network that learns: timm's vision transformer, and lightly's projection head of DINO on its class token."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import timm
import torch
from lightly.models.modules.heads import DINOProjectionHead
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from exaone_train.augment import MEAN, STD
from exaone_train.config import Config, ModelConfig
from exaone_train.errors import ConfigError


def build_encoder(config: ModelConfig, image_size_px: int, *, drop_path_rate: float = 0.0) -> VisionTransformer:
    """A vision transformer without a classifier, with fresh weights from PyTorch's generator.

    Args:
        config: Its name in timm, and arguments.
        image_size_px: Side of the images that its position embedding is made for; it is interpolated for others.
        drop_path_rate: Stochastic depth (Huang et al. 2016), in training mode only.

    Returns:
        A module from float32 (b, 3, s, s), s in whole tokens, to the class token's features (b, dim).

    Raises:
        ConfigError: timm has no such transformer.
    """
    sizes = {"img_size": image_size_px, "patch_size": config.patch_size_px, "dynamic_img_size": True}
    arguments: dict[str, Any] = {"num_classes": 0, "drop_path_rate": drop_path_rate, **sizes, **config.options}
    try:
        encoder = timm.create_model(config.name, **arguments)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"timm does not make the encoder {config.name!r} of the configuration: {said}.") from error
    if not isinstance(encoder, VisionTransformer) or encoder.global_pool != "token":
        raise ConfigError(f"The encoder {config.name!r} is not a vision transformer whose class token is its output.")
    return encoder


class Network(nn.Module):
    """Encoder and head; student and teacher are one each."""

    def __init__(self, config: Config, *, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        model = config.model
        self.encoder = build_encoder(model, config.crops.global_size_px, drop_path_rate=drop_path_rate)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # lightly uses PyTorch's first weight norm
            self.head = DINOProjectionHead(
                *(self.encoder.num_features, model.head_hidden, model.head_bottleneck, model.head_outputs),
                freeze_last_layer=config.dino.freeze_last_layer_steps,
                norm_last_layer=model.norm_last_layer,
            )

    def forward(self, crops: Sequence[Tensor]) -> Tensor:
        """Crops of one size go through the encoder at once, and all through the head.

        Args:
            crops: float32 (b, 3, s, s) each; those of one size stand together.

        Returns:
            (len(crops) · b, outputs), in the order of the crops.
        """
        sizes = groupby(crops, key=lambda crop: crop.shape[-1])
        outputs: Tensor = self.head(torch.cat([self.encoder(torch.cat(list(same))) for _, same in sizes]))
        return outputs


def weight_groups(network: Network) -> list[dict[str, list[nn.Parameter]]]:
    """Parameters with weight decay, then those without: biases, norms, tokens, positions, lengths of weight norm.

    The paper's code decays tokens and positions too; timm, and most who train transformers since, do not.
    """
    spared = {f"encoder.{name}" for name in network.encoder.no_weight_decay()}
    groups: list[list[nn.Parameter]] = [[], []]
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups[parameter.ndim < 2 or name in spared or name.endswith(".weight_g")].append(parameter)
    return [{"params": group} for group in groups]


def plain_view(images: Tensor, size_px: int) -> Tensor:
    """Images as they are, for a model that is looked at or used: the middle of each, or all of it where it is smaller.

    Args:
        images: uint8 (b, s, s, 3).
        size_px: Side of the view.

    Returns:
        float32 (b, 3, size_px, size_px), normalised.
    """
    side = images.shape[1]
    start = max(0, side - size_px) // 2
    middle = images[:, start : start + size_px, start : start + size_px].permute(0, 3, 1, 2).float() / 255
    if side < size_px:
        middle = functional.interpolate(middle, size=size_px, mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (MEAN, STD))
    return (middle - mean) / std
