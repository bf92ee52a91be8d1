"""Builds that are paused, interrupted, or stopped from another machine: they end soon, and leave nothing half done."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from exaone_prep import control, layout
from exaone_prep.dataset import create_dataset
from exaone_prep.steps import KILL_AT
from exaone_prep.storage import LocalStorage
from tests.builds import build, build_words, command, digest_of, finish, start
from tests.commandline import run_here
from tests.smallslides import manifest_of, small_slides, tissue_rgb, write_slide

ONE_EACH = ("--set", "shards.slides_per_group=1", "--workers", "1")
STOP_S = 30.0
WAIT_S = 120.0


def wait_until(true: Callable[[], object]) -> None:
    """Until it comes true, within a generous time."""
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def status(out: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(run_here("status", str(out), "--json").out)
    return found


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    small_slides(folder, 4)
    return folder


@pytest.fixture(scope="module")
def large_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of 9,000 patches of 32 px: whole seconds of work for one worker."""
    folder = tmp_path_factory.mktemp("large")
    write_slide(folder / "large.tiff", np.tile(tissue_rgb(1), (4, 3, 1)))
    return folder


def test_a_paused_build_finishes_its_group_and_waits_and_goes_on_to_the_same_bytes(
    slides: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(*build_words(slides, out), *ONE_EACH)
    wait_until(lambda: list((out / "ledger").glob("*.json")))
    said = run_here("pause", str(out)).succeeded().out
    assert f"exaone-prep resume {out}" in said
    wait_until(lambda: any(worker["stage"] == "pause" for worker in status(out)["workers"]))  # type: ignore[attr-defined]
    done = list((out / "ledger").glob("*.json"))
    assert 1 <= len(done) < 4, "the group it was at is committed, and no further one"
    assert status(out)["state"] == "paused"
    time.sleep(2)
    assert list((out / "ledger").glob("*.json")) == done
    assert process.poll() is None
    assert "go on within seconds" in run_here("resume", str(out)).succeeded().out
    ended = finish(process)
    assert ended.code == 0, ended.err
    assert "The data set is paused." in ended.err
    assert digest_of(out) == build(slides, tmp_path / "undisturbed", *ONE_EACH)
    assert list((out / "control").iterdir()) == []
    assert "there is nothing to pause" in run_here("pause", str(out)).sentence(2)


def test_a_build_that_begins_while_paused_waits_and_can_be_interrupted(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command(*build_words(slides, out), env={KILL_AT: "catalog-after"})
    control.pause(LocalStorage(out))
    process = start(*build_words(slides, out), *ONE_EACH[2:])
    wait_until(lambda: status(out)["workers"] or process.poll() is not None)
    os.killpg(process.pid, signal.SIGTERM)
    ended = finish(process, STOP_S)
    assert ended.code == 130, ended.err
    assert not (out / "shards").exists()
    assert not (out / ".scratch").exists()
    assert status(out)["state"] == "paused", "a pause is ended by a person alone"


def test_resuming_what_is_not_paused_is_said(slides: Path, tmp_path: Path) -> None:
    create_dataset(tmp_path / "out", manifest_of(slides), base=tmp_path)
    assert run_here("resume", str(tmp_path / "out")).succeeded().out == "it was not paused\n"
    assert "There is no data set" in run_here("pause", str(tmp_path / "none")).sentence(2)


@pytest.mark.parametrize("only_the_driver", [False, True], ids=["a terminal's signal", "a process manager's"])
def test_a_signal_in_the_middle_of_a_slide_ends_the_build_at_once(
    large_slide: Path, tmp_path: Path, only_the_driver: bool
) -> None:
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    words = ("--set", "patch.size_px=32", "--set", "stain.fit=patch", "--workers", "2", "--scratch", str(scratch))
    process = start(*build_words(large_slide, out), *words)
    wait_until(lambda: list(scratch.rglob("*.spool")))
    began = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):  # impatience changes nothing
        (os.kill if only_the_driver else os.killpg)(process.pid, number)
        time.sleep(0.01)
    ended = finish(process, STOP_S)
    assert time.monotonic() - began < 10
    assert ended.code == 130
    assert ended.err.strip().splitlines()[-1].startswith("exaone-prep: interrupted")
    assert not scratch.exists()
    assert list(out.rglob("*.partial")) == []
    assert not (out / "shards").exists()


_A_TASK_ELSEWHERE = """
import sys
from pathlib import Path
from exaone_prep import control
from exaone_prep.dataset import open_dataset
from exaone_prep.errors import BuildStoppedError
from exaone_prep.group import GroupBuilder
from exaone_prep.pool import WorkerPool
from exaone_prep.scratch import Scratch
out, builder, folder = sys.argv[1:]
control.LOOK_EVERY_S = 0.5
dataset = open_dataset(out)
with Scratch(Path(folder) / "scratch") as scratch, WorkerPool(1, Path(folder) / "log") as pool:
    asked = control.Control(dataset.storage, builder)
    try:
        GroupBuilder(dataset=dataset, pool=pool, scratch=scratch, control=asked).build(0)
    except BuildStoppedError as error:
        sys.exit(str(error))
"""


def test_a_group_on_another_machine_ends_when_its_driver_does(large_slide: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = manifest_of(large_slide, patch={"size_px": 32, "stride_px": 32}, stain={"fit": "patch"})
    dataset = create_dataset(out, manifest, base=tmp_path)
    with contextlib.suppress(KeyboardInterrupt), control.tasks_that_stop(dataset.storage) as builder:
        words = [sys.executable, "-c", _A_TASK_ELSEWHERE, str(out), builder, str(tmp_path)]
        task = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: list((tmp_path / "scratch").rglob("*.spool")))
        raise KeyboardInterrupt
    began = time.monotonic()
    _, said = task.communicate(timeout=STOP_S)
    assert time.monotonic() - began < 10
    assert "The build was stopped" in said
    assert not (tmp_path / "scratch").exists()
    assert not (out / "shards").exists()
    assert (out / layout.stop(builder)).exists()
