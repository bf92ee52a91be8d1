"""Small runs of the trainer: shards that can be learned from in seconds, a configuration, and processes to kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
import yaml

from exaone_train.checkpoint import load
from exaone_train.config import Config
from tests.builds import Ended
from tests.smallslides import build_small, manifest_of, tissue_rgb, write_slide

ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}
"""The environment of processes of which there are several on one machine."""

TINY: dict[str, dict[str, Any]] = {
    "data": {"batch_size": 8, "streams": 4, "window": 16, "decode_threads": 1},
    "crops": {"global_size_px": 64, "local_size_px": 32, "local_crops": 2},
    "model": {
        "name": "vit_tiny_patch16_224",
        "options": {"depth": 2, "embed_dim": 48, "num_heads": 3},
        "drop_path_rate": 0.0,
        "head_hidden": 32,
        "head_bottleneck": 16,
        "head_outputs": 64,
    },
    "dino": {"teacher_momentum": 0.98, "teacher_temperature_warmup_steps": 10, "freeze_last_layer_steps": 3},
    "optimizer": {"learning_rate": 0.01, "warmup_steps": 4},
    "run": {
        "max_steps": 20,
        "precision": "32-true",
        "accelerator": "cpu",
        "log_every": 1,
        "watch_every": 10,
        "watch_images": 48,
        "checkpoint_every": 5,
    },
}
"""Fast, and with everything in it."""


def tiny(**changes: Any) -> Config:
    """`TINY` with changes, written `section__field=value`."""
    sections = {name: dict(fields) for name, fields in TINY.items()}
    for name, value in changes.items():
        section, _, field = name.partition("__")
        sections[section][field] = value
    return Config.model_validate(sections)


DROPPING = tiny(model__drop_path_rate=0.2, run__checkpoint_every=3, run__keep_checkpoints=2)
"""With everything random that there is."""


def write_config(path: Path, config: Config) -> str:
    """Write a configuration as a person would; returns its place."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return str(path)


def build_tinted(folder: Path, *, slides: int = 16, **settings: Any) -> Path:
    """A data set of 128 px patches, 20 to 48 per slide; each slide has a colour of its own, so that they differ.

    About 250 samples are of the split `train`, as many of `val`.
    """
    for number in range(slides):
        tint = np.random.default_rng(number).uniform(0.6, 1, 3)
        write_slide(folder / "slides" / f"slide-{number:02d}.tiff", (tissue_rgb(number) * tint).astype(np.uint8))
    cohort = {"name": "tinted", "slides": [f"{folder}/slides/*.tiff"], "allow_non_he": True}
    patch, stain = {"size_px": 128, "stride_px": 128}, {"method": "none"}
    sections = {"cohorts": [cohort], "patch": patch, "stain": stain, "splits": {"val": 0.3}} | settings
    build_small(manifest_of(folder, **sections), folder / "data")
    return folder / "data"


def log_of(run: Path) -> list[dict[str, Any]]:
    """Entries of the log."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def checkpoints_of(run: Path) -> list[str]:
    """Names of all that lies beside the checkpoints, in order."""
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def last_of(run: Path) -> dict[str, Any]:
    """The newest checkpoint."""
    return load(max((run / "checkpoints").glob("step-*.pt")))


def different(one: Any, other: Any, at: str = "") -> list[str]:
    """Places at which two states differ by a single bit."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [at]
    if isinstance(one, dict):
        keys = one.keys() | other.keys()
        return [place for key in keys for place in different(one.get(key), other.get(key), f"{at}/{key}")]
    if isinstance(one, list | tuple):
        pairs = enumerate(zip(one, other, strict=True))
        return [place for number, (a, b) in pairs for place in different(a, b, f"{at}/{number}")]
    return [] if one == other else [at]


def learned(run: Path) -> list[dict[str, float]]:
    """The log, without what the clock tells."""
    return [
        {key: value for key, value in entry.items() if key not in ("images_per_s", "wait_share")}
        for entry in log_of(run)
    ]


class Trainer:
    """Starts `exaone-train` in processes of their own within a moment: copies of one that has imported everything."""

    def __init__(self, folder: Path) -> None:
        self._errors = folder / "stderr.txt"
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.trainserver", str(self._errors)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ALONE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.communicate(timeout=60)

    def start(self, *words: str) -> int:
        """Start it; returns the number of the process. The one before must have ended."""
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(words) + "\n")
        self._server.stdin.flush()
        return int(self._answer())

    def finish(self) -> Ended:
        """Wait for its end."""
        return Ended(int(self._answer()), "", self._errors.read_text())

    def run(self, *words: str) -> Ended:
        """Run it to its end."""
        self.start(*words)
        return self.finish()

    def _answer(self) -> str:
        assert self._server.stdout is not None
        answer = self._server.stdout.readline()
        assert answer, f"the server of trainers is gone: {self._errors.read_text()}"
        return answer


def wait_for_step(run: Path, step: int, timeout_s: float = 120) -> None:
    """Wait until the log of a run has come to a step."""
    end = time.monotonic() + timeout_s
    while not (run / "log.jsonl").exists() or f'"step": {step},' not in (run / "log.jsonl").read_text():
        assert time.monotonic() < end, f"{run} does not come to step {step}"
        time.sleep(0.005)
