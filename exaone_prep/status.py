"""How far a data set is, from its ledger, heartbeats and attempts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from exaone_prep import control, layout
from exaone_prep.dataset import Dataset
from exaone_prep.ledger import read_ledger, shards_digest
from exaone_prep.progress import read_heartbeat
from exaone_prep.publish import read_build, read_verification

State = Literal["complete", "paused", "running", "stopped"]
ALIVE_S: Final = 60.0
"""A heartbeat older than this is that of a dead builder."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a data set is.

    Attributes:
        state: `complete`: published; `paused`: by a person; `running`: a builder showed itself within a minute;
            `stopped`: none of these.
        build_id: The content id.
        digest: Of the shards committed so far.
        slides: Count per outcome, and `waiting` for those without one yet.
        bytes: Of all shards.
    """

    state: State
    build_id: str
    digest: str
    slides: dict[str, int]
    groups: dict[str, int]
    samples: int
    shards: int
    bytes: int
    dropped: dict[str, int]
    attempts_failed: int
    workers: list[dict[str, Any]] = field(default_factory=list)
    verified: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def status_of(dataset: Dataset) -> Status:
    """Read how far a data set is."""
    storage = dataset.storage
    records = read_ledger(storage)
    outcomes: Counter[str] = Counter({"done": 0, "empty": 0, "quarantined": 0})
    dropped: Counter[str] = Counter()
    for record in records:
        outcomes.update(record.outcomes)
        dropped.update(record.dropped)
    outcomes["quarantined"] += sum(row.duplicate_of is not None for row in dataset.catalog.rows)
    outcomes["waiting"] = len(dataset.catalog.rows) - sum(outcomes.values())
    workers = _heartbeats(dataset)
    return Status(
        state=state_of(
            complete=read_build(storage) is not None,
            paused=lambda: control.is_paused(storage),
            alive=any(worker["age_s"] < ALIVE_S for worker in workers),
        ),
        build_id=dataset.catalog.content_id,
        digest=shards_digest(records),
        slides=dict(outcomes),
        groups={"done": len(records), "total": len(dataset.groups)},
        samples=sum(record.samples for record in records),
        shards=sum(len(record.shards) for record in records),
        bytes=sum(record.shard_bytes for record in records),
        dropped=dict(sorted(dropped.items())),
        attempts_failed=len(storage.names(layout.ATTEMPTS)),
        workers=workers,
        verified=read_verification(storage),
    )


def state_of(*, complete: bool, paused: Callable[[], bool], alive: bool) -> State:
    """What a build is at.

    Args:
        complete: Whether it is published.
        paused: Asked only of one that is not complete.
        alive: Whether a builder showed itself within `ALIVE_S`.
    """
    if complete:
        return "complete"
    if paused():
        return "paused"
    return "running" if alive else "stopped"


def _heartbeats(dataset: Dataset) -> list[dict[str, Any]]:
    found = []
    for name in dataset.storage.names(layout.PROGRESS):
        beat = read_heartbeat(dataset.storage, name.removesuffix(".json"))
        if beat is not None:
            found.append({**beat, "age_s": round(max(0.0, time.time() - beat["time"]), 1)})
    return found
