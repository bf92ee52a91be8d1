"""Groups on the workers of a Dask cluster, one at a time on each; Dask moves and repeats nothing by itself."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from distributed import Client, Future
from distributed.client import ClosedClientError
from distributed.scheduler import KilledWorker

from exaone_prep import layout
from exaone_prep.build import Failure, Watch
from exaone_prep.cluster.order import Answer, Order, Refused
from exaone_prep.cluster.task import build_group
from exaone_prep.dataset import Dataset
from exaone_prep.errors import DatasetError, PrepError, UnreachableError
from exaone_prep.pool import WorkerLostError
from exaone_prep.progress import Progress

LOOK_EVERY_S: Final = 0.1
COUNT_WORKERS_EVERY_S: Final = 1.0
FETCH_WITHIN_S: Final = 30.0
_ENDED: Final = frozenset({"finished", "error", "cancelled", "lost"})


@dataclass
class DaskExecutor:
    """Gives each worker of a cluster one group at a time, and the next one when that has ended.

    A group is bound to the worker it is given to: what dies with the worker comes back as a failure, and the driver
    decides. Workers may come and go; those that cannot build this data set are left out.

    Attributes:
        client: Of the cluster.
        dataset: Of which the groups are.
        order: What every worker is told, but for the group.
        progress: Is kept up to date.
        watch: Is told what happens.
    """

    client: Client
    dataset: Dataset
    order: Order
    progress: Progress
    watch: Watch
    _refused: dict[str, str] = field(default_factory=dict)
    _running: dict[str, tuple[int, Future[Answer]]] = field(default_factory=dict)
    _counted: float = 0.0
    _workers: frozenset[str] = frozenset()
    _address: str = ""

    def __post_init__(self) -> None:
        self._address = str(self.client.scheduler.address) if self.client.scheduler else "?"

    def run(self, groups: Sequence[int]) -> Iterator[tuple[int, Failure | None]]:
        """See `exaone_prep.build.Executor`.

        Raises:
            UnreachableError: The scheduler cannot be reached any more.
            DatasetError: No worker can build this data set.
        """
        waiting = deque(groups)
        try:
            while waiting or self._running:
                try:
                    self._count_workers()
                except OSError as error:
                    yield from self._all_lost()
                    raise UnreachableError(
                        f"The Dask scheduler at {self._address} was lost; what is committed is kept: "
                        "start it and run the same command again."
                    ) from error
                for worker in sorted(self._workers - self._refused.keys() - self._running.keys()):
                    if waiting:
                        self._start(worker, waiting.popleft())
                for worker, (group, future) in list(self._running.items()):
                    if future.status not in _ENDED and worker in self._workers:
                        continue
                    del self._running[worker]
                    answer = self._answer(group, worker, future)
                    if isinstance(answer, Refused):
                        self._refuse(worker, answer)
                        waiting.appendleft(group)
                    else:
                        self.progress.groups_done += answer is None
                        yield group, answer
                self._say_how_it_stands()
                time.sleep(LOOK_EVERY_S)
        finally:
            self._cancel()

    def _count_workers(self) -> None:
        now = time.monotonic()
        if self.client.status == "closed":  # by itself, when it has looked for its scheduler in vain
            raise ConnectionError
        if now - self._counted >= COUNT_WORKERS_EVERY_S:
            self._workers = frozenset(self.client.nthreads())
            self._counted = now

    def _start(self, worker: str, group: int) -> None:
        self.watch.on_start(group)
        order = replace(self.order, group=group)
        self._running[worker] = (
            group,
            self.client.submit(
                build_group,
                order,
                key=f"group-{group:06d}-{secrets.token_hex(4)}",
                workers=[worker],
                allow_other_workers=False,
                retries=0,
                pure=False,
            ),
        )

    def _answer(self, group: int, worker: str, future: Future[Answer]) -> Answer:
        error: BaseException | None = None
        if future.status in {"finished", "error"}:
            try:
                return future.result(timeout=FETCH_WITHIN_S)
            except KilledWorker:
                pass
            except ModuleNotFoundError as missing:
                return Refused(f"{worker}: {missing}; install the same environment on it.")
            except Exception as raised:  # noqa: BLE001 (whatever befell the worker is how the attempt ended)
                error = raised
        self._forget([future])
        if self._is_committed(group):  # only the answer was lost
            return None
        return _lost(group, worker, error)

    def _is_committed(self, group: int) -> bool:
        return self.dataset.storage.size(layout.ledger(group)) is not None

    def _refuse(self, worker: str, answer: Refused) -> None:
        self._refused[worker] = answer.sentence
        if not self._running and self._workers <= self._refused.keys():
            raise DatasetError(f"No worker of the Dask cluster can build this data set. {answer.sentence}")
        self.watch.say(f"The Dask worker {worker} is left out. {answer.sentence}")

    def _all_lost(self) -> Iterator[tuple[int, Failure | None]]:
        running, self._running = self._running, {}
        for worker, (group, _) in running.items():
            yield group, None if self._is_committed(group) else _lost(group, worker, None)

    def _say_how_it_stands(self) -> None:
        usable = len(self._workers - self._refused.keys())
        if not usable and self.progress.stage != "wait":
            self.watch.say(f"The Dask scheduler at {self._address} has no worker that can build; waiting for one.")
        self.progress.stage = f"{len(self._running)} on {usable} workers" if usable else "wait"

    def _cancel(self) -> None:
        """Let the workers stop what is not wanted any more: they see it within a second."""
        running, self._running = self._running, {}
        if running:
            self._forget([future for _, future in running.values()])

    def _forget(self, futures: list[Future[Answer]]) -> None:
        with contextlib.suppress(OSError, ClosedClientError):
            self.client.cancel(futures, force=True)


def _lost(group: int, worker: str, error: BaseException | None) -> Failure:
    why = "it died, or its machine did" if error is None else f"{type(error).__name__}: {error}"
    sentence = f"The Dask worker {worker} was lost while it built group {group} ({why}); out of memory, or a lost node?"
    lost: PrepError = WorkerLostError(sentence)
    return Failure(error=lost, trace="", log_tail="")
