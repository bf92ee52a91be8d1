"""A Dask cluster as the place where groups are built: one that runs somewhere, or one on this machine."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from exaone_prep.errors import ManifestError, UnreachableError
from exaone_prep.scratch import TEMPORARY

if TYPE_CHECKING:
    from exaone_prep.build import Executor, Watch
    from exaone_prep.dataset import Dataset
    from exaone_prep.manifest import Manifest
    from exaone_prep.progress import Progress
    from exaone_prep.scratch import Scratch

LOCAL: Final = "local"
CONNECT_WITHIN_S: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Dask cluster.

    Attributes:
        address: Of its scheduler, such as ``tcp://host:8786``; `local`: one is started on this machine.
        workers: Processes at work in all, of a local one; elsewhere the threads of each Dask worker decide.
        folder: Local working space on every worker's machine; None: see `exaone_prep.site.default_scratch`.
        limit_bytes: Of what all builders on one machine may need together there.
    """

    address: str
    workers: int
    folder: Path | None = None
    limit_bytes: int | None = None

    def check(self, manifest: Manifest) -> None:
        """See `exaone_prep.site.Site`; whether there is a GPU is the workers' business."""

    def scratch_root(self, dataset: Dataset) -> Path:
        """See `exaone_prep.site.Site`; this process only publishes."""
        del dataset
        return TEMPORARY

    @contextlib.contextmanager
    def executor(self, dataset: Dataset, scratch: Scratch, progress: Progress, watch: Watch) -> Iterator[Executor]:
        """See `exaone_prep.site.Site`.

        Raises:
            ManifestError: Dask is not installed.
            UnreachableError: There is no scheduler at the address.
        """
        del scratch
        try:
            import dask
            from distributed import Client
        except ImportError as error:
            raise ManifestError("--dask needs the extra `flows`, which is not installed.") from error
        from exaone_prep.cluster.executor import DaskExecutor
        from exaone_prep.cluster.order import Order
        from exaone_prep.control import tasks_that_stop

        # The driver owns all retries. A scheduler that runs elsewhere has settings of its own; there it is enough that
        # each group is bound to its worker.
        with (
            dask.config.set({"distributed.scheduler.allowed-failures": 0}),
            self._scheduler() as scheduler,
            tasks_that_stop(dataset.storage) as builder,
        ):
            order = Order(
                group=-1,
                url=dataset.storage.url,
                content_id=dataset.catalog.content_id,
                builder=builder,
                workers=self.workers,
                device=dataset.device,
                folder=self.folder,
                limit_bytes=self.limit_bytes,
            )
            # A scheduler that is lost is a sentence of the executor; the client logs how its tries to reach it failed.
            logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
            try:
                client = Client(scheduler, timeout=CONNECT_WITHIN_S, set_as_default=False)
            except (OSError, ValueError) as error:
                raise UnreachableError(f"There is no Dask scheduler at {self.address}: {error}.") from error
            with client:
                yield DaskExecutor(client=client, dataset=dataset, order=order, progress=progress, watch=watch)

    @contextlib.contextmanager
    def _scheduler(self) -> Iterator[Any]:
        if self.address != LOCAL:
            yield self.address
            return
        from distributed import LocalCluster
        from distributed.deploy.utils import nprocesses_nthreads

        logging.getLogger("distributed").setLevel(logging.ERROR)  # Prefect turns it on
        processes, threads = nprocesses_nthreads(self.workers)
        with LocalCluster(
            n_workers=processes,
            threads_per_worker=threads,
            dashboard_address=None,
            memory_limit=0,  # it would watch the wrong process: children decode
            silence_logs=logging.ERROR,
        ) as cluster:
            yield cluster
