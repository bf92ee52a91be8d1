"""Guarantees 1 and 2: same slides and settings, same bytes; interrupted anywhere, resumed exactly."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from exaone_prep.dataset import open_dataset
from exaone_prep.ledger import read_ledger
from exaone_prep.steps import KILL_AT, STEPS
from tests.builds import build, build_words, command, digest_of, files_of, finish, start
from tests.smallslides import small_slides

FIVE_GROUPS = ("--set", "shards.slides_per_group=1", "--set", "shards.samples_per_shard=5")
ONE_GROUP = ("--set", "shards.samples_per_shard=9")
LESSER_CPU = {"NPY_DISABLE_CPU_FEATURES": "", "OPENBLAS_CORETYPE": "Prescott", "JSIMD_FORCESSE2": "1"}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    small_slides(folder, 5)
    return folder


@pytest.fixture(scope="module")
def undisturbed(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "five"
    build(slides, out, *FIVE_GROUPS, "--workers", "1")
    return out


@pytest.fixture(scope="module")
def one_group(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "one"
    build(slides, out, *ONE_GROUP, "--workers", "1")
    return out


def _same(out: Path, expected: Path) -> None:
    assert digest_of(out) == digest_of(expected)
    found, wanted = files_of(out), files_of(expected)
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []
    ended = command("verify", str(out), "--deep")
    assert ended.code == 0, ended.err


def _clean(out: Path) -> None:
    assert not (out / ".scratch").exists()
    assert list(out.rglob("*.part*")) == []
    assert list((out / "progress").iterdir()) == []


def _disabled_features() -> str:
    """What NumPy uses beyond its baseline here; all of it is switched off, as on an old CPU."""
    import numpy as np

    found: list[str] = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return " ".join(found)


def test_five_groups_are_really_five(undisturbed: Path, one_group: Path) -> None:
    assert [record.group for record in read_ledger(open_dataset(undisturbed).storage)] == [0, 1, 2, 3, 4]
    assert [len(record.shards) > 1 for record in read_ledger(open_dataset(one_group).storage)] == [True]
    assert digest_of(undisturbed) != digest_of(one_group)


def test_two_workers_make_the_bytes_of_one(slides: Path, undisturbed: Path, one_group: Path, tmp_path: Path) -> None:
    build(slides, tmp_path / "five", *FIVE_GROUPS, "--workers", "2")
    _same(tmp_path / "five", undisturbed)
    build(slides, tmp_path / "one", *ONE_GROUP, "--workers", "2")
    _same(tmp_path / "one", one_group)
    _clean(tmp_path / "one")


def test_a_lesser_cpu_makes_the_same_bytes(slides: Path, one_group: Path, tmp_path: Path) -> None:
    features = _disabled_features()
    assert features, "NumPy uses nothing beyond its baseline here, so this test shows nothing"
    build(slides, tmp_path / "out", *ONE_GROUP, env={**LESSER_CPU, "NPY_DISABLE_CPU_FEATURES": features})
    _same(tmp_path / "out", one_group)


def test_a_lesser_cpu_makes_the_same_bytes_with_a_fit_per_patch(slides: Path, tmp_path: Path) -> None:
    words = ("--set", "stain.fit=patch", "--set", "shards.slides_per_group=3")
    build(slides, tmp_path / "here", *words, "--workers", "2")
    build(slides, tmp_path / "there", *words, env={**LESSER_CPU, "NPY_DISABLE_CPU_FEATURES": _disabled_features()})
    _same(tmp_path / "there", tmp_path / "here")


def test_slides_moved_elsewhere_make_the_same_bytes(slides: Path, one_group: Path, tmp_path: Path) -> None:
    shutil.copytree(slides, tmp_path / "other" / "place")
    build(tmp_path / "other" / "place", tmp_path / "out", *ONE_GROUP)
    _same(tmp_path / "out", one_group)


def test_another_setting_makes_other_bytes(slides: Path, one_group: Path, tmp_path: Path) -> None:
    assert build(slides, tmp_path / "out", *ONE_GROUP, "--set", "seed=1") != digest_of(one_group)


def test_killed_at_every_named_step_and_resumed(slides: Path, undisturbed: Path, tmp_path: Path) -> None:
    """One data set, killed at one step after the other; each kill finds what the ones before left behind."""
    out = tmp_path / "out"
    for step in STEPS:
        ended = command(*build_words(slides, out), *FIVE_GROUPS, "--workers", "2", env={KILL_AT: step})
        assert ended.code == -signal.SIGKILL, f"the build never came to {step}: {ended.err}"
    build(slides, out, *FIVE_GROUPS)
    _same(out, undisturbed)
    _clean(out)


@pytest.mark.parametrize(
    "step",
    [
        *("index-put:2", "ledger-after:2"),
        *(pytest.param(step, marks=pytest.mark.soak) for step in ("shard-linked:5", "ledger-before:3")),
    ],
)
def test_killed_in_a_later_group_and_resumed(slides: Path, undisturbed: Path, tmp_path: Path, step: str) -> None:
    out = tmp_path / "out"
    ended = command(*build_words(slides, out), *FIVE_GROUPS, "--workers", "2", env={KILL_AT: step})
    assert ended.code == -signal.SIGKILL, ended.err
    before = {path.name: path.stat().st_mtime_ns for path in (out / "ledger").glob("*.json")}
    assert before
    build(slides, out, *FIVE_GROUPS)
    _same(out, undisturbed)
    after = {path.name: path.stat().st_mtime_ns for path in (out / "ledger").glob("*.json")}
    assert before.items() <= after.items(), "a committed group was built again"


def _kill_at_random_moments(slides: Path, out: Path, kills: int, seed: int) -> int:
    """Kill the whole process group again and again, a little later each time; returns how often it hit."""
    moments = random.Random(seed)
    hit = 0
    for _ in range(kills):
        process = start(*build_words(slides, out), *FIVE_GROUPS, "--workers", "2")
        try:
            process.communicate(timeout=moments.uniform(0.5, 4.0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            hit += 1
    return hit


def test_killed_at_random_moments_and_resumed(slides: Path, undisturbed: Path, tmp_path: Path) -> None:
    hit, attempt = 0, 0
    while hit < 6:
        attempt += 1
        out = tmp_path / f"out-{attempt}"
        hit += _kill_at_random_moments(slides, out, 6 - hit, seed=attempt)
        build(slides, out, *FIVE_GROUPS)
        _same(out, undisturbed)
        _clean(out)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_soak_killed_at_a_hundred_random_moments(slides: Path, undisturbed: Path, tmp_path: Path) -> None:
    hit, attempt = 0, 100
    while hit < 100:
        attempt += 1
        out = tmp_path / f"out-{attempt}"
        hit += _kill_at_random_moments(slides, out, 10, seed=attempt)
        build(slides, out, *FIVE_GROUPS)
        _same(out, undisturbed)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("step", STEPS)
def test_soak_killed_at_a_named_step_of_a_fresh_build(
    slides: Path, undisturbed: Path, tmp_path: Path, step: str
) -> None:
    out = tmp_path / "out"
    ended = command(*build_words(slides, out), *FIVE_GROUPS, "--workers", "2", env={KILL_AT: step})
    assert ended.code == -signal.SIGKILL, ended.err
    build(slides, out, *FIVE_GROUPS)
    _same(out, undisturbed)
    _clean(out)


def test_two_builders_at_once_are_safe(slides: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (*build_words(slides, out), *FIVE_GROUPS, "--workers", "1")
    both = [start(*words), start(*words)]
    ended = [finish(process) for process in both]
    assert [one.code for one in ended] == [0, 0], [one.err for one in ended]
    _same(out, undisturbed)
    _clean(out)


def test_other_bytes_under_a_name_stop_the_build(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (*build_words(slides, out), *ONE_GROUP)
    assert command(*words, env={KILL_AT: "shards-put"}).code == -signal.SIGKILL
    shard = next((out / "shards").rglob("*.tar"))
    damaged = shard.read_bytes()[:-1] + b"x"
    shard.unlink()
    shard.write_bytes(damaged)
    ended = command(*words)
    assert ended.code == 4
    assert shard.name in ended.err
    assert ended.err.count("openslide-bin=") == 2, "both environments are named"
    assert shard.read_bytes() == damaged
    assert not (out / "ledger").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_cleans_up_and_goes_on(
    slides: Path, undisturbed: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    process = start(*build_words(slides, out), *FIVE_GROUPS)
    until = time.monotonic() + 120
    while not list((out / "ledger").glob("*.json")) and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(process.pid, number)
    ended = finish(process, 30)
    assert ended.code == 130
    assert ended.err.strip().splitlines()[-1].startswith("exaone-prep: interrupted")
    assert not (out / ".scratch").exists()
    build(slides, out, *FIVE_GROUPS)
    _same(out, undisturbed)


def test_a_changed_manifest_never_continues_an_old_build(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = build_words(slides, out)
    assert command(*words, env={KILL_AT: "shards-put"}).code == -signal.SIGKILL
    ended = command(*words, "--set", "codec.quality=95", "--set", "stain.fit=patch")
    assert ended.code == 2
    assert "codec.quality, stain.fit" in ended.err
    assert command(*words).code == 0


def test_a_resume_never_looks_for_slides_again(slides: Path, tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    shutil.copytree(slides, folder)
    out = tmp_path / "out"
    assert command(*build_words(folder, out), env={KILL_AT: "shards-put"}).code == -signal.SIGKILL
    small_slides(folder / "more", 1, first_seed=77)
    shutil.move(folder / "more" / "slide-00.tiff", folder / "late.tiff")
    assert command(*build_words(folder, out)).code == 0
    assert json.loads((out / "build.json").read_text())["slides"] == {"done": 5, "quarantined": 0}
