"""A pool of child processes that knows which slide a child was at when it died, and whether to blame the slide."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from exaone_prep.budget import one_thread_each
from exaone_prep.errors import PrepError, SlideProblemError
from exaone_prep.job import Job
from exaone_prep.job_queue import JobQueue
from exaone_prep.worker import PREPARE, Done, Failed, Note, Progress

NATIVE_DEATHS: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE})
"""Deaths a slide can be blamed for. SIGKILL and the like come from outside: out of memory, a lost node, a person."""

STRIKES: Final = 2

STARTED_AHEAD: Final = 4

CHECK_EVERY_S: Final = 1.0


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
    def __init__(self, log: Path, *words: str) -> None:
        ours, theirs = socket.socketpair()
        # Parallelism comes from the processes: libraries must not start threads of their own on top.
        environment = {**os.environ, **one_thread_each()}
        with log.open("ab") as stream:
            self.process = subprocess.Popen(  # noqa: S603 (our own interpreter and entry)
                [sys.executable, "-c", _ENTRY, str(theirs.fileno()), *words],
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
        if self.task is None and self.fresh:
            self.process.kill()  # it may still be importing
        try:
            return self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def kill(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def nameless_log() -> Iterator[Path]:
    """A file for a pool's log that nobody else can see, and that is gone with this process however it ends."""
    with tempfile.TemporaryFile() as stream:
        yield Path(f"/proc/{os.getpid()}/fd/{stream.fileno()}")


def _to_stderr(note: str) -> None:
    sys.stderr.write(f"{note}\n")


class WorkerPool:
    """Runs jobs in `workers` child processes; start-up costs are paid once per child.

    Attributes:
        workers: Most child processes at a time.
        log: File for what they write to their standard output and standard error.
        say: Called with what children have to say to the person, once for the same words.
        check: Called every second while jobs run; what it raises ends them at once.
    """

    def __init__(self, workers: int, log: Path, *, say: Callable[[str], None] = _to_stderr) -> None:
        """Make a pool without children; they start with the first jobs.

        Args:
            workers: Most child processes at a time.
            log: File for what they write to their standard output and standard error.
            say: Called with what children have to say to the person, once for the same words.
        """
        self.workers = workers
        self.log = log
        self.say = say
        self.check: Callable[[], None] = lambda: None
        self._said: set[str] = set()
        self._idle: list[_Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start_ahead(self) -> None:
        """Start children before there are jobs for them: they import meanwhile what slides need, and so may others.

        A few only: the jobs may be fewer than the workers.
        """
        while len(self._idle) < min(self.workers, STARTED_AHEAD):
            self._idle.append(_Child(self.log, PREPARE))

    def close(self) -> None:
        """End the idle children."""
        for child in self._idle:
            child.end()
        self._idle.clear()

    def map(self, jobs: Sequence[Job], tell: Callable[[int, int], None] | None = None) -> Iterator[tuple[int, Any]]:
        """Run jobs that are all there; yield (number, answer) as they end. See `run`.

        Args:
            jobs: What to do, in the order of starting.
            tell: Called with the number of a job and the patches it has gone through.
        """
        with JobQueue() as queue:
            for number, job in enumerate(jobs):
                queue.put(number, job)
            yield from self.run(queue, tell)

    def run(self, queue: JobQueue, tell: Callable[[int, int], None] | None = None) -> Iterator[tuple[int, Any]]:
        """Run jobs as they come, to the end of the queue; yield (number, answer) as they end.

        A job's answer may be a `SlideProblemError`. Who takes an answer may add further jobs to the queue then.

        Args:
            queue: What to do.
            tell: Called with the number of a job and the patches it has gone through.

        Raises:
            WorkerLostError: A child was killed from outside.
            PrepError, OSError: As a job raised it, a `SlideProblemError` excepted.
            WorkerFailedError: A job raised anything else.
            BaseException: As `JobQueue.fail` was given it, or as `check` raises it.
        """
        again: deque[_Task] = deque()
        busy: dict[Connection[Any, Any], _Child] = {}
        try:
            while True:
                while len(busy) < self.workers and (task := self._next(again, queue)) is not None:
                    child = self._start(task)
                    busy[child.connection] = child
                if not busy and queue.ended:
                    return
                self.check()
                for ready in wait([*busy, queue.fileno()], CHECK_EVERY_S):
                    if isinstance(ready, int):
                        queue.check()
                        continue
                    assert isinstance(ready, Connection)
                    child = busy[ready]
                    task = child.task
                    assert task is not None
                    try:
                        message = ready.recv()
                    except (EOFError, ConnectionResetError):
                        del busy[ready]
                        problem = self._blame(child, task)
                        if problem is None:
                            again.append(task)
                        else:
                            yield task.number, problem
                        continue
                    if isinstance(message, Progress):
                        if tell is not None:
                            tell(task.number, message.patches)
                        continue
                    if isinstance(message, Note):
                        self._pass_on(message.text)
                        continue
                    del busy[ready]
                    child.task, child.fresh = None, False
                    self._idle.append(child)
                    yield task.number, self._answer(message)
        finally:
            for child in busy.values():
                child.kill()

    def _next(self, again: deque[_Task], queue: JobQueue) -> _Task | None:
        if again:
            return again.popleft()
        taken = queue.take()
        return None if taken is None else _Task(*taken)

    def _pass_on(self, note: str) -> None:
        if note not in self._said:  # several workers may meet the same
            self._said.add(note)
            self.say(note)

    def _start(self, task: _Task) -> _Child:
        while self._idle and not task.alone:
            child = self._idle.pop()
            if child.process.poll() is None and child.give(task):
                return child
            child.kill()
        child = _Child(self.log)
        child.give(task)  # a death in this moment shows as the end of the connection
        return child

    def _answer(self, message: Done | Failed) -> Any:
        if isinstance(message, Done):
            return message.value
        if isinstance(message.error, SlideProblemError):
            return message.error
        with contextlib.suppress(OSError), self.log.open("a") as stream:
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
