"""Key figures of data sets, from what is committed and what builders show: pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from exaone_prep.dashboard.committed import WAITING
from exaone_prep.dashboard.view import View
from exaone_prep.ledger import GroupRecord
from exaone_prep.status import State
from exaone_prep.survey_table import OUTCOMES

RECENT_GROUPS: Final = 20
"""The time that is left follows from so many groups, the latest."""
BINS: Final = 60

_ORDER: Final[tuple[State, ...]] = ("running", "paused", "stopped", "complete")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Key figures.

    Attributes:
        state: Of several data sets that which asks most for a look: running, paused, stopped, complete.
        groups: `done`, `running`, `failed` (an attempt failed, and nobody is at it now), `waiting`, `total`.
        slides: Per outcome, with `waiting`.
        patches_per_s: Now; None where no builder shows it.
        mean_patches_per_s: Over the time in which groups were built.
        busy_s: That time.
        eta_s: Until all groups are built, as fast as the latest were; None where that cannot be said.
        needed_bytes: Of shards still to come, by the sizes of the slides; None before the first group.
        free_bytes: The least of the disks; None in object stores.
    """

    state: State
    groups: dict[str, int]
    slides: dict[str, int]
    samples: int
    planned: int
    shards: int
    bytes: int
    dropped: dict[str, int]
    stain_statuses: dict[str, int]
    patches_per_s: float | None
    mean_patches_per_s: float | None
    busy_s: float
    eta_s: float | None
    builders: int
    silent_builders: int
    attempts_failed: int
    needed_bytes: int | None
    free_bytes: int | None


def figures_of(views: Sequence[View], slides: pa.Table, now: float) -> Figures:
    """Figures of data sets, taken as one.

    Args:
        views: At least one.
        slides: Of the scope that they are.
        now: Seconds since 1970.
    """
    records = [record for view in views for record in view.committed.records]
    groups = {
        "done": len(records),
        "running": sum(len(view.running) for view in views),
        "failed": sum(len(view.failed) for view in views),
    }
    total = sum(len(view.dataset.groups) for view in views)
    dropped: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    for record in records:
        dropped.update(record.dropped)
        statuses.update(record.stain_statuses)
    outcomes = counts_of(slides.column("outcome"))
    rates = [view.patches_per_s for view in views if view.patches_per_s is not None]
    busy_s = union_s((float(record.built["started"]), float(record.built["ended"])) for record in records)
    samples = sum(record.samples for record in records)
    left = [_left(view, now) for view in views]
    needed, free = [part[0] for part in left], [view.free_bytes for view in views if view.free_bytes is not None]
    etas = [eta for (_, eta), view in zip(left, views, strict=True) if view.state == "running"]
    return Figures(
        state=min((view.state for view in views), key=_ORDER.index),
        groups={**groups, "waiting": total - sum(groups.values()), "total": total},
        slides={name: outcomes.get(name, 0) for name in (*OUTCOMES, WAITING)},
        samples=samples,
        planned=sum(record.planned for record in records),
        shards=sum(len(record.shards) for record in records),
        bytes=sum(record.shard_bytes for record in records),
        dropped=dict(sorted(dropped.items())),
        stain_statuses=dict(sorted(statuses.items())),
        patches_per_s=sum(rates) if rates else None,
        mean_patches_per_s=samples / busy_s if busy_s > 0 else None,
        busy_s=busy_s,
        eta_s=max([eta for eta in etas if eta is not None]) if etas and None not in etas else None,
        builders=sum(worker.alive for view in views for worker in view.workers),
        silent_builders=sum(not worker.alive for view in views for worker in view.workers),
        attempts_failed=sum(view.attempts_failed for view in views),
        needed_bytes=sum(part for part in needed if part is not None) if None not in needed else None,
        free_bytes=min(free, default=None),
    )


def counts_of(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs; null is left out."""
    return {one["values"]: one["counts"] for one in pc.value_counts(column).to_pylist() if one["values"] is not None}


def union_s(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds that at least one of the spans (begin, end) covers."""
    covered, reached = 0.0, -np.inf
    for begin, end in sorted(spans):
        covered += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return float(covered)


def _left(view: View, now: float) -> tuple[int | None, float | None]:
    """Bytes of shards and seconds that are still to come: work goes with the size of slides."""
    slides, records = view.committed.slides, view.committed.records
    sizes = pa.TableGroupBy(slides.select(["group", "size_bytes"]), "group").aggregate([("size_bytes", "sum")])
    size_of = dict(zip(sizes.column("group").to_pylist(), sizes.column("size_bytes_sum").to_pylist(), strict=True))
    done = sum(size_of.get(record.group, 0) for record in records)
    left = sum(size_of.get(group, 0) for group in view.dataset.groups) - done
    if not left:
        return 0, 0.0
    if not done:
        return None, None
    recent = sorted(records, key=lambda record: -float(record.built["ended"]))[:RECENT_GROUPS]
    ended = float(recent[0].built["ended"])
    took_s = union_s((float(record.built["started"]), float(record.built["ended"])) for record in recent)
    recent_bytes = sum(size_of.get(record.group, 0) for record in recent)
    eta_s = max(0.0, left * took_s / recent_bytes - max(0.0, now - ended)) if recent_bytes else None
    return round(left * sum(record.shard_bytes for record in records) / done), eta_s


def cohorts_of(slides: pa.Table) -> list[dict[str, Any]]:
    """What became of the slides of each cohort: slides per outcome, patches, samples per stain status."""
    wanted = ["cohort", "outcome", "kept", *(name for name in slides.column_names if _is_stain(name))]
    sums = [(name, "sum") for name in wanted[2:]]
    grouped = slides.select(wanted).group_by(["cohort", "outcome"]).aggregate([("outcome", "count"), *sums]).to_pylist()
    rows: dict[str, dict[str, Any]] = {}
    for one in sorted(grouped, key=lambda one: str(one["cohort"])):
        row = rows.setdefault(
            one["cohort"],
            {
                "cohort": one["cohort"],
                "slides": 0,
                **dict.fromkeys((*OUTCOMES, WAITING), 0),
                "patches": 0,
                "stain": Counter(),
            },
        )
        row["slides"] += one["outcome_count"]
        row[one["outcome"]] += one["outcome_count"]
        row["patches"] += one["kept_sum"] or 0
        row["stain"].update({name[6:]: one[f"{name}_sum"] or 0 for name in wanted[3:]})
    return list(rows.values())


def _is_stain(name: str) -> bool:
    return name.startswith("stain_")


@dataclass(frozen=True)
class Timeline:
    """Progress over time.

    Attributes:
        edges: float64 (BINS + 1,), seconds since 1970.
        samples: float64 (BINS + 1,), committed until then, a group's spread evenly over the time it took.
    """

    edges: NDArray[np.float64]
    samples: NDArray[np.float64]

    @property
    def rates(self) -> NDArray[np.float64]:
        """float64 (BINS,): patches per second in each bin."""
        rates: NDArray[np.float64] = np.diff(self.samples) / np.diff(self.edges)
        return rates


def timeline(records: Sequence[GroupRecord]) -> Timeline | None:
    """Progress from the first group's begin to the last one's end; None where no group took any time."""
    spans = np.array([(record.built["started"], record.built["ended"], record.samples) for record in records])
    if not len(spans) or spans[:, 1].max() <= spans[:, 0].min():
        return None
    edges = np.linspace(spans[:, 0].min(), spans[:, 1].max(), BINS + 1)
    long_s = np.maximum(spans[:, 1] - spans[:, 0], 1e-9)
    share = ((edges[:, None] - spans[:, 0]) / long_s).clip(0, 1)
    return Timeline(edges=edges, samples=share @ spans[:, 2])
