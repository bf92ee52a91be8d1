"""Processes that train: killed, asked to stop, started again; and the sentences of the command line."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from exaone_train.fit import fit
from tests.trainruns import (
    DROPPING,
    Trainer,
    build_tinted,
    different,
    last_of,
    learned,
    log_of,
    tiny,
    wait_for_step,
    write_config,
)

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_tinted(tmp_path_factory.mktemp("tinted"), slides=8))


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    with Trainer(tmp_path_factory.mktemp("trainer")) as trainer:
        yield trainer


@pytest.fixture(scope="module")
def undisturbed(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed")
    assert fit(DROPPING, [shards], run)
    return run


def test_killed_at_five_random_steps_it_ends_with_the_same_bits(
    undisturbed: Path, shards: str, trainer: Trainer, tmp_path: Path
) -> None:
    choose = random.Random(20)
    run = tmp_path / "run"
    words = ("fit", write_config(tmp_path / "run.yaml", DROPPING), "--shards", shards, "--out", str(run))
    for step in sorted(choose.sample(range(1, 19), 5)):
        pid = trainer.start(*words)
        wait_for_step(run, step)
        time.sleep(choose.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        assert trainer.finish().code == -signal.SIGKILL
    assert trainer.run(*words).code == 0
    assert different(last_of(run), last_of(undisturbed)) == []
    assert learned(run) == learned(undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_writes_a_checkpoint_and_says_that_it_can_go_on(
    undisturbed: Path, shards: str, trainer: Trainer, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    words = ("fit", write_config(tmp_path / "run.yaml", DROPPING), "--shards", shards, "--out", str(run))
    pid = trainer.start(*words)
    wait_for_step(run, 4)
    for _ in range(3):  # a scheduler, a terminal and torchrun each send theirs
        os.kill(pid, number)
    ended = trainer.finish()
    assert ended.code == 75
    assert ended.err.endswith("exaone-train: stopped as asked; the same command goes on\n")
    assert last_of(run)["step"] == log_of(run)[-1]["step"] < 20
    assert trainer.run(*words).code == 0
    assert different(last_of(run), last_of(undisturbed)) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["batch_size=100000"], "fewer than one batch"),
        (["split=trian"], "There are no shards of the split 'trian'"),
        (["max_steps=none"], "run.max_steps: Input should be a valid integer"),
        (["accelerator=cuda"], "There is no cuda device for each of 1 processes on this machine"),
        (["accumulate=3"], "cannot be divided equally among 1 processes, and each share into 3 parts"),
        (["model.name=vit"], "timm does not make the encoder 'vit'"),
    ],
)
def test_what_is_wrong_ends_in_one_sentence_and_code_2(
    shards: str, trainer: Trainer, tmp_path: Path, settings: list[str], said: str
) -> None:
    words = ["fit", write_config(tmp_path / "run.yaml", tiny()), "--shards", shards, "--out", str(tmp_path / "run")]
    if "accelerator=cuda" in settings and torch.cuda.is_available():
        pytest.skip("there is one")
    ended = trainer.run(*words, *(word for setting in settings for word in ("--set", setting)))
    assert ended.code == 2
    assert ended.err.startswith("exaone-train: ")
    assert ended.err.count("\n") == 1
    assert said in ended.err
