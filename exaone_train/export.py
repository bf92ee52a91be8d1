"""An encoder by itself: weights and a configuration that timm loads, with what they came from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from exaone_train.augment import MEAN, STD
from exaone_train.encoder import CONFIG, RECORD, WEIGHTS, Encoder, teacher_of
from exaone_train.errors import CheckpointError


def export(run: Path, out: Path, step: int | None = None) -> Encoder:
    """Write the teacher's encoder so that ``timm.create_model("local-dir:OUT", pretrained=True)`` gives it.

    Args:
        run: Folder of a run, or a checkpoint.
        out: Folder to make; it appears whole or not at all.
        step: Of the checkpoint; by default the newest.

    Returns:
        The encoder, on the CPU.

    Raises:
        CheckpointError: There is no such checkpoint, or `out` exists.
    """
    if out.exists():
        raise CheckpointError(f"{out} exists: give the name of a folder that does not.")
    encoder = Encoder(**teacher_of(run, step), device="cpu")
    partial = out.with_name(f".{out.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = {name: tensor.contiguous() for name, tensor in encoder.module.state_dict().items()}
    save_file(weights, partial / WEIGHTS, metadata={"format": "pt"})
    (partial / CONFIG).write_text(json.dumps(described(encoder), indent=1) + "\n", encoding="utf-8")
    partial.rename(out)
    return encoder


def described(encoder: Encoder) -> dict[str, Any]:
    """What `config.json` says: timm's part, and under `exaone_train` the run, its shards and its preprocessing.

    Patches of the encoder's mpp, with the stain that `shards.stain` names, are shown in their middle at `size_px`.
    """
    model, size_px = encoder.config.model, encoder.size_px
    return {
        "architecture": model.name,
        "num_classes": 0,
        "num_features": int(encoder.module.num_features),  # type: ignore[arg-type]
        "global_pool": "token",
        "model_args": {
            "img_size": size_px,
            "patch_size": model.patch_size_px,
            "dynamic_img_size": True,
            **model.options,
        },
        "pretrained_cfg": {
            "input_size": [3, size_px, size_px],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": list(MEAN),
            "std": list(STD),
            "num_classes": 0,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
        RECORD: {
            "step": encoder.step,
            "parameters": encoder.parameters,
            "slides": encoder.slides,
            "config": encoder.config.model_dump(mode="json"),
            "shards": encoder.provenance,
        },
    }
