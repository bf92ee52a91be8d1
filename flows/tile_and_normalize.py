"""The flow `tile-and-normalize`: catalog → groups → publish → verify, as `exaone-prep build` and `verify` do it."""

from pathlib import Path
from typing import Annotated
from uuid import UUID

from prefect import get_run_logger
from prefect.runtime import flow_run
from pydantic import Field

from exaone_prep.budget import default_workers
from exaone_prep.catalog.overrides import read_overrides
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
    manifest: str,
    out: str,
    settings: dict[str, str] = {},  # noqa: B006 (shown as the default, and changed by nobody)
    after: str | None = None,
    overrides: str | None = None,
    dask: str | None = None,
    workers: Annotated[int | None, Field(ge=1)] = None,
    scratch: str | None = None,
    scratch_limit: str | None = None,
    depth: Depth = "full",
) -> str:
    """Build a data set and verify it; run again, it goes on with what is missing.

    Args:
        manifest: An absolute path on the machine of Prefect's worker, or an fsspec URL.
        out: Data set directory to create or to go on with: an absolute path or an fsspec URL.
        settings: Single settings laid over the manifest, by dotted names such as stain.fit.
        after: Build only slides that this data set has not done.
        overrides: Table of slide_id and mpp or allow_non_he, for these slides: an absolute path or an fsspec URL.
        dask: Where groups are built: tcp://host:port of a Dask scheduler, or local; by default without Dask.
        workers: Processes at work on this machine; by default as cores and free memory allow.
        scratch: Local working space where groups are built.
        scratch_limit: Most bytes there, such as 200GB; a group waits for room.
        depth: How the data set is verified at the end. quick: sizes; full: checksums; deep: every image as well.

    Returns:
        The digest.
    """
    processes = workers or default_workers()
    chosen, base = open_manifest(absolute(manifest, "manifest"), settings)
    folder = None if scratch is None else Path(absolute(scratch, "scratch"))
    before = None if after is None else earlier(open_dataset(absolute(after, "after")))
    corrections = None if overrides is None else read_overrides(absolute(overrides, "overrides"), Path.cwd())
    with open_site(dask=dask, workers=processes, scratch=folder, scratch_limit=scratch_limit) as site:
        site.check(chosen)
        dataset = create_dataset(absolute(out, "out"), chosen, base=base, after=before, overrides=corrections)
        build(dataset, site)
    # What Prefect is to show comes after what the data set is: the server may be gone by now.
    result = verify(open_dataset(dataset.storage.url), depth, workers=processes)
    show_outcomes(dataset)
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
