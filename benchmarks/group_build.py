"""Builds of one group in this process, with the CPU time of each stage: what the chain costs without start-up.

The group's own code runs, commit included; only the pool is another one, which does the jobs here instead of in child
processes, so that their CPU time can be told apart. As a command it does so for some slides and prints what it found,
with the peak of the process's memory: `group_build.py SLIDE… [--runs 3]`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from surveyed import manifest_of

from exaone_prep.cut import CutJob
from exaone_prep.dataset import create_dataset
from exaone_prep.errors import SlideProblemError
from exaone_prep.group import GroupBuilder
from exaone_prep.job import Job
from exaone_prep.job_queue import JobQueue
from exaone_prep.packing import PicturesJob
from exaone_prep.pool import WorkerPool
from exaone_prep.quality import QualityMeasures
from exaone_prep.scratch import Scratch
from exaone_prep.shards.pack import PackJob
from exaone_prep.survey import SurveyJob

_NOTHING_FOUND = QualityMeasures(white=0.0, black=0.0, pen=0.0, sharpness=1.0)


@dataclass(frozen=True, kw_only=True)
class GroupCost:
    """What a group cost, in ms of CPU time.

    Attributes:
        survey: Of all slides.
        cut: Read, measure, normalise, encode, spool.
        pack: Tar, checksum, index.
        pictures: Overviews, masks and grids in one file, as the surveys left them.
        commit: All else: stamps, plan, putting and reading back the shards, index, ledger.
        planned: Patches.
        kept: Of these.
    """

    survey: float
    cut: float
    pack: float
    pictures: float
    commit: float
    planned: int
    kept: int

    @property
    def chain(self) -> float:
        """Cut, pack, index and commit per kept patch: what a patch more costs more."""
        return (self.cut + self.pack + self.commit) / self.kept


class InlinePool(WorkerPool):
    """Does jobs in this process, and counts their CPU time by kind."""

    def __init__(self) -> None:
        super().__init__(1, Path(os.devnull))
        self.spent_ms: defaultdict[type[Job], float] = defaultdict(float)

    def run(
        self, queue: JobQueue, tell: Callable[[int, int], None] | None = None
    ) -> Generator[tuple[int, Any], None, None]:
        """Run jobs one after the other; see `WorkerPool.run`."""
        while True:
            taken = queue.take()
            if taken is None and queue.ended:
                return
            if taken is None:
                wait([queue.fileno()])
                queue.check()
                continue
            number, job = taken
            began = time.process_time_ns()
            try:
                answer = job.run(partial(tell, number) if tell is not None else _say_nothing)
            except SlideProblemError as problem:
                answer = problem
            self.spent_ms[type(job)] += (time.process_time_ns() - began) / 1e6
            yield number, answer


def _say_nothing(_: int) -> None:
    """Progress is not asked for."""


def without_measures() -> AbstractContextManager[Any]:
    """Within it no patch is measured; all pass."""
    # A plain function: a mock would keep every patch that it is called with.
    return mock.patch("exaone_prep.cut.measure", new=_find_nothing)


def _find_nothing(_: object) -> QualityMeasures:
    return _NOTHING_FOUND


def build_group(slides: Sequence[Path], *, fit: str = "slide", measured: bool = True) -> GroupCost:
    """Build all slides as one group, in a temporary folder.

    Args:
        slides: Files of different content.
        fit: ``slide`` or ``patch``.
        measured: Whether patches are measured; without it all are kept.
    """
    with tempfile.TemporaryDirectory() as name, nullcontext() if measured else without_measures():
        folder = Path(name)
        dataset = create_dataset(folder / "dataset", manifest_of(*slides, fit=fit), base=folder)
        pool = InlinePool()
        with Scratch(folder / "scratch") as scratch:
            began = time.process_time_ns()
            record = GroupBuilder(dataset=dataset, pool=pool, scratch=scratch).build(0)
            spent_ms = (time.process_time_ns() - began) / 1e6
    survey, cut, pack, pictures = (pool.spent_ms[kind] for kind in (SurveyJob, CutJob, PackJob, PicturesJob))
    return GroupCost(
        survey=survey,
        cut=cut,
        pack=pack,
        pictures=pictures,
        commit=spent_ms - survey - cut - pack - pictures,
        planned=record.planned,
        kept=record.samples,
    )


def middle(costs: Sequence[GroupCost]) -> GroupCost:
    """The median of each part."""
    parts = [asdict(cost) for cost in costs]
    return GroupCost(**{name: type(parts[0][name])(np.median([part[name] for part in parts])) for name in parts[0]})


def peak_mib() -> float:
    """The most memory that this program has had; what a process is told by `getrusage` counts its parent's as well."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    """Build some times and print the medians and the peak of memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slides", nargs="+", type=Path)
    parser.add_argument("--fit", choices=("slide", "patch"), default="slide")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    costs = [build_group(arguments.slides, fit=arguments.fit) for _ in range(arguments.runs + 1)][1:]
    chains = [cost.chain for cost in costs]
    figures = {**asdict(middle(costs)), "chains": chains, "peak_mib": peak_mib()}
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
