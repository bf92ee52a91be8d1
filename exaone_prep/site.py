"""Where the groups of a data set are built: on this machine, or on a Dask cluster. What is built does not depend on it.

Little is imported before it is needed: workers that are started ahead import meanwhile what slides need.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from exaone_prep.pool import WorkerPool, nameless_log
from exaone_prep.scratch import TEMPORARY, Scratch, open_scratch

if TYPE_CHECKING:
    from exaone_prep.build import Executor, Watch
    from exaone_prep.dataset import Dataset
    from exaone_prep.manifest import Manifest
    from exaone_prep.progress import Progress


class Site(Protocol):
    """Where groups are built."""

    @property
    def limit_bytes(self) -> int | None:
        """Of what all builders under the scratch may need together."""

    def check(self, manifest: Manifest) -> None:
        """Refuse, before anything is written, what cannot be built here."""

    def scratch_root(self, dataset: Dataset) -> Path:
        """Where this process has its working space."""

    def executor(
        self, dataset: Dataset, scratch: Scratch, progress: Progress, watch: Watch
    ) -> AbstractContextManager[Executor]:
        """What runs groups, until the block ends."""


@dataclass(frozen=True, kw_only=True)
class Here:
    """This machine: one group after the other, its slides in parallel.

    Attributes:
        pool: Processes that decode.
        folder: Local working space; None: see `default_scratch`.
        limit_bytes: Of what all builders there may need together; None: what the disk holds.
        builder: Whose stop key ends it (`exaone_prep.control`); None: a driver of its own, which ends by signals.
    """

    pool: WorkerPool
    folder: Path | None = None
    limit_bytes: int | None = None
    builder: str | None = None

    def check(self, manifest: Manifest) -> None:
        """See `Site`."""
        from exaone_prep.stain.device import resolved

        if manifest.stain.method == "macenko":
            resolved(manifest.stain.device)

    def scratch_root(self, dataset: Dataset) -> Path:
        """See `Site`."""
        return self.folder or default_scratch(dataset)

    @contextmanager
    def executor(self, dataset: Dataset, scratch: Scratch, progress: Progress, watch: Watch) -> Iterator[Executor]:
        """See `Site`."""
        from exaone_prep.build import LocalExecutor
        from exaone_prep.control import Control, new_builder
        from exaone_prep.group import GroupBuilder
        from exaone_prep.stain.device import resolved

        if dataset.manifest.stain.method == "macenko":
            by = f"{dataset.storage.url} was begun with stain.device: gpu"
            dataset = replace(dataset, device=resolved(dataset.stain_device, by=by))
        self.pool.say = watch.say
        builder = GroupBuilder(
            dataset=dataset,
            pool=self.pool,
            scratch=scratch,
            progress=progress,
            say=watch.say,
            control=Control(dataset.storage, self.builder or new_builder()),
        )
        with closing(builder):
            yield LocalExecutor(builder, watch)


@contextmanager
def open_site(*, dask: str | None, workers: int, scratch: Path | None, scratch_limit: str | None) -> Iterator[Site]:
    """The site that a person asked for.

    Args:
        dask: Address of a Dask scheduler, `local` for a cluster on this machine; None: without Dask.
        workers: Processes that decode; on a cluster of others, their threads decide.
        scratch: Local working space.
        scratch_limit: Most bytes there, such as ``200GB``.

    Raises:
        ManifestError: The limit is no size, or Dask is asked for and not installed.
    """
    if dask is None:
        with nameless_log() as log, WorkerPool(workers, log) as pool:
            pool.start_ahead()
            yield Here(pool=pool, folder=scratch, limit_bytes=_bytes(scratch_limit))
    else:
        from exaone_prep.cluster.site import Cluster

        yield Cluster(address=dask, workers=workers, folder=scratch, limit_bytes=_bytes(scratch_limit))


def build_missing(dataset: Dataset, site: Site, progress: Progress, watch: Watch) -> dict[str, Any]:
    """Build the groups that are missing, and publish.

    Returns:
        What `build.json` holds.

    Raises:
        PrepError, OSError: See `exaone_prep.build.run`.
    """
    from exaone_prep.build import missing_groups, run
    from exaone_prep.publish import publish

    groups = missing_groups(dataset)
    progress.groups, progress.groups_done = len(dataset.groups), len(dataset.groups) - len(groups)
    root, data = site.scratch_root(dataset), dataset.storage.local
    with open_scratch(root, site.limit_bytes, data, say=watch.say) as scratch:
        with site.executor(dataset, scratch, progress, watch) as executor:
            run(groups, executor, dataset, watch)
        return publish(dataset, scratch)


def default_scratch(dataset: Dataset) -> Path:
    """Beside the shards, where there must be room for them anyway; for remote data sets in the temporary folder."""
    local = dataset.storage.local
    # Staged copies keep the names of their slides, which a data set with hashed ids must never hold.
    return TEMPORARY if local is None or dataset.names.hidden else local / ".scratch"


def _bytes(text: str | None) -> int | None:
    from exaone_prep.need import parse_bytes

    return None if text is None else parse_bytes(text)
