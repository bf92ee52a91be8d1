"""Verification: is what lies in a data set what its ledger says, and can it be read?"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from posixpath import dirname
from typing import Any, Final, Literal

import pyarrow as pa

from exaone_prep import layout
from exaone_prep.codec import decode
from exaone_prep.dataset import Dataset
from exaone_prep.errors import DatasetError, VerificationError
from exaone_prep.ledger import FileRecord, GroupRecord, ShardEntry, index_digest, read_ledger, shards_digest
from exaone_prep.publish import read_build, read_verification
from exaone_prep.shards.index import read_shard_tables, values_sha256
from exaone_prep.shards.sample import EXTENSIONS, sample_json, sample_key
from exaone_prep.shards.tar import BLOCK_BYTES
from exaone_prep.storage import Storage

Depth = Literal["quick", "full", "deep"]
MOST_SHOWN: Final = 5


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What a verification found.

    Attributes:
        problems: A sentence each; empty if all is well.
    """

    depth: Depth
    digest: str
    shards: int
    samples: int
    bytes: int
    problems: tuple[str, ...]

    def check(self) -> None:
        """Raise `VerificationError` if there is a problem."""
        if self.problems:
            more = len(self.problems) - MOST_SHOWN
            tail = f" {more} more stand in {layout.VERIFICATION}." if more > 0 else ""
            raise VerificationError(" ".join(self.problems[:MOST_SHOWN]) + tail)


def verify(
    dataset: Dataset,
    depth: Depth = "full",
    *,
    workers: int = 1,
    on_shard: Callable[[int, int], None] | None = None,
) -> Verification:
    """Verify a complete data set and keep the result in `verification.json`.

    Args:
        dataset: To be read; needs no slide and no clear name.
        depth: `quick`: every file has its size. `full`: checksums, index and tar agree as well. `deep`: every image
            is decoded and every JSON compared with the index.
        workers: Shards read at a time.
        on_shard: Called after each shard with how many are done and how many there are.

    Raises:
        DatasetError: The build is not complete.
    """
    build = read_build(dataset.storage)
    if build is None:
        raise DatasetError(f"{dataset.storage.url} is not complete; run its build again before it is verified.")
    records = read_ledger(dataset.storage)
    sizes = _listed_sizes(dataset.storage, records)
    problems = list(_ledger_problems(dataset, records, build, sizes))
    total = sum(len(record.shards) for record in records)
    done = 0
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for record in records:
            problems += _group_problems(dataset.storage, record, sizes, quick=depth == "quick")
            tables = _index_tables(dataset.storage, record, problems) if depth != "quick" else None
            check = partial(_shard_problems, dataset, record, tables, sizes, depth)
            for found in pool.map(lambda shard, check=check: list(check(shard)), record.shards):
                problems += found
                done += 1
                if on_shard is not None:
                    on_shard(done, total)
    result = Verification(
        depth=depth,
        digest=shards_digest(records),
        shards=total,
        samples=sum(record.samples for record in records),
        bytes=sum(record.shard_bytes for record in records),
        problems=tuple(problems),
    )
    _keep(dataset.storage, result)
    return result


def ensure_verified(dataset: Dataset) -> dict[str, Any]:
    """The last verification of a data set, if whoever reads its shards may rely on it.

    Returns:
        What `verification.json` holds.

    Raises:
        DatasetError: There is none, it found damage, was only quick, or the data set is another one by now.
    """
    where = dataset.storage.url
    last = read_verification(dataset.storage)
    if last is None:
        raise DatasetError(f"{where} was not verified yet: run `exaone-prep verify` on it.")
    build = read_build(dataset.storage)
    if build is None or build["digest"] != last["digest"]:
        raise DatasetError(f"{where} was verified before it was what it is now: run `exaone-prep verify` on it.")
    if last["problems"]:
        raise DatasetError(f"{where} is damaged, says its last verification: {last['problems'][0]}")
    if last["depth"] == "quick":
        raise DatasetError(f"Of {where} only sizes were verified: run `exaone-prep verify` without --quick.")
    return last


def _keep(storage: Storage, result: Verification) -> None:
    document = {**vars(result), "time": time.time(), "problems": list(result.problems)[:1000]}
    storage.replace(layout.VERIFICATION, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())


def _listed_sizes(storage: Storage, records: Sequence[GroupRecord]) -> dict[str, int]:
    """Bytes by path of all that the ledger speaks of: a listing for 1,000 files instead of a request for each."""
    paths = (
        path
        for record in records
        for path in (
            layout.shard(record.split, ""),
            layout.index(record.split, record.group),
            layout.survey(record.group),
            layout.slides(record.group),
        )
    )
    folders = sorted({dirname(path) for path in paths})
    return {f"{folder}/{name}": size for folder in folders for name, size in storage.sizes(folder).items()}


def _ledger_problems(
    dataset: Dataset, records: Sequence[GroupRecord], build: dict[str, Any], sizes: Mapping[str, int]
) -> Iterator[str]:
    missing = set(dataset.groups) - {record.group for record in records}
    if missing:
        yield f"Groups {sorted(missing)[:MOST_SHOWN]} of the catalog have no ledger entry."
    for record in records:
        if record.content_id != dataset.catalog.content_id:
            yield f"{layout.ledger(record.group)} belongs to another data set (content id {record.content_id[:12]}…)."
    if build["digest"] != shards_digest(list(records)):
        yield f"The digest of {layout.BUILD} is not that of the ledger."
    if build["index_digest"] != index_digest(list(records)):
        yield f"The index digest of {layout.BUILD} is not that of the ledger."
    known = {layout.shard(record.split, shard.name) for record in records for shard in record.shards}
    for path in sorted(sizes):
        if path.startswith("shards/") and path.endswith(".tar") and path not in known:
            yield f"{path} is in no ledger entry."


def _group_problems(storage: Storage, record: GroupRecord, sizes: Mapping[str, int], *, quick: bool) -> Iterator[str]:
    files: list[tuple[str, FileRecord]] = [
        (layout.index(record.split, record.group), record.index),
        (layout.survey(record.group), record.survey),
        (layout.slides(record.group), record.slides),
    ]
    for path, expected in files:
        wrong = _size_problem(path, expected, sizes)
        if wrong is not None:
            yield wrong
        elif not quick and storage.sha256(path) != expected.sha256:
            yield f"{path} has another checksum than the ledger says."


def _index_tables(storage: Storage, record: GroupRecord, problems: list[str]) -> dict[str, pa.Table] | None:
    """The index of a group by shard, None without one; what is wrong with it goes to `problems`."""
    path = layout.index(record.split, record.group)
    try:
        tables = read_shard_tables(storage.read(path))
    except FileNotFoundError:
        return None  # said already, with the other files of the group
    except pa.ArrowException as error:
        problems.append(f"{path} cannot be read as Parquet: {str(error).splitlines()[0].rstrip('.')}.")
        return None
    if values_sha256(tables) != record.index.values_sha256:
        problems.append(f"{path} holds other values than the ledger says.")
    return {table.column("shard")[0].as_py(): table for table in tables if table.num_rows}


def _size_problem(path: str, expected: FileRecord, sizes: Mapping[str, int]) -> str | None:
    if path not in sizes:
        return f"{path} is missing."
    if sizes[path] != expected.bytes:
        return f"{path} has {sizes[path]} bytes, the ledger says {expected.bytes}."
    return None


def _shard_problems(
    dataset: Dataset,
    record: GroupRecord,
    tables: Mapping[str, pa.Table] | None,
    sizes: Mapping[str, int],
    depth: Depth,
    shard: ShardEntry,
) -> Iterator[str]:
    path = layout.shard(record.split, shard.name)
    wrong = _size_problem(path, shard, sizes)
    if wrong is not None:
        yield wrong
    if wrong is not None or depth == "quick":
        return
    data = dataset.storage.read(path)
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        yield f"{path} has another checksum than the ledger says."
        return
    if tables is None:
        return
    rows = tables[shard.name].to_pylist() if shard.name in tables else []
    extension = EXTENSIONS[dataset.manifest.codec.format]
    yield from _tar_problems(path, data, rows, shard, extension)
    if depth == "deep":
        size_px = dataset.manifest.patch.size_px
        for row in rows:
            yield from _sample_problems(path, data, row, size_px)


def _tar_problems(
    path: str, data: bytes, rows: Sequence[dict[str, Any]], shard: ShardEntry, extension: str
) -> Iterator[str]:
    """Whether tar and index name the same members at the same places, in the same order."""
    if len(rows) != shard.samples:
        yield f"{path} has {len(rows)} rows in the index, {shard.samples} samples in the ledger."
    expected = []
    for row in rows:
        key = sample_key(row["slide_id"], row["x"], row["y"])
        expected.append((f"{key}.{extension}", row["image_offset"], row["image_size"]))
        expected.append((f"{key}.json", row["json_offset"], row["json_size"]))
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            found = [(member.name, member.offset + BLOCK_BYTES, member.size) for member in archive]
    except tarfile.TarError as error:
        yield f"{path} is not a whole tar: {error}."
        return
    if found != expected:
        differing = [a for a, b in zip(found, expected, strict=False) if a != b]
        yield f"{path} and its index do not agree, first at {(differing or found or expected)[0][0]}."


def _sample_problems(path: str, data: bytes, row: dict[str, Any], size_px: int) -> Iterator[str]:
    key = sample_key(row["slide_id"], row["x"], row["y"])
    try:
        image = decode(data[row["image_offset"] : row["image_offset"] + row["image_size"]])
    except ValueError as error:
        yield f"{path}: the image of {key} cannot be decoded: {error}."
    else:
        if image.shape != (size_px, size_px, 3):
            yield f"{path}: the image of {key} is {image.shape}, not {size_px}×{size_px}×3."
    expected = sample_json(
        slide_id=row["slide_id"],
        cohort=row["cohort"],
        x_px=row["x"],
        y_px=row["y"],
        level=row["level"],
        mpp=row["mpp"],
        tissue_fraction=row["tissue_fraction"],
        stain_status=row["stain_status"],
    )
    if data[row["json_offset"] : row["json_offset"] + row["json_size"]] != expected:
        yield f"{path}: the JSON of {key} is not what the index says."
