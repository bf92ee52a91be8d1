"""What builders are asked to do from outside: to pause, or to stop. Two small files of the data set, in no digest.

`control/pause.json` is set by a person and holds for all builders: each finishes its group and waits.
`control/stop-<builder>.json` is set by the driver of one build: its groups end where they are, on all machines.

Whoever runs groups elsewhere keeps the block `tasks_that_stop` around them and gives each task the name of the
builder. There the task makes a `Control` and hands it to its `GroupBuilder`, which asks it: before each group whether
to wait, and every second while slides are read and files committed whether to end.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from exaone_prep import layout
from exaone_prep.errors import BuildStoppedError, PrepError
from exaone_prep.progress import this_process
from exaone_prep.storage import Storage

LOOK_EVERY_S: Final = 5.0
"""Most often that one process asks the store for one key: a request of a missing object, the cheapest there is."""

_WAKE_EVERY_S: Final = 0.5


class Control:
    """Answers whether to wait or to stop; may be asked between any two patches, from any thread.

    Attributes:
        builder: Whose stop key it looks for.
    """

    def __init__(self, storage: Storage, builder: str) -> None:
        """Look at nothing yet.

        Args:
            storage: Of the data set.
            builder: As `tasks_that_stop` or `new_builder` named it.
        """
        self.builder = builder
        self._stop = _Key(storage, layout.stop(builder))
        self._pause = _Key(storage, layout.PAUSE)

    def stopping(self) -> bool:
        """Whether the driver ended; true for good once it was. Asks the store at most every `LOOK_EVERY_S`."""
        return self._stop.seen or self._stop.is_set()

    def check(self) -> None:
        """Do nothing, or end.

        Raises:
            BuildStoppedError: `stopping()`.
        """
        if self.stopping():
            raise BuildStoppedError("The build was stopped; what is committed is kept, the same command goes on.")

    def paused(self) -> bool:
        """Whether a person paused the data set. Asks the store at most every `LOOK_EVERY_S`."""
        return self._pause.is_set()

    def wait_while_paused(self, on_wait: Callable[[], None] = lambda: None) -> None:
        """Come back once the data set is not paused. Asks the store at once, so it is for between groups.

        Args:
            on_wait: Called once, if there is anything to wait for.

        Raises:
            BuildStoppedError: `stopping()`.
        """
        self.check()
        self._pause.forget()
        if self.paused():
            on_wait()
        while self.paused():
            time.sleep(_WAKE_EVERY_S)
            self.check()


class _Key:
    """A key that is looked for now and then."""

    def __init__(self, storage: Storage, path: str) -> None:
        self._storage = storage
        self._path = path
        self._next = 0.0
        self._lock = threading.Lock()
        self.seen = False

    def forget(self) -> None:
        """Ask the store the next time, whenever the last was."""
        with self._lock:
            self._next = 0.0

    def is_set(self) -> bool:
        """As the store said a short while ago at most."""
        with self._lock:
            if time.monotonic() >= self._next:
                # What cannot be asked stays as it was: whatever else needs the store will meet the fault.
                with contextlib.suppress(OSError, PrepError):
                    self.seen = _there(self._storage, self._path)
                self._next = time.monotonic() + LOOK_EVERY_S
            return self.seen


def new_builder() -> str:
    """A name for one run of a driver, that no other run has."""
    return f"{this_process()}-{secrets.token_hex(4)}"


@contextmanager
def tasks_that_stop(storage: Storage) -> Iterator[str]:
    """Name a builder for tasks elsewhere; the block sets its stop key if it ends before its end, however.

    The key stays for tasks that look later, and goes when the data set is complete.
    """
    builder = new_builder()
    try:
        yield builder
    except BaseException:
        stop(storage, builder)
        raise


def stop(storage: Storage, builder: str) -> None:
    """Make all groups of one builder end within seconds, without a trace of what they had begun."""
    storage.replace(layout.stop(builder), _said())


def pause(storage: Storage) -> None:
    """Make all builders of a data set wait when they have finished the group they are at."""
    storage.replace(layout.PAUSE, _said())


def resume(storage: Storage) -> None:
    """Let the builders of a data set go on; nothing happens if it is not paused."""
    storage.remove(layout.PAUSE)


def is_paused(storage: Storage) -> bool:
    """Whether a data set is paused now."""
    return _there(storage, layout.PAUSE)


def clear(storage: Storage) -> None:
    """Take all keys away, once a data set is complete."""
    for name in storage.names(layout.CONTROL):
        storage.remove(f"{layout.CONTROL}/{name}")


def _there(storage: Storage, path: str) -> bool:
    try:
        storage.read(path)  # one request; asking for the size of what is not there takes a store two
    except FileNotFoundError:
        return False
    return True


def _said() -> bytes:
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}).encode()
