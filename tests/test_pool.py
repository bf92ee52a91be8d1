"""The pool of child processes: answers, and who is to blame when a child dies. Real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exaone_prep.errors import SlideProblemError, UnreachableError
from exaone_prep.pool import NATIVE_DEATHS, WorkerFailedError, WorkerLostError, WorkerPool
from tests.jobs import Count, CountTo, Die, Pid, Quarantine, Raise, Shout, Square, Unpicklable

WAIT_S = 60.0


def children() -> set[int]:
    """Processes, zombies included, whose parent is this one."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == os.getpid():
            found.add(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead but not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(true: Callable[[], bool]) -> bool:
    """Whether it came true within a generous time."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(autouse=True)
def leaves_no_process() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before, "a child or a zombie is left"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "workers.log"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    path.mkdir()
    return path


@pytest.mark.parametrize("workers", [1, 3])
def test_every_job_is_answered_under_its_number(log: Path, workers: int) -> None:
    with WorkerPool(workers, log) as pool:
        assert dict(pool.map([Square(n) for n in range(20)])) == {n: n * n for n in range(20)}
        assert list(pool.map([])) == []


def test_answers_come_as_jobs_end_not_in_the_order_of_starting(log: Path) -> None:
    with WorkerPool(2, log) as pool:
        assert [n for n, _ in pool.map([Square(0, after_s=3), Square(1), Square(2)])] == [1, 2, 0]


def test_children_are_kept_for_the_next_jobs(log: Path) -> None:
    with WorkerPool(2, log) as pool:
        first = {pid for _, pid in pool.map([Pid(after_s=1)] * 2)}
        assert len(first) == 2
        assert {pid for _, pid in pool.map([Pid()] * 6)} <= first
        assert os.getpid() not in first


def test_progress_is_told_with_the_number_of_the_job(log: Path) -> None:
    told: list[tuple[int, int]] = []
    with WorkerPool(1, log) as pool:
        answers = dict(pool.map([Square(3), Count(40, each_s=0.05)], lambda number, done: told.append((number, done))))
    assert answers == {0: 9, 1: "done"}
    assert told
    assert {number for number, _ in told} == {1}
    done = [done for _, done in told]
    assert done == sorted(set(done))
    assert len(done) < 40  # now and then, not for each patch


def test_a_problem_of_a_slide_is_an_answer_like_others(log: Path) -> None:
    with WorkerPool(2, log) as pool:
        answers = dict(pool.map([Square(2), Quarantine(), Square(3)]))
    assert (answers[0], answers[2]) == (4, 9)
    assert isinstance(answers[1], SlideProblemError)
    assert (answers[1].reason, str(answers[1])) == ("no_mpp", "It does not say.")


@pytest.mark.parametrize("error", [UnreachableError("The server is away."), OSError(28, "No space left on device")])
def test_other_errors_of_ours_and_of_the_system_are_raised_as_they_are(log: Path, error: Exception) -> None:
    with WorkerPool(1, log) as pool:
        with pytest.raises(type(error)) as caught:
            list(pool.map([Raise(error)]))
        assert caught.value.args == error.args
        assert dict(pool.map([Square(2)])) == {0: 4}


def test_a_defect_is_raised_with_its_last_line_and_logged_whole(log: Path) -> None:
    with WorkerPool(1, log) as pool:
        with pytest.raises(WorkerFailedError, match=r"A worker failed: ZeroDivisionError: by nothing"):
            list(pool.map([Raise(ZeroDivisionError("by nothing"))]))
        assert dict(pool.map([Square(2)])) == {0: 4}
    assert "Traceback" in log.read_text()
    assert "jobs.py" in log.read_text()


def test_an_answer_that_cannot_be_sent_is_a_defect_not_a_lost_worker(log: Path) -> None:
    with WorkerPool(1, log) as pool:
        with pytest.raises(WorkerFailedError, match="pickle"):
            list(pool.map([Unpicklable()]))
        assert dict(pool.map([Square(2)])) == {0: 4}


@pytest.mark.parametrize("number", sorted(NATIVE_DEATHS))
def test_a_slide_whose_decoder_dies_once_is_read_in_the_second_attempt(log: Path, notes: Path, number: int) -> None:
    job = Die(number, 1, notes)
    with WorkerPool(1, log) as pool:
        assert dict(pool.map([job])) == {0: 2}


def test_a_slide_that_dies_twice_in_a_fresh_process_is_set_aside(log: Path, notes: Path) -> None:
    job = Die(signal.SIGSEGV, 99, notes)
    with WorkerPool(2, log) as pool:
        list(pool.map([Square(1), Square(2)]))  # so that the first attempt is not in a fresh process
        answers = dict(pool.map([job, Square(5)]))
    assert answers[1] == 25
    assert isinstance(answers[0], SlideProblemError)
    assert answers[0].reason == "crashed"
    assert "SIGSEGV" in str(answers[0])
    assert len(job.pids()) == 3  # among others, then twice alone
    assert len(set(job.pids())) == 3


def test_a_slide_that_dies_twice_and_then_not_is_no_victim_of_its_neighbours(log: Path, notes: Path) -> None:
    """The first death was in a process that had done other jobs: it does not count."""
    with WorkerPool(1, log) as pool:
        list(pool.map([Square(1)]))
        assert dict(pool.map([Die(signal.SIGBUS, 2, notes)])) == {0: 3}


def test_a_neighbour_is_not_blamed_and_not_started_again(log: Path, notes: Path, tmp_path: Path) -> None:
    calm = tmp_path / "calm"
    calm.mkdir()
    dying, neighbour = Die(signal.SIGSEGV, 99, notes), Die(signal.SIGSEGV, 0, calm, after_s=6)
    with WorkerPool(2, log) as pool:
        answers = dict(pool.map([neighbour, dying]))
    assert answers[0] == 1
    assert isinstance(answers[1], SlideProblemError)
    assert len(neighbour.pids()) == 1


def test_a_child_that_is_killed_from_outside_is_nobodys_fault(log: Path, notes: Path) -> None:
    job = Die(signal.SIGKILL, 1, notes)
    with WorkerPool(2, log) as pool:
        with pytest.raises(WorkerLostError, match="SIGKILL"):
            list(pool.map([job, Square(3)]))
        assert len(job.pids()) == 1
        assert dict(pool.map([Square(3)])) == {0: 9}


@pytest.mark.parametrize(("number", "said"), [(signal.SIGHUP, "SIGHUP"), (0, "exit code 3")])
def test_other_ends_are_lost_workers_as_well(log: Path, notes: Path, number: int, said: str) -> None:
    with WorkerPool(1, log) as pool, pytest.raises(WorkerLostError, match=said):
        list(pool.map([Die(number, 1, notes)]))


def test_a_child_that_dies_while_it_is_idle_is_replaced(log: Path) -> None:
    with WorkerPool(1, log) as pool:
        [(_, pid)] = pool.map([Pid()])
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # dead with all its threads, and left for the pool to find
        assert dict(pool.map([Square(4)])) == {0: 16}


def test_who_stops_listening_ends_the_jobs_that_run(log: Path, tmp_path: Path) -> None:
    """As when another job of the group failed: its neighbours need not go on."""
    note = tmp_path / "note"
    with WorkerPool(2, log) as pool:
        for number, _ in pool.map([Square(1), CountTo(note)]):
            assert number == 0
            assert wait_until(lambda: note.exists() and note.read_text() != "")
            break
        assert wait_until(lambda: not alive(int(note.read_text())))
        assert dict(pool.map([Square(2)])) == {0: 4}


def test_children_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    """Idle ones at once, busy ones in a moment: not at the end of their slide."""
    script = f"""
        from pathlib import Path
        from exaone_prep.pool import WorkerPool
        from tests.jobs import CountTo, Pid
        pool = WorkerPool(2, Path({str(tmp_path / "log")!r}))
        for _, pid in pool.map([Pid(after_s=1)] * 2):
            print(pid, flush=True)
        list(pool.map([CountTo(Path({str(tmp_path / "busy")!r}))]))
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = {int(parent.stdout.readline()) for _ in range(2)}
    busy = tmp_path / "busy"
    assert wait_until(lambda: busy.exists() and busy.read_text() != "")
    assert int(busy.read_text()) in pids
    assert all(alive(pid) for pid in pids)
    parent.kill()
    parent.communicate()
    assert wait_until(lambda: not any(alive(pid) for pid in pids))


def test_what_native_code_prints_goes_to_the_log(log: Path) -> None:
    with WorkerPool(1, log) as pool:
        list(pool.map([Shout()]))
    assert "libtiff: something" in log.read_text()
