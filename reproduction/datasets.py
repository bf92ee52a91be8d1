"""Data sets of the same slides that differ in one setting, built as a person would build them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from reproduction.design import DATA_SETS, HELD_OUT, LABS, MPP, PATCH_PX, Places, ReproductionError, Size

SPLITS = ("train", HELD_OUT)


def write_manifest(places: Places, size: Size) -> None:
    """The manifest of all data sets. A round is a patient: one slide of every laboratory, all in one split."""
    document = {
        "name": "miniature",
        "cohorts": [
            {"name": f"lab-{lab}", "slides": [f"slides/lab-{lab}/*.tiff"], "patient_regex": r"p\d+"}
            for lab in range(LABS)
        ],
        "patch": {"size_px": PATCH_PX, "mpp": MPP, "stride_px": PATCH_PX},
        "shards": {"samples_per_shard": 1000},
        "splits": {HELD_OUT: size.held_out},
        "seed": size.split_seed,
    }
    places.manifest.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def build(places: Places, size: Size, names: Sequence[str], workers: int) -> None:
    """Build data sets; those that are there are left as they are.

    Raises:
        ReproductionError: One cannot be built; or they do not hold the same patches, or not those that were planned, so
            that nothing could be said by comparing them.
    """
    for name in names:
        words = [f"--set={field}={value}" for field, value in DATA_SETS[name].items()]
        command = ["build", str(places.manifest), "--out", str(places.data(name)), "--workers", str(workers), *words]
        ended = subprocess.run([sys.executable, "-m", "exaone_prep.cli", *command], check=False)  # noqa: S603
        if ended.returncode:
            raise ReproductionError(f"Building the data set {name} failed; what it says is above.")
    ensure_same_patches(places, names)
    ensure_planned(places, size, names[0])


def ensure_same_patches(places: Places, names: Sequence[str]) -> None:
    """Compare the patches of data sets, split by split, with those of the first.

    Raises:
        ReproductionError: They differ; or only their order or their shards do, though both are mixed alike.
    """
    first, *others = names
    for other in others:
        for split in SPLITS:
            one, two = (_rows(places, name, split) for name in (first, other))
            keys, others_keys = ({row[:3] for row in rows} for rows in (one, two))
            if alone := keys ^ others_keys:
                raise ReproductionError(
                    f"The data sets {first} and {other} do not hold the same patches of {split}: "
                    f"{len(alone & keys):,} are in the first alone and {len(alone - keys):,} in the second alone."
                )
            if one != two and _mixing(first) == _mixing(other):
                raise ReproductionError(f"The data sets {first} and {other} hold their patches in another order.")


def ensure_planned(places: Places, size: Size, name: str) -> None:
    """See that the slides that are held out are those of the design.

    Raises:
        ReproductionError: They are not.
    """
    found = set(index(places, name, HELD_OUT)["slide_id"].to_pylist())
    planned = {f"lab{lab}-p{one:04d}-s00" for lab in range(LABS) for one in size.held_out_rounds}
    if found != planned:
        raise ReproductionError(
            f"{len(found)} slides are held out in {places.data(name)}, not the {len(planned)} of the design."
        )


def index(places: Places, name: str, split: str) -> pa.Table:
    """The index of a split, in the order of its shards."""
    return pq.read_table(places.data(name) / "index" / split)


def _rows(places: Places, name: str, split: str) -> list[tuple[str, int, int, str]]:
    table = index(places, name, split)
    return list(zip(*(table[column].to_pylist() for column in ("slide_id", "x", "y", "shard")), strict=True))


def _mixing(name: str) -> str | None:
    return DATA_SETS[name].get("shards.slides_per_group")
