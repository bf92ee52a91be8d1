"""The log of an attempt: JSON lines in the scratch, whose end is kept where the attempt failed."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from exaone_prep import layout
from exaone_prep.attempt_log import TAIL_BYTES, AttemptLog
from exaone_prep.build import ATTEMPTS, BuildIncompleteError, LocalExecutor, run
from exaone_prep.dataset import create_dataset
from exaone_prep.group import GroupBuilder
from exaone_prep.pool import WorkerPool
from exaone_prep.scratch import Scratch
from tests.jobs import Shout
from tests.smallslides import manifest_of, small_slides

FIELDS = ["time", "level", "group", "slide", "worker", "message"]


def lines_of(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> AttemptLog:
    return AttemptLog(tmp_path / "log" / "a.jsonl", 7, tmp_path / "workers.log", lambda text: text)


def test_a_line_says_when_where_and_what(log: AttemptLog) -> None:
    log.write("surveyed: 12 patches planned", slide="s-1")
    [line] = lines_of(log.tail())
    assert list(line) == FIELDS
    assert (line["level"], line["group"], line["slide"]) == ("info", 7, "s-1")


def test_lines_of_many_threads_stay_whole(log: AttemptLog) -> None:
    def write() -> None:
        for number in range(100):
            log.write(f"{number}")

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines_of(log.file.read_text())) == 800
    tail = log.tail()
    assert 0.9 * TAIL_BYTES < len(tail.encode()) <= TAIL_BYTES
    assert lines_of(tail) == lines_of(log.file.read_text())[-len(lines_of(tail)) :]


def test_what_native_code_writes_is_taken_over_once_and_only_since_the_beginning(tmp_path: Path) -> None:
    workers = tmp_path / "workers.log"
    workers.write_text("of an earlier group\n")
    log = AttemptLog(tmp_path / "log" / "a.jsonl", 7, workers, lambda text: text.replace("clear", "hidden"))
    with WorkerPool(1, workers) as pool:
        list(pool.map([Shout()]))
    with workers.open("a") as stream:
        stream.write("a clear name\n")
    log.take_over()
    log.take_over()
    assert [line["message"] for line in lines_of(log.tail())] == ["libtiff: something", "a hidden name"]


def test_a_disk_that_is_full_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    log = AttemptLog(Path("/dev/full"), 7, tmp_path / "none", lambda text: text)
    log.write("lost")
    log.take_over()


def test_a_failed_group_keeps_the_end_of_its_log_without_clear_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXAONE_PREP_ID_KEY", "k" * 32)
    slides = small_slides(tmp_path / "slides", 2)
    manifest = manifest_of(tmp_path / "slides", privacy={"slide_ids": "hash"})
    dataset = create_dataset(tmp_path / "out", manifest, base=tmp_path)
    ids = [row.slide_id for row in dataset.groups[0]]
    slides[1].unlink()
    with Scratch(tmp_path / "scratch") as scratch, WorkerPool(1, tmp_path / "log") as pool:
        builder = GroupBuilder(dataset=dataset, pool=pool, scratch=scratch)
        with pytest.raises(BuildIncompleteError):
            run([0], LocalExecutor(builder), dataset)
        assert len(list((scratch.path / "log").iterdir())) == ATTEMPTS
    for number in range(1, ATTEMPTS + 1):
        kept = json.loads((tmp_path / "out" / layout.attempt(0, number)).read_text())
        lines = lines_of(kept["log"])
        assert lines[0]["message"] == "begins: 2 slides"
        assert lines[-1]["level"] == "error"
        assert any(name in str(lines[-1]["message"]) for name in ids)
        assert "slide-0" not in json.dumps(kept)
