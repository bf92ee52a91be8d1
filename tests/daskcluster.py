"""A Dask cluster of real processes, as a person starts one: `dask scheduler`, `dask worker`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

STARTS_WITHIN_S = 60.0


@dataclass
class DaskProcesses:
    """A scheduler and its workers.

    Attributes:
        folder: For what they write.
        scheduler: The process.
        address: Of the scheduler.
    """

    folder: Path
    scheduler: subprocess.Popen[bytes]
    address: str
    _workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_worker(self, *, threads: int = 1, variables: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a worker process without a nanny that would start it anew."""
        words = [self.address, "--no-nanny", "--no-dashboard", "--nthreads", str(threads), "--memory-limit", "0"]
        worker = _start(self.folder, "worker", *words, "--local-directory", str(self.folder), variables=variables)
        self._workers.append(worker)
        return worker

    def keep(self, workers: int) -> None:
        """Start again what has died: the scheduler at its address, and so many workers of one thread."""
        if self.scheduler.poll() is not None:
            host, _, port = self.address.removeprefix("tcp://").rpartition(":")
            self.scheduler = _start(self.folder, "scheduler", "--host", host, "--port", port, "--no-dashboard")
        self._workers = [worker for worker in self._workers if worker.poll() is None]
        while len(self._workers) < workers:
            self.start_worker()

    def kill_workers(self) -> None:
        """Kill all workers; the scheduler goes on."""
        while self._workers:
            _kill(self._workers.pop())

    def close(self) -> None:
        """Kill everything."""
        self.kill_workers()
        _kill(self.scheduler)


@contextlib.contextmanager
def dask_processes(folder: Path) -> Iterator[DaskProcesses]:
    """A scheduler on a free port, without workers; all goes with the block."""
    file = folder / "scheduler.json"
    words = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    scheduler = _start(folder, "scheduler", *words)
    wait_until(lambda: file.exists() and file.read_text().endswith("}"), STARTS_WITHIN_S)
    cluster = DaskProcesses(folder, scheduler, json.loads(file.read_text())["address"])
    try:
        yield cluster
    finally:
        cluster.close()


def wait_until(condition: Callable[[], bool], within_s: float) -> None:
    """Come back once something holds; fail the test if it does not in time."""
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, f"not within {within_s:g} s"
        time.sleep(0.1)


def _start(folder: Path, *words: str, variables: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    with (folder / "dask.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(variables or {})},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
