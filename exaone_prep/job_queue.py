"""Jobs for a pool of workers, of which more come while others run."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
from types import TracebackType
from typing import Self

from exaone_prep.job import Job

Urgency = tuple[int, ...]


class JobQueue:
    """Hands out the most urgent job first; any thread may add to it.

    Its `fileno` may be waited for beside connections.
    """

    def __init__(self, awaited: int = 0) -> None:
        """Make an empty queue.

        Args:
            awaited: How many calls of `arrive` will come; until then there is something to wait for.
        """
        self._awaited = awaited
        self._waiting: list[tuple[Urgency, int, int, Job]] = []
        self._order = itertools.count()
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            bell, self._bell = self._bell, -1
        os.close(bell)

    def put(self, number: int, job: Job, urgency: Urgency = ()) -> None:
        """Add a job under a number; of two the one with the lesser urgency tuple starts first."""
        with self._lock:
            heapq.heappush(self._waiting, (urgency, next(self._order), number, job))
            self._ring()

    def arrive(self, number: int, job: Job, urgency: Urgency = ()) -> None:
        """Add one of the jobs that are awaited."""
        with self._lock:
            self._awaited -= 1
            heapq.heappush(self._waiting, (urgency, next(self._order), number, job))
            self._ring()

    def fail(self, error: BaseException) -> None:
        """What is awaited will not come: whoever takes from the queue gets this error."""
        with self._lock:
            self._error = self._error or error
            self._ring()

    def take(self) -> tuple[int, Job] | None:
        """The next job with its number, None if there is none at the moment.

        Raises:
            BaseException: As `fail` was given it.
        """
        self.check()
        with self._lock:
            if not self._waiting:
                return None
            _, _, number, job = heapq.heappop(self._waiting)
            return number, job

    def check(self) -> None:
        """Raise what `fail` was given, if it was; and be unreadable until something more is added."""
        with self._lock:
            if self._error is not None:
                raise self._error
            try:
                os.eventfd_read(self._bell)
            except BlockingIOError:
                return

    @property
    def ended(self) -> bool:
        """Whether nothing waits and nothing is awaited."""
        with self._lock:
            return not self._waiting and not self._awaited

    def fileno(self) -> int:
        """Readable once something has been added."""
        return self._bell

    def _ring(self) -> None:
        if self._bell >= 0:  # a slide may arrive after its group has failed
            os.eventfd_write(self._bell, 1)
