"""Several processes by `torchrun`: the batches and losses of one; stopped, and gone on with by another number."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from tests.builds import finish
from tests.trainruns import ALONE, build_tinted, last_of, log_of, tiny, wait_for_step, write_config

torch.set_num_threads(1)

STEPS = 60


def start(processes: int, record: Path, *words: str) -> subprocess.Popen[str]:
    """`exaone-train`, in as many processes, with a record of what each is given."""
    record.mkdir()
    command = ["-m", "tests.recordedtrainer", str(record), *words]
    if processes > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [*launch, *command]
    return subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True, env=ALONE)


def keys_of(record: Path) -> dict[int, list[str]]:
    """Keys of each global batch: those of the ranks one after the other."""
    keys: dict[int, list[str]] = {}
    for rank in sorted(record.iterdir()):
        for line in rank.read_text().splitlines():
            step, some = json.loads(line)
            keys.setdefault(step, []).extend(some)
    return keys


def test_two_processes_do_what_one_does_and_one_goes_on_where_two_were_stopped(tmp_path: Path) -> None:
    shards = str(build_tinted(tmp_path / "tinted", slides=8))
    config = tiny(run__max_steps=STEPS, run__watch_every=STEPS)
    words = ("fit", write_config(tmp_path / "run.yaml", config), "--shards", shards, "--out")
    alone, run = tmp_path / "alone", tmp_path / "run"

    two = start(2, tmp_path / "two", *words, str(run))
    wait_for_step(run, 20)
    two.send_signal(signal.SIGTERM)  # torchrun hands it on to both
    assert finish(two).err.count("stopped as asked; the same command goes on") == 2
    assert finish(start(1, tmp_path / "one", *words, str(alone))).code == 0
    stopped = last_of(run)["step"]
    assert 20 <= stopped == log_of(run)[-1]["step"] < STEPS

    expected = keys_of(tmp_path / "one")
    assert [len(set(keys)) for keys in expected.values()] == [8] * STEPS
    together = keys_of(tmp_path / "two")
    assert all(len(json.loads(line)[1]) == 4 for line in (tmp_path / "two/rank-1.jsonl").read_text().splitlines())
    assert together == {step: expected[step] for step in range(stopped)}

    assert finish(start(1, tmp_path / "last", *words, str(run))).code == 0
    assert keys_of(tmp_path / "last") == {step: expected[step] for step in range(stopped, STEPS)}
    losses, slides = ([[entry[key] for entry in log_of(one)] for one in (alone, run)] for key in ("loss", "slides"))
    assert len(losses[1]) == STEPS
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert slides[1] == slides[0]


def test_a_process_that_fails_says_why_and_ends_the_others(tmp_path: Path) -> None:
    """Otherwise they would wait for it without end, on machines that are paid for."""
    shards = build_tinted(tmp_path / "tinted", slides=8)
    index = pq.read_table(next(shards.glob("index/train/*.parquet"))).to_pylist()[0]
    with next(shards.glob("shards/train/*.tar")).open("r+b") as tar:
        tar.seek(index["image_offset"])
        tar.write(bytes(index["image_size"]))
    words = (
        "fit",
        write_config(tmp_path / "run.yaml", tiny()),
        "--shards",
        str(shards),
        "--out",
        str(tmp_path / "run"),
    )
    ended = finish(start(2, tmp_path / "record", *words))
    assert ended.code != 0
    said = [line for line in ended.err.splitlines() if line.startswith("exaone-train: ")]
    assert len(said) == 1
    assert "shard-000000-000.tar" in said[0]
