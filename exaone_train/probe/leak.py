"""Whether an encoder was trained on patients that a task tests it with."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from exaone_train.errors import ProbeError
from exaone_train.probe.task import Task

BARCODE = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}", re.IGNORECASE)
HASHED = re.compile(r"[0-9a-f]{16}")


def patient_of(name: str) -> str | None:
    """The TCGA patient in a barcode, slide name or file name; None for none."""
    found = BARCODE.search(name)
    return found[0].upper() if found else None


def trained_on(catalogs: Sequence[Path]) -> frozenset[str]:
    """Patients and slides of the data sets with these catalogs (`catalog.parquet`, or the folder it lies in).

    Raises:
        ProbeError: One is not there or has not these columns.
    """
    ids: set[str] = set()
    for place in catalogs:
        path = place / "catalog.parquet" if place.is_dir() else place
        try:
            table = pq.ParquetFile(path, pre_buffer=False).read(columns=["patient_id", "slide_id"], use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise ProbeError(f"{path} cannot be read as a catalog of slides.") from error
        if set(table.column_names) != {"patient_id", "slide_id"}:
            raise ProbeError(f"{path} has no columns `patient_id` and `slide_id`.")
        for column in table.columns:
            ids.update(value for value in column.to_pylist() if value)
    return frozenset(ids)


def leak(task: Task, provenance: Collection[str] | None) -> str | None:
    """A sentence if an encoder may know a TCGA task's patients; None if it does not, or the task is not TCGA's.

    Args:
        task: To be probed.
        provenance: Patient or slide ids of the encoder's training data, or None if it does not say.
    """
    if not task.tcga or task.test.groups is None:
        return None
    if provenance is None:
        return f"{task.title} is TCGA, and the encoder does not say whom it was trained on: its figure may be too good."
    known = {patient for one in provenance if (patient := patient_of(one)) is not None}
    tested = {patient for one in task.test.groups.tolist() if (patient := patient_of(one)) is not None}
    both = known & tested
    if both:
        return (
            f"{task.title}: the encoder was trained on {len(both):,} of {len(tested):,} patients it is tested with, "
            f"such as {min(both)}: its figure is too good."
        )
    if not known and provenance and all(HASHED.fullmatch(one) for one in provenance):
        return f"{task.title} is TCGA, and the encoder's patients have hashed ids: its figure may be too good."
    return None
