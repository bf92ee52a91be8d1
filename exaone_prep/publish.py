"""What a complete build leaves for its readers: derived tables, timm's shard list, `build.json` and the card."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from exaone_prep import control, layout
from exaone_prep.card import card
from exaone_prep.dataset import Dataset
from exaone_prep.errors import DatasetError
from exaone_prep.ledger import GroupRecord, Sums, index_digest, read_ledger, shards_digest
from exaone_prep.outcomes import STAIN_SCHEMA, SURVEY_COLUMNS, outcomes_table, read_surveys, stain_table
from exaone_prep.scratch import Scratch
from exaone_prep.steps import reach
from exaone_prep.storage import Storage, put_bytes


def publish(dataset: Dataset, scratch: Scratch) -> dict[str, Any]:
    """Complete a build all of whose groups are committed; safe to repeat, and by several builders at once.

    Returns:
        What `build.json` holds.

    Raises:
        DatasetError: Groups are missing.
    """
    storage = dataset.storage
    records = read_ledger(storage)
    missing = set(dataset.groups) - {record.group for record in records}
    if missing:
        raise DatasetError(f"{len(missing)} groups of {storage.url} are not built yet; run the build again.")
    outcomes = rebuild_tables(dataset, records)
    for split, info in shard_infos(records).items():
        storage.replace(layout.shard_info(split), _json(info))
    reach("derived-put")
    summary = summarise(dataset, records)
    text, picture = card(dataset, summary, outcomes)
    storage.replace(layout.CARD, text.encode())
    if picture is not None:
        storage.replace(layout.CARD_PICTURE, picture)
    reach("build-before")
    put_bytes(storage, layout.BUILD, _json(summary), scratch.path)
    reach("build-after")
    clear_traces(storage)
    return summary


def clear_traces(storage: Storage) -> None:
    """Take away what builders of a complete data set left in `progress/` and `control/`."""
    control.clear(storage)
    for name in storage.names(layout.PROGRESS):
        storage.remove(f"{layout.PROGRESS}/{name}")


def rebuild_tables(dataset: Dataset, records: Sequence[GroupRecord]) -> pa.Table:
    """Write `outcomes.parquet` and `stain.parquet` anew from survey and ledger; returns the outcomes."""
    columns = dict.fromkeys([*SURVEY_COLUMNS, *STAIN_SCHEMA.names])
    surveys = read_surveys(dataset, records, list(columns))
    outcomes = outcomes_table(dataset, surveys)
    dataset.storage.replace(layout.OUTCOMES, _parquet(outcomes))
    dataset.storage.replace(layout.STAIN, _parquet(stain_table(surveys)))
    return outcomes


def shard_infos(records: Sequence[GroupRecord]) -> dict[str, dict[str, Any]]:
    """Per split, what timm's WebDataset reader expects in `_info.json` beside the shards."""
    shards: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for record in records:
        shards[record.split] += [(shard.name, shard.samples) for shard in record.shards]
    return {
        split: {
            "splits": {
                split: {
                    "name": split,
                    # timm wants an integer label and drops a sample that has none: this field of the JSON is one.
                    "alt_label": "level",
                    "num_samples": sum(samples for _, samples in some),
                    "filenames": [name for name, _ in some],
                    "shard_lengths": [samples for _, samples in some],
                }
            }
        }
        for split, some in sorted(shards.items())
        if some
    }


def summarise(dataset: Dataset, records: Sequence[GroupRecord]) -> dict[str, Any]:
    """What `build.json` holds; follows from ledger and catalog alone, so that two builders write the same."""
    outcomes: dict[str, int] = defaultdict(int)
    dropped: dict[str, int] = defaultdict(int)
    statuses: dict[str, int] = defaultdict(int)
    splits: dict[str, dict[str, int]] = defaultdict(lambda: {"shards": 0, "samples": 0, "bytes": 0})
    for record in records:
        for counts, total in (
            (record.outcomes, outcomes),
            (record.dropped, dropped),
            (record.stain_statuses, statuses),
        ):
            for name, count in counts.items():
                total[name] += count
        splits[record.split]["shards"] += len(record.shards)
        splits[record.split]["samples"] += record.samples
        splits[record.split]["bytes"] += record.shard_bytes
    outcomes["quarantined"] += sum(row.duplicate_of is not None for row in dataset.catalog.rows)
    mean, std = channel_statistics([record.channels for record in records])
    return {
        "format_version": layout.FORMAT_VERSION,
        "name": dataset.manifest.name,
        "content_id": dataset.catalog.content_id,
        "digest": shards_digest(list(records)),
        "index_digest": index_digest(list(records)),
        "slides": dict(sorted(outcomes.items())),
        "groups": len(records),
        "planned": sum(record.planned for record in records),
        "samples": sum(record.samples for record in records),
        "shards": sum(len(record.shards) for record in records),
        "bytes": sum(record.shard_bytes for record in records),
        "splits": {name: dict(counts) for name, counts in sorted(splits.items())},
        "dropped": dict(sorted(dropped.items())),
        "stain_statuses": dict(sorted(statuses.items())),
        "channel_mean": mean,
        "channel_std": std,
        "versions": dataset.versions,
        "started": min((record.built["started"] for record in records), default=None),
        "ended": max((record.built["ended"] for record in records), default=None),
    }


def channel_statistics(sums: Sequence[Sums]) -> tuple[list[float] | None, list[float] | None]:
    """Mean and standard deviation per channel of all kept pixels, in 0–1 as torchvision's Normalize takes them."""
    pixels = sum(some.pixels for some in sums)
    if not pixels:
        return None, None
    mean, std = [], []
    for channel in range(3):
        first = sum(some.sums[channel] for some in sums)
        second = sum(some.squares[channel] for some in sums)
        mean.append(first / (255 * pixels))
        # Exact integers until the last step.
        variance = pixels * second - first * first
        std.append((variance / (pixels * pixels)) ** 0.5 / 255)
    return mean, std


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def read_build(storage: Storage) -> dict[str, Any] | None:
    """What `build.json` holds, None while the build is not complete."""
    try:
        return dict(json.loads(storage.read(layout.BUILD)))
    except FileNotFoundError:
        return None


def read_verification(storage: Storage) -> dict[str, Any] | None:
    """What `verification.json` holds, None where the data set was not verified yet."""
    try:
        return dict(json.loads(storage.read(layout.VERIFICATION)))
    except FileNotFoundError:
        return None


def in_a_sentence(build: dict[str, Any]) -> str:
    """What a complete build came to."""
    slides = build["slides"]
    return (
        f"{build['samples']:,} samples of {slides.get('done', 0):,} slides in {build['shards']:,} shards; "
        f"{slides.get('empty', 0)} slides empty, {slides.get('quarantined', 0)} quarantined "
        "(reasons in outcomes.parquet)."
    )
