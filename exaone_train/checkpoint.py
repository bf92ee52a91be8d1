"""Checkpoints of a run: each whole or not there, the newest ones kept, a damaged one passed over."""

from __future__ import annotations

import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from exaone_train.config import Config, differences
from exaone_train.errors import CheckpointError

FORMAT = 1
NAME = "step-{:08d}.pt"

log = logging.getLogger(__name__)


def save(folder: Path, state: dict[str, Any], *, keep: int) -> Path:
    """Write a checkpoint and remove all but the newest `keep`; killed at any moment, it leaves the older ones whole.

    Args:
        folder: Of the run's checkpoints; made if it is not there.
        state: Tensors, numbers, text, lists and dicts, with the number of finished steps as `step`.
        keep: How many stay.

    Returns:
        Its place, `step-<number>.pt`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, partial = folder / NAME.format(state["step"]), folder / "next.part"
    with partial.open("wb") as file:
        torch.save({"format": FORMAT, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    for old in _newest_first(folder)[keep:]:
        old.unlink()
    return path


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint without executing anything in it; tensors come to the CPU.

    Raises:
        CheckpointError: It is damaged, or of another version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # PyTorch itself does not look at the checksums
        state = {} if damaged else torch.load(path, map_location="cpu", weights_only=True)
        if state["format"] == FORMAT:
            return dict(state)
    except Exception as error:  # damaged bytes make readers fail in any way
        raise CheckpointError(f"The checkpoint {path} is damaged.") from error
    raise CheckpointError(f"The checkpoint {path} is not one that this version of the trainer reads.")


def load_newest(folder: Path) -> dict[str, Any] | None:
    """Read the newest checkpoint that is whole, with a warning for each that is not; None if there is none at all.

    Raises:
        CheckpointError: All are damaged.
    """
    paths = _newest_first(folder)
    for path in paths:
        try:
            return load(path)
        except CheckpointError as error:
            log.warning("%s An older one is looked for.", error)
    if paths:
        raise CheckpointError(f"None of the checkpoints in {folder} can be read: begin again with another --out.")
    return None


def ensure_same_run(state: dict[str, Any], config: Config, shards: dict[str, Any]) -> None:
    """See that a checkpoint belongs to this configuration and these shards.

    Args:
        state: With `config` and `shards` as the run began with them.
        config: The present one.
        shards: What the present shards say of themselves.

    Raises:
        CheckpointError: It does not, with the names of the fields.
    """
    found = differences(state["config"], config)
    begun = state["shards"]
    found += [f"the shards' {name}" for name in sorted({*begun, *shards}) if begun.get(name) != shards.get(name)]
    if found:
        raise CheckpointError(
            f"The run stands at step {state['step']} of another one ({'; '.join(found)}): "
            "give what it began with, or another --out."
        )


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.pt"), reverse=True)
