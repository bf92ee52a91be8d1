"""Jobs for the pool of workers: such as do something, and such as die of something."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exaone_prep.errors import SlideProblemError
from exaone_prep.job import Tell


@dataclass(frozen=True)
class Square:
    """Answer with the square of a number, after a while."""

    number: int
    after_s: float = 0

    def run(self, tell: Tell) -> int:
        """See `Job`."""
        time.sleep(self.after_s)
        return self.number**2


@dataclass(frozen=True)
class Pid:
    """Answer with the number of the process."""

    after_s: float = 0

    def run(self, tell: Tell) -> int:
        """See `Job`."""
        time.sleep(self.after_s)
        return os.getpid()


@dataclass(frozen=True)
class Count:
    """Go through patches and tell of each."""

    patches: int
    each_s: float

    def run(self, tell: Tell) -> str:
        """See `Job`."""
        for number in range(self.patches):
            tell(number)
            time.sleep(self.each_s)
        return "done"


@dataclass(frozen=True)
class Raise:
    """Fail."""

    error: BaseException

    def run(self, tell: Tell) -> Any:
        """See `Job`."""
        raise self.error


@dataclass(frozen=True)
class Quarantine:
    """Find a problem in a slide."""

    def run(self, tell: Tell) -> Any:
        """See `Job`."""
        raise SlideProblemError("no_mpp", "It does not say.")


@dataclass(frozen=True)
class Die:
    """Die of a signal (0: leave with exit code 3) for the first times; then answer with how often it was tried.

    Attributes:
        signal: Of which it dies.
        times: How often.
        notes: Folder in which each attempt leaves its process's number.
        after_s: Death comes after so long.
    """

    signal: int
    times: int
    notes: Path
    after_s: float = 0

    def run(self, tell: Tell) -> int:
        """See `Job`."""
        tries = len(list(self.notes.iterdir())) + 1
        (self.notes / str(tries)).write_text(str(os.getpid()))
        time.sleep(self.after_s)
        if tries <= self.times:
            if self.signal == 0:
                os._exit(3)
            os.kill(os.getpid(), self.signal)
            time.sleep(600)
        return tries

    def pids(self) -> list[int]:
        """Process of each attempt."""
        return [int((self.notes / str(n + 1)).read_text()) for n in range(len(list(self.notes.iterdir())))]


@dataclass(frozen=True)
class CountTo:
    """Say that it runs, in a file, and go on for a long time without a word."""

    note: Path

    def run(self, tell: Tell) -> int:
        """See `Job`."""
        self.note.write_text(str(os.getpid()))
        end = time.monotonic() + 600
        number = 0
        while time.monotonic() < end:
            number += 1
        return number


@dataclass(frozen=True)
class Shout:
    """Write where a C library writes its warnings."""

    def run(self, tell: Tell) -> None:
        """See `Job`."""
        os.write(2, b"libtiff: something\n")


class Unpicklable:
    """Has an answer that cannot be sent."""

    def run(self, tell: Tell) -> Any:
        """See `Job`."""
        return lambda: 0


def add_one(values: NDArray[np.int64]) -> None:
    """A loop for numba."""
    for i in range(len(values)):
        values[i] += 1


@dataclass(frozen=True)
class Compile:
    """Answer with a number and one, added by machine code."""

    number: int

    def run(self, tell: Tell) -> int:
        """See `Job`."""
        from exaone_prep.compilation import Kernel, compiled

        values = np.array([self.number])
        compiled({"add_one": Kernel(add_one, "void(int64[::1])")}, "the loop of a test")["add_one"](values)
        return int(values[0])


@dataclass(frozen=True)
class Environment:
    """Answer with the environment, and the threads that Arrow would use."""

    def run(self, tell: Tell) -> dict[str, str]:
        """See `Job`."""
        import pyarrow as pa

        return {**os.environ, "arrow": str(pa.cpu_count())}
