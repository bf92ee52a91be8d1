"""The flow `pretrain`: training on data sets that are verified."""

from typing import Annotated

from pydantic import Field

from exaone_prep.dataset import open_dataset
from exaone_prep.errors import PrepError
from exaone_prep.verify import ensure_verified
from flows.served import absolute, served_flow


class NoTrainerError(PrepError):
    """Nothing here can train yet."""


@served_flow("pretrain")
def pretrain(datasets: Annotated[list[str], Field(min_length=1)]) -> None:
    """Check that data sets are verified, and train on them.

    Args:
        datasets: Data set directories taken as one: absolute paths or fsspec URLs.

    Raises:
        DatasetError: One of them is not verified, or damaged.
        NoTrainerError: They are; `exaone_train` has no trainer yet.
    """
    samples = sum(ensure_verified(open_dataset(absolute(place, "datasets")))["samples"] for place in datasets)
    raise NoTrainerError(
        f"The data sets are verified ({samples:,} samples), but this version has no trainer to launch on them."
    )
