"""The configuration for a CPU learns from small slides; two that must collapse do, and it is seen.

The slides have colours of their own, so that there is something to be learned in half a minute.
"""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mean

import pytest
import torch

from exaone_train.config_file import load_config
from exaone_train.fit import fit
from tests.trainruns import build_tinted, log_of

torch.set_num_threads(1)

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "vit_tiny_cpu.yaml"
LEAST_INFORMATION, LEAST_FEATURE_STD = 0.15, 0.4
"""Floors of a teacher that has learned; about 0.23 and 0.65 are usual."""
PROTOTYPES = 64
COLLAPSED = "The teacher says nearly the same of every held-out patch"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_tinted(tmp_path_factory.mktemp("tinted")))


def test_the_loss_falls_and_the_teacher_tells_patches_apart(
    shards: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert fit(load_config(CONFIG, ["log_every=1"]), [shards], tmp_path)
    log = log_of(tmp_path)
    losses = [entry["loss"] for entry in log]
    assert mean(losses[-60:]) < mean(losses[:60]) - 0.4
    last = log[-1]
    assert last["information"] > LEAST_INFORMATION
    assert last["feature_std"] > LEAST_FEATURE_STD
    assert 1 < last["teacher_entropy"] < math.log(PROTOTYPES) - 1
    assert last["prototype_entropy"] > 3
    assert last["same_slide"] > 2 * last["same_slide_chance"]  # colours are what there is to learn
    assert COLLAPSED not in caplog.text


@pytest.mark.parametrize(
    ("broken", "entropy"),
    [("centre_momentum=1", 0), ("teacher_temperature=2", math.log(PROTOTYPES))],
    ids=["without-centre", "without-sharpening"],
)
def test_a_teacher_without_centre_or_sharpening_collapses_and_it_is_seen(
    shards: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str, entropy: float
) -> None:
    settings = [broken, "teacher_temperature_start=2"] if "temperature" in broken else [broken]
    assert fit(load_config(CONFIG, ["max_steps=60", *settings]), [shards], tmp_path)
    last = log_of(tmp_path)[-1]
    assert last["information"] < LEAST_INFORMATION / 10
    assert last["teacher_entropy"] == pytest.approx(entropy, abs=0.1)
    assert COLLAPSED in caplog.text
