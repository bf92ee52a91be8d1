"""The flow `verify-shards`: as `exaone-prep verify` does it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from exaone_prep.budget import default_workers
from exaone_prep.dataset import open_dataset
from exaone_prep.verify import Depth, verify
from flows.artifacts import show_verification
from flows.served import absolute, served_flow


@served_flow("verify-shards")
def verify_shards(
    dataset: Annotated[str, Field(description="Data set directory: an absolute path or a URL.")],
    depth: Annotated[
        Depth, Field(description="quick: sizes; full: checksums, index and tar as well; deep: every image as well.")
    ] = "full",
    workers: Annotated[int | None, Field(ge=1, description="Shards read at a time; by default one per core.")] = None,
) -> str:
    """Check a data set against its ledger, its index and its digest; damage fails the flow.

    Returns:
        The digest.
    """
    found = open_dataset(absolute(dataset, "dataset"))
    result = verify(found, depth, workers=workers or default_workers())
    show_verification(found, result)
    result.check()
    return result.digest
