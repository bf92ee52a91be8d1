"""Runs of training, a few at a time, each on one thread; killed at any moment, they go on."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from reproduction.design import CONFIG, Arm, Places, ReproductionError, Size

_MOST_LINES = 15


@dataclass(frozen=True)
class Job:
    """An arm with a seed."""

    arm: Arm
    seed: int


def train(places: Places, todo: Sequence[Job], size: Size, workers: int, say: Callable[[str], None]) -> None:
    """Train what is not trained yet.

    Args:
        places: Where.
        todo: The runs.
        size: How many steps.
        workers: Runs at a time; each has one thread, which is quicker than one run with many.
        say: Is told about each run that has ended.

    Raises:
        ReproductionError: A run failed.
    """
    with ThreadPoolExecutor(workers) as pool:
        for job, ended in zip(todo, pool.map(lambda job: _run(places, job, size), todo), strict=True):
            if ended.returncode:
                pool.shutdown(cancel_futures=True)
                log = "\n".join(ended.stderr.splitlines()[-_MOST_LINES:])
                raise ReproductionError(f"Training {job.arm.name} with seed {job.seed} failed:\n{log}")
            say(f"trained: {job.arm.name}, seed {job.seed}")


def _run(places: Places, job: Job, size: Size) -> subprocess.CompletedProcess[str]:
    changes = {"run.seed": str(job.seed), "run.max_steps": str(size.steps), **job.arm.train}
    words = [f"--set={field}={value}" for field, value in changes.items()]
    shards, run = places.data(job.arm.data), places.run(job.arm, job.seed)
    run.mkdir(parents=True, exist_ok=True)
    # A run goes on where this process is killed, and keeps the lock that it was given: whoever comes next waits for it.
    with (run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return subprocess.run(  # noqa: S603  # words of this package
            [
                sys.executable,
                "-m",
                "exaone_train",
                "fit",
                str(CONFIG),
                "--shards",
                str(shards),
                "--out",
                str(run),
                *words,
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            pass_fds=[lock.fileno()],
            capture_output=True,
            text=True,
            check=False,
        )
