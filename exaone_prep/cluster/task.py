"""What a Dask worker does: it starts the process that builds a group, and waits for it as long as it is wanted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, Final

from dask.typing import Key
from distributed import Status, Worker, get_worker

from exaone_prep.budget import one_thread_each
from exaone_prep.build import Failure
from exaone_prep.cluster.order import Answer, Order
from exaone_prep.pool import WorkerLostError

LOOK_EVERY_S: Final = 0.5
STOP_WITHIN_S: Final = 20.0
"""From being asked to stop until being killed; a process that is in the middle of an upload may need it."""

_ENTRY: Final = "from exaone_prep.cluster.builder import main; main()"
_WANTED: Final = frozenset({"executing", "long-running"})


def build_group(order: Order) -> Answer:
    """Build one group with as many processes as this Dask worker has threads."""
    worker = get_worker()
    key = worker.get_current_task()
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(  # noqa: S603 (our own interpreter and entry)
        [sys.executable, "-c", _ENTRY, str(theirs.fileno()), str(os.getpid())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        env={**os.environ, **one_thread_each()},
    )
    theirs.close()
    connection: Connection[Any, Any] = Connection(ours.detach())
    try:
        connection.send(replace(order, workers=worker.state.nthreads))
        while not connection.poll(LOOK_EVERY_S):
            if not _is_wanted(worker, key):
                return _lost(order, "stopped with its Dask worker")
        answer: Answer = connection.recv()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        code = process.wait()
        return _lost(order, f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")
    else:
        return answer
    finally:
        connection.close()
        _end(process)


def _is_wanted(worker: Worker, key: Key) -> bool:
    """Not when the driver has cancelled the task or is gone, nor when this worker closes."""
    task = worker.state.tasks.get(key)
    return worker.status in {Status.running, Status.paused} and task is not None and task.state in _WANTED


def _lost(order: Order, how: str) -> Failure:
    sentence = (
        f"The process that built group {order.group} on {socket.gethostname()} was lost ({how}): "
        "out of memory, or ended from outside?"
    )
    return Failure(error=WorkerLostError(sentence), trace="", log_tail="")


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=LOOK_EVERY_S)  # after its answer it only has to tidy up
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        process.wait(timeout=STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
