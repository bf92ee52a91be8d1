"""Jobs that come while others run, and what workers say to the person: real processes."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from exaone_prep.errors import UnreachableError
from exaone_prep.job_queue import JobQueue
from exaone_prep.pool import STARTED_AHEAD, WorkerPool
from tests.jobs import Compile, CountTo, Environment, Pid, Square
from tests.test_pool import children


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "workers.log"


def test_the_most_urgent_job_is_taken_first_and_equals_in_the_order_of_coming() -> None:
    with JobQueue() as queue:
        for number, urgency in enumerate([(1, -5), (0, 3), (1, -9), (0, 3)]):
            queue.put(number, Square(number), urgency)
        assert [taken[0] for _ in range(4) if (taken := queue.take())] == [1, 3, 2, 0]
        assert queue.take() is None
        assert queue.ended


def test_what_is_awaited_from_other_threads_is_waited_for(log: Path) -> None:
    with WorkerPool(1, log) as pool, JobQueue(awaited=2) as queue:

        def bring() -> None:
            for number in range(2):
                time.sleep(0.2)
                assert not queue.ended
                queue.arrive(number, Square(number))

        thread = threading.Thread(target=bring)
        thread.start()
        assert dict(pool.run(queue)) == {0: 0, 1: 1}
        thread.join()


def test_an_answer_may_lead_to_a_further_job(log: Path) -> None:
    with WorkerPool(2, log) as pool, JobQueue() as queue:
        queue.put(3, Square(3))
        answers = []
        for number, answer in pool.run(queue):
            answers.append((number, answer))
            if answer < 1000:
                queue.put(answer, Square(answer))
    assert answers == [(3, 9), (9, 81), (81, 6561)]


def test_a_failure_of_what_is_awaited_ends_the_jobs_that_run(log: Path, tmp_path: Path) -> None:
    note = tmp_path / "note"
    with WorkerPool(1, log) as pool, JobQueue(awaited=1) as queue:
        queue.put(0, CountTo(note))

        def fail() -> None:
            while not note.exists():
                time.sleep(0.05)
            queue.fail(UnreachableError("The store is away."))

        thread = threading.Thread(target=fail)
        thread.start()
        with pytest.raises(UnreachableError, match="The store is away"):
            list(pool.run(queue))
        thread.join()


def test_what_comes_after_the_end_is_not_minded() -> None:
    with JobQueue(awaited=1) as queue:
        pass
    queue.arrive(0, Square(1))
    queue.fail(UnreachableError("too late"))


def test_a_first_compilation_is_said_once_and_a_later_start_says_nothing(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    said: list[str] = []
    with WorkerPool(2, log, say=said.append) as pool:
        assert dict(pool.map([Compile(20), Compile(22)])) == {0: 21, 1: 23}
    assert said == ["Compiling the loop of a test for this CPU; this takes some seconds, once per machine."]
    with WorkerPool(1, log, say=said.append) as pool:
        assert dict(pool.map([Compile(1)])) == {0: 2}
    assert len(said) == 1


def test_libraries_in_workers_are_asked_for_one_thread(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    with WorkerPool(1, log) as pool:
        [(_, found)] = pool.map([Environment()])
    assert {name: found[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")} == {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
    }
    assert found["arrow"] == "1"


def test_workers_started_ahead_do_the_first_jobs_and_unused_ones_end_at_once(log: Path) -> None:
    before = children()
    with WorkerPool(2, log) as pool:
        pool.start_ahead()
        ahead = children() - before
        assert len(ahead) == 2
        assert {pid for _, pid in pool.map([Pid()])} <= ahead
    assert children() <= before
    with WorkerPool(64, log) as pool:
        pool.start_ahead()
        assert len(children() - before) == STARTED_AHEAD
        began = time.monotonic()
    assert time.monotonic() - began < 1
