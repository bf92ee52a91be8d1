"""The flow `verify-shards`: as `exaone-prep verify` does it."""

from typing import Annotated

from pydantic import Field

from exaone_prep.budget import default_workers
from exaone_prep.dataset import open_dataset
from exaone_prep.verify import Depth, verify
from flows.artifacts import show_verification
from flows.served import absolute, served_flow


@served_flow("verify-shards")
def verify_shards(dataset: str, depth: Depth = "full", workers: Annotated[int | None, Field(ge=1)] = None) -> str:
    """Check a data set against its ledger, its index and its digest; damage fails the flow.

    Args:
        dataset: Data set directory: an absolute path or an fsspec URL.
        depth: quick: sizes; full: checksums, and that index and tar agree, as well; deep: every image as well.
        workers: Shards read at a time; by default as cores and free memory allow.

    Returns:
        The digest.
    """
    found = open_dataset(absolute(dataset, "dataset"))
    result = verify(found, depth, workers=workers or default_workers())
    show_verification(found, result)
    result.check()
    return result.digest
