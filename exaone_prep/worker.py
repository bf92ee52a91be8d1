"""A child process in which slides are opened and decoded: a native decoder that dies takes only this one along.

Started by `exaone_prep.pool` with the number of a socket, over which jobs and answers travel as pickles. It ends when
the other side closes the socket or dies.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from exaone_prep.errors import PrepError
from exaone_prep.job import Job

HEARTBEAT_S = 0.5
PREPARE = "prepare"
"""Word on the command line of a child that should be ready for slides before it is given any."""


@dataclass(frozen=True)
class Progress:
    """Sent now and then while a job runs."""

    patches: int


@dataclass(frozen=True)
class Done:
    """The answer of a job."""

    value: Any


@dataclass(frozen=True)
class Failed:
    """A job raised: an error of ours, or anything else with its traceback as text."""

    error: PrepError | OSError | None
    trace: str


@dataclass(frozen=True)
class Note:
    """Sent when the person should know of something, such as a wait."""

    text: str


class _Line:
    """A connection that several threads may send over."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        with self._lock:
            self._connection.send(message)


class _Notes(logging.Handler):
    """Sends what modules log for people."""

    def __init__(self, line: _Line) -> None:
        super().__init__(logging.WARNING)
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        self._line.send(Note(record.getMessage()))


class Teller:
    """Sends progress at most every `HEARTBEAT_S`."""

    def __init__(self, connection: _Line) -> None:
        self._connection = connection
        self._last = time.monotonic()

    def __call__(self, patches: int) -> None:
        """Say how many patches a job has gone through."""
        now = time.monotonic()
        if now - self._last >= HEARTBEAT_S:
            self._last = now
            self._connection.send(Progress(patches))


def serve(connection: Connection[Any, Any]) -> None:
    """Do jobs until the other side closes the connection."""
    line = _Line(connection)
    logging.getLogger("exaone_prep").addHandler(_Notes(line))
    while True:
        try:
            job: Job = connection.recv()
        except EOFError:
            return
        answer: Done | Failed
        try:
            answer = Done(job.run(Teller(line)))
        except (PrepError, OSError) as error:
            answer = Failed(error, traceback.format_exc())
        except Exception:  # noqa: BLE001 (whatever it is, the other side must hear of it, with the traceback)
            answer = Failed(None, traceback.format_exc())
        try:
            line.send(answer)
        except (pickle.PicklingError, AttributeError, TypeError):
            line.send(Failed(None, traceback.format_exc()))


def die_with(parent: int) -> None:
    """End this process when its parent is gone: a killed one cannot tell its children, and they would go on."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main() -> None:
    """Entry point of the child."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the parent decides
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=die_with, args=(os.getppid(),), daemon=True).start()
    if PREPARE in sys.argv[2:]:
        importlib.import_module("exaone_prep.survey")
        importlib.import_module("exaone_prep.cut")
    try:
        serve(Connection(int(sys.argv[1])))
    except (BrokenPipeError, ConnectionResetError):
        return
