"""Pausing and stopping from outside: two small files, asked for now and then."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from exaone_prep import control, layout
from exaone_prep.control import Control
from exaone_prep.errors import BuildStoppedError, UnreachableError
from exaone_prep.storage import LocalStorage


class Counting(LocalStorage):
    """A folder that counts how often it is read, and can be out of reach."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[str] = []
        self.away = False

    def read(self, path: str) -> bytes:
        """See `Storage`."""
        self.reads.append(path)
        if self.away:
            raise UnreachableError("The store is away.")
        return super().read(path)


@pytest.fixture
def storage(tmp_path: Path) -> Counting:
    return Counting(tmp_path)


@pytest.fixture
def looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(control, "_WAKE_EVERY_S", 0.01)


@pytest.mark.usefixtures("looks_at_once")
def test_a_build_stops_once_its_own_key_is_set_and_no_other_build_does(storage: Counting) -> None:
    ours, theirs = Control(storage, control.new_builder()), Control(storage, control.new_builder())
    ours.check()
    control.stop(storage, ours.builder)
    assert (ours.stopping(), theirs.stopping()) == (True, False)
    with pytest.raises(BuildStoppedError, match="the same command goes on"):
        ours.check()
    theirs.check()


@pytest.mark.usefixtures("looks_at_once")
def test_a_build_that_was_stopped_stays_so_when_the_key_is_gone(storage: Counting) -> None:
    asked = Control(storage, "b")
    control.stop(storage, "b")
    assert asked.stopping()
    control.clear(storage)
    assert asked.stopping()
    assert not Control(storage, "b").stopping()


def test_the_store_is_asked_once_in_some_seconds_however_often_one_looks(storage: Counting) -> None:
    asked = Control(storage, "b")
    assert not any(asked.stopping() for _ in range(1000))
    control.stop(storage, "b")
    assert not asked.stopping()
    assert storage.reads == [layout.stop("b")], "one request, and none for the pause that nobody asked of"


@pytest.mark.usefixtures("looks_at_once")
def test_a_store_that_is_away_stops_nothing_and_forgets_nothing(storage: Counting) -> None:
    asked = Control(storage, "b")
    storage.away = True
    assert not asked.stopping()
    storage.away = False
    control.pause(storage)
    assert asked.paused()
    storage.away = True
    assert asked.paused()


@pytest.mark.usefixtures("looks_at_once")
def test_who_waits_says_so_once_and_goes_on_when_the_pause_ends(storage: Counting) -> None:
    asked, said = Control(storage, "b"), threading.Semaphore(0)
    asked.wait_while_paused(said.release)
    assert not said.acquire(blocking=False)
    control.pause(storage)
    thread = threading.Thread(target=asked.wait_while_paused, args=(said.release,))
    thread.start()
    assert said.acquire(timeout=10)
    time.sleep(0.1)
    assert thread.is_alive()
    control.resume(storage)
    thread.join(10)
    assert not thread.is_alive()
    assert not said.acquire(blocking=False)


@pytest.mark.usefixtures("looks_at_once")
def test_who_waits_can_be_stopped(storage: Counting) -> None:
    control.pause(storage)
    with pytest.raises(BuildStoppedError):
        Control(storage, "b").wait_while_paused(lambda: control.stop(storage, "b"))


@pytest.mark.parametrize("ending", [ValueError, KeyboardInterrupt, None])
def test_tasks_elsewhere_stop_when_the_block_around_them_ends_early(
    storage: Counting, ending: type[BaseException] | None
) -> None:
    if ending is None:
        with control.tasks_that_stop(storage) as builder:
            pass
    else:
        with pytest.raises(ending), control.tasks_that_stop(storage) as builder:
            raise ending
    assert Control(storage, builder).stopping() is (ending is not None)


def test_resuming_what_is_not_paused_and_clearing_nothing_are_no_faults(storage: Counting) -> None:
    control.resume(storage)
    control.clear(storage)
    control.pause(storage)
    assert control.is_paused(storage)
    control.clear(storage)
    assert not control.is_paused(storage)
