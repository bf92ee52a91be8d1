"""A pool of child processes that knows which slide a child was at when it died, and whether to blame the slide."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from exaone_prep.errors import PrepError, SlideProblemError
from exaone_prep.worker import Done, Failed, Job, Progress

NATIVE_DEATHS: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE})
"""Deaths a slide can be blamed for. SIGKILL and the like come from outside: out of memory, a lost node, a person."""

STRIKES: Final = 2


class WorkerLostError(PrepError):
    """A worker died of something no slide can be blamed for."""


class WorkerFailedError(PrepError):
    """A job failed with an error that is a defect of this program."""


@dataclass
class _Task:
    number: int
    job: Job
    strikes: int = 0
    alone: bool = False
    """After a first death it runs in a fresh process, so that only this job can be the cause of the next."""


# Not `-m`: what a module defines while it is `__main__` cannot be unpickled on the other side.
_ENTRY: Final = "from exaone_prep.worker import main; main()"


class _Child:
    def __init__(self, log: Path) -> None:
        ours, theirs = socket.socketpair()
        environment = {**os.environ, **dict.fromkeys(_THREAD_LIMITS, "1")}
        with log.open("ab") as stream:
            self.process = subprocess.Popen(  # noqa: S603 (our own interpreter and entry)
                [sys.executable, "-c", _ENTRY, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment,
            )
        theirs.close()
        self.connection: Connection[Any, Any] = Connection(ours.detach())
        self.task: _Task | None = None
        self.fresh = True

    def give(self, task: _Task) -> bool:
        """Hand a task over; False if the child is dead already."""
        self.task = task
        try:
            self.connection.send(task.job)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def end(self) -> int:
        """Close, and see how it died; negative numbers are signals."""
        self.connection.close()
        try:
            return self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def kill(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()


# Parallelism comes from the processes: libraries must not start threads of their own on top.
_THREAD_LIMITS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class WorkerPool:
    """Runs jobs in `workers` child processes; start-up costs are paid once per child."""

    def __init__(self, workers: int, log: Path) -> None:
        self.workers = workers
        self._log = log
        self._idle: list[_Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the idle children."""
        for child in self._idle:
            child.end()
        self._idle.clear()

    def map(self, jobs: Sequence[Job], tell: Callable[[int, int], None] | None = None) -> Iterator[tuple[int, Any]]:
        """Run jobs; yield (number, answer) as they end. A job's answer may be a `SlideProblemError`.

        Args:
            jobs: What to do, in the order of starting.
            tell: Called with the number of a job and the patches it has gone through.

        Raises:
            WorkerLostError: A child was killed from outside.
            PrepError, OSError: As a job raised it, a `SlideProblemError` excepted.
            WorkerFailedError: A job raised anything else.
        """
        waiting = deque(_Task(number, job) for number, job in enumerate(jobs))
        busy: dict[Connection[Any, Any], _Child] = {}
        try:
            while waiting or busy:
                while waiting and len(busy) < self.workers:
                    child = self._start(waiting.popleft())
                    busy[child.connection] = child
                for connection in wait(list(busy)):
                    assert isinstance(connection, Connection)
                    child = busy[connection]
                    task = child.task
                    assert task is not None
                    try:
                        message = connection.recv()
                    except (EOFError, ConnectionResetError):
                        del busy[connection]
                        problem = self._blame(child, task)
                        if problem is None:
                            waiting.appendleft(task)
                        else:
                            yield task.number, problem
                        continue
                    if isinstance(message, Progress):
                        if tell is not None:
                            tell(task.number, message.patches)
                        continue
                    del busy[connection]
                    child.task, child.fresh = None, False
                    self._idle.append(child)
                    yield task.number, self._answer(message)
        finally:
            for child in busy.values():
                child.kill()

    def _start(self, task: _Task) -> _Child:
        while self._idle and not task.alone:
            child = self._idle.pop()
            if child.process.poll() is None and child.give(task):
                return child
            child.kill()
        child = _Child(self._log)
        child.give(task)  # a death in this moment shows as the end of the connection
        return child

    def _answer(self, message: Done | Failed) -> Any:
        if isinstance(message, Done):
            return message.value
        if isinstance(message.error, SlideProblemError):
            return message.error
        with contextlib.suppress(OSError), self._log.open("a") as stream:
            stream.write(message.trace)
        if message.error is not None:
            raise message.error
        raise WorkerFailedError(f"A worker failed: {message.trace.strip().splitlines()[-1]}")

    def _blame(self, child: _Child, task: _Task) -> SlideProblemError | None:
        """What a dead child means for its task: a problem of the slide, or None for one more try."""
        code = child.end()
        if -code not in NATIVE_DEATHS:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise WorkerLostError(f"A worker process was lost ({how}); out of memory, or ended from outside?")
        name = signal.Signals(-code).name
        if child.fresh and task.alone:
            task.strikes += 1
            if task.strikes >= STRIKES:
                return SlideProblemError(
                    "crashed", f"Its decoder died twice ({name}) in a fresh process; the file is probably damaged."
                )
        task.alone = True
        return None
