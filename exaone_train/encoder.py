"""A trained encoder, ready for use: from an exported folder, from a run, or from one checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from exaone_train import checkpoint
from exaone_train.config import Config
from exaone_train.errors import CheckpointError
from exaone_train.model import build_encoder, plain_view

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
RECORD = "exaone_train"
"""Of `config.json`: what timm does not ask for."""

_TEACHER = "encoder."


class Encoder:
    """An encoder in evaluation mode.

    Attributes:
        name: Of its architecture in timm.
        step: After so many steps its weights were taken.
        config: Of the run.
        provenance: What it was trained on, as `exaone_train.shardset.ShardSet.provenance`.
        size_px: Side of the images that it is shown.
        module: From float32 (n, 3, s, s) to class tokens (n, dim).
    """

    def __init__(
        self, weights: dict[str, Tensor], *, config: Config, step: int, provenance: dict[str, Any], device: str
    ) -> None:
        """Put weights into a module on a device.

        Raises:
            CheckpointError: They are not those of this configuration.
        """
        self.name, self.step, self.config, self.provenance = config.model.name, step, config, provenance
        self.size_px = config.crops.global_size_px
        self.device = torch.device(device)
        self.module: nn.Module = build_encoder(config.model, self.size_px)
        try:
            self.module.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(f"These are not the weights of the encoder {self.name}.") from error
        self.module.eval().requires_grad_(requires_grad=False).to(self.device)

    @property
    def parameters(self) -> int:
        """How many numbers it is made of."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def slides(self) -> int:
        """How many slides its patches came from."""
        return sum(int(one["slides"]["done"]) for one in self.provenance["data_sets"])

    @torch.inference_mode()
    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of images.

        Args:
            images: uint8 (n, s, s, 3), RGB; the middle is looked at where they are larger than the encoder was shown.

        Returns:
            float32 (n, dim).
        """
        seen = plain_view(torch.from_numpy(images).to(self.device), self.size_px)
        features: NDArray[np.float32] = self.module(seen).float().cpu().numpy()
        return features


def load_encoder(place: str | Path, device: str = "auto") -> Encoder:
    """Load an encoder without executing anything that lies there.

    Args:
        place: A folder that `exaone-train export` made, the folder of a run (its newest checkpoint), or a checkpoint.
        device: Of PyTorch; `auto` for the first GPU if there is one.

    Raises:
        CheckpointError: There is none, or it is damaged.
    """
    path = Path(place)
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if (path / CONFIG).is_file():
        return Encoder(**_exported(path), device=chosen)
    return Encoder(**teacher_of(path), device=chosen)


def teacher_of(path: Path, step: int | None = None) -> dict[str, Any]:
    """The teacher's encoder in a checkpoint: arguments of `Encoder`.

    Args:
        path: A run's folder, or a checkpoint.
        step: Of a checkpoint in the run's folder; by default the newest one that is whole.

    Raises:
        CheckpointError: There is none, or it is damaged.
    """
    folder = path / "checkpoints"
    if path.is_file():
        state: dict[str, Any] | None = checkpoint.load(path)
    elif step is None:
        state = checkpoint.load_newest(folder)
    else:
        chosen = folder / checkpoint.NAME.format(step)
        state = checkpoint.load(chosen) if chosen.exists() else None
    if state is None:
        which = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        raise CheckpointError(f"There is {which} in {path}: give a run, a checkpoint, or an exported encoder.")
    weights = {
        name.removeprefix(_TEACHER): tensor for name, tensor in state["teacher"].items() if name.startswith(_TEACHER)
    }
    config = Config.model_validate(state["config"])
    return {"weights": weights, "config": config, "step": state["step"], "provenance": state["shards"]}


def _exported(path: Path) -> dict[str, Any]:
    try:
        record = json.loads((path / CONFIG).read_text(encoding="utf-8"))[RECORD]
        weights = load_file(path / WEIGHTS)
        config = Config.model_validate(record["config"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{path} does not hold an encoder that `exaone-train export` made.") from error
    return {"weights": weights, "config": config, "step": record["step"], "provenance": record["shards"]}
