"""The process in which a worker of a cluster builds one group: what `exaone-prep build` is, for a single group.

A process of its own can be ended at any moment, gives all memory back, and takes nothing along when it dies; the
Dask worker above it only waits. It is told its order over a socket and answers there.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
from dataclasses import replace
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, NoReturn

from exaone_prep.build import Failure, Watch
from exaone_prep.cluster.order import Answer, Order, Refused
from exaone_prep.errors import DatasetError, ManifestError, PrepError
from exaone_prep.pool import WorkerPool, nameless_log
from exaone_prep.scratch import open_scratch
from exaone_prep.site import Here
from exaone_prep.worker import die_with


class _Ended(BaseException):
    """The Dask worker does not want the group any more."""


def build(order: Order) -> Answer:
    """Build a group, and say how it ended."""
    with nameless_log() as log, WorkerPool(order.workers, log) as pool:
        pool.start_ahead()
        try:
            return _build(order, pool)
        except (PrepError, OSError) as error:  # before an attempt: a store that does not answer, say
            return Failure(error=error, trace="", log_tail="")


def _build(order: Order, pool: WorkerPool) -> Answer:
    from exaone_prep.control import Control
    from exaone_prep.dataset import open_dataset
    from exaone_prep.environment import describe, in_words, pixel_versions
    from exaone_prep.progress import Heartbeat, Progress
    from exaone_prep.stain.device import resolved

    site = Here(pool=pool, folder=order.folder, limit_bytes=order.limit_bytes, builder=order.builder)
    try:
        dataset = replace(open_dataset(order.url, private=True), device=order.device)
        versions = pixel_versions(dataset.manifest)
        if dataset.manifest.stain.method == "macenko":
            resolved(dataset.stain_device, by=f"{order.url} asks for stain.device: gpu")
    except (DatasetError, ManifestError) as error:
        return Refused(f"{socket.gethostname()}: {error}")
    if dataset.catalog.content_id != order.content_id:
        return Refused(f"{socket.gethostname()}: {order.url} is another data set there.")
    if versions != dataset.versions:
        return Refused(
            f"{order.url} was begun with other versions of the packages that touch pixels, in this environment: "
            f"{in_words(dataset.environment)}; this worker has {in_words(describe(versions))}. "
            "Install the same on it."
        )
    progress = Progress(groups=1)
    root, data = site.scratch_root(dataset), dataset.storage.local
    stopped = Control(dataset.storage, order.builder).check
    with (
        open_scratch(root, site.limit_bytes, data, say=_say, check=stopped) as scratch,
        Heartbeat(dataset.storage, progress),
        site.executor(dataset, scratch, progress, Watch(say=_say)) as executor,
    ):
        ((_, failure),) = executor.run([order.group])
        return failure


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Ended


def main() -> None:
    """Entry point of the process; its arguments are the number of the socket and its parent.

    The parent tells: it may be dead before this process could ask who it was.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # sent to all processes of a terminal; the driver decides
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=die_with, args=(int(sys.argv[2]),), daemon=True).start()
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    try:
        connection.send(build(connection.recv()))
    except (_Ended, BrokenPipeError, ConnectionResetError):
        sys.exit(1)
