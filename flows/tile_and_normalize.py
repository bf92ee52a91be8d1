"""The flow `tile-and-normalize`: catalog → groups → publish → verify, as `exaone-prep build` and `verify` do it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from uuid import UUID

from prefect import get_run_logger
from prefect.runtime import flow_run
from pydantic import Field

from exaone_prep.budget import default_workers
from exaone_prep.dataset import Dataset, create_dataset, open_dataset
from exaone_prep.manifest_file import open_manifest
from exaone_prep.outcomes import earlier
from exaone_prep.progress import Heartbeat, Progress
from exaone_prep.publish import read_build
from exaone_prep.site import Site, build_missing, open_site
from exaone_prep.verify import Depth, verify
from flows.artifacts import show_outcomes, show_verification
from flows.crashed import claim
from flows.served import absolute, served_flow
from flows.sight import Sight


@served_flow("tile-and-normalize")
def tile_and_normalize(
    manifest: Annotated[str, Field(description="The manifest: an absolute path on the worker's machine, or a URL.")],
    out: Annotated[str, Field(description="Data set directory to create or to go on with: absolute path or URL.")],
    settings: Annotated[
        dict[str, str], Field(description="Single settings laid over the manifest, such as stain.fit: patch.")
    ] = {},  # noqa: B006 (Prefect shows it as the default, nobody changes it)
    after: Annotated[str | None, Field(description="Build only slides that this data set has not done.")] = None,
    dask: Annotated[
        str | None, Field(description="Where groups are built: tcp://host:port of a Dask scheduler, or local.")
    ] = None,
    workers: Annotated[
        int | None, Field(ge=1, description="Processes at work here; by default as cores and free memory allow.")
    ] = None,
    scratch: Annotated[str | None, Field(description="Local working space where groups are built.")] = None,
    scratch_limit: Annotated[str | None, Field(description="Most bytes there, such as 200GB.")] = None,
    depth: Annotated[Depth, Field(description="How deep the data set is verified at the end.")] = "full",
) -> str:
    """Build a data set and verify it; run again, it goes on with what is missing.

    Returns:
        The digest.
    """
    processes = workers or default_workers()
    chosen, base = open_manifest(absolute(manifest, "manifest"), settings)
    folder = None if scratch is None else Path(absolute(scratch, "scratch"))
    before = None if after is None else earlier(open_dataset(absolute(after, "after")))
    with open_site(dask=dask, workers=processes, scratch=folder, scratch_limit=scratch_limit) as site:
        site.check(chosen)
        dataset = create_dataset(absolute(out, "out"), chosen, base=base, after=before)
        build(dataset, site)
    result = verify(open_dataset(dataset.storage.url), depth, workers=processes)
    show_verification(dataset, result)
    result.check()
    return result.digest


def build(dataset: Dataset, site: Site) -> None:
    """Build what is missing of a data set, in sight of Prefect."""
    logger = get_run_logger()
    for warning in dataset.catalog.metadata.warnings:
        logger.warning(warning)
    progress = Progress()
    with Heartbeat(dataset.storage, progress):
        run_id = UUID(flow_run.get_id())
        for dead in claim(dataset, run_id):
            logger.warning("Flow run %s was left by a process that is gone: it has crashed, this one goes on.", dead)
        if read_build(dataset.storage) is None:
            with Sight(run_id, progress, logger) as sight:
                build_missing(dataset, site, progress, sight.watch)
    show_outcomes(dataset)
