"""`/metrics` for Prometheus: the key figures of each data set; no name of a slide is a label."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exaone_prep.dashboard.figures import Figures, counts_of, figures_of
from exaone_prep.dashboard.sources import Sources
from exaone_prep.dashboard.view import View
from exaone_prep.errors import REASONS

_STATES = ("running", "paused", "stopped", "complete")


class DatasetCollector(Collector):
    """Asks the data sets when it is asked."""

    def __init__(self, sources: Sources, clock: Callable[[], float] = time.time) -> None:
        self._sources = sources
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """All metrics, of all data sets."""
        seen = [(view, figures_of([view], view.committed.slides, self._clock())) for view in self._sources.views()]
        yield _family(
            "dataset_info",
            "A data set; always 1.",
            [({"dataset": v.key, "content_id": v.dataset.catalog.content_id}, 1) for v, _ in seen],
        )
        yield from (_family(name, what, _values(seen, of)) for name, what, of in GAUGES)
        yield from (_family(name, what, _values(seen, of), counter=True) for name, what, of in COUNTERS)
        sources = self._sources.by_key.items()
        yield _family(
            "dashboard_reads",
            "Objects and listings that the dashboard has read.",
            [({"dataset": key}, source.reads) for key, source in sources],
            counter=True,
        )
        yield _family(
            "dashboard_refresh_failed",
            "1 where the data set could not be read the last time.",
            [({"dataset": key}, float(bool(source.trouble))) for key, source in sources],
        )


def exposition(sources: Sources) -> bytes:
    """The text that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(DatasetCollector(sources))
    return generate_latest(registry)


Values = Iterable[tuple[Mapping[str, str], float | None]]
Of = Callable[[View, Figures], Values]


def _one(value: Callable[[View, Figures], float | None]) -> Of:
    return lambda view, figures: [({}, value(view, figures))]


def _each(label: str, counts: Callable[[View, Figures], Mapping[str, float]]) -> Of:
    return lambda view, figures: [({label: name}, count) for name, count in counts(view, figures).items()]


GAUGES: tuple[tuple[str, str, Of], ...] = (
    (
        "state",
        "1 for the state that the data set is in.",
        _each("state", lambda v, _: {s: s == v.state for s in _STATES}),
    ),
    ("slides", "Slides per outcome.", _each("outcome", lambda _, f: f.slides)),
    ("quarantined_slides", "Slides set aside per reason.", _each("reason", lambda v, _: _reasons(v))),
    (
        "groups",
        "Groups per state.",
        _each("state", lambda _, f: {name: count for name, count in f.groups.items() if name != "total"}),
    ),
    ("patches_per_second", "Patches made per second over the last minute.", _one(lambda _, f: f.patches_per_s)),
    ("eta_seconds", "Time until all groups are built.", _one(lambda _, f: f.eta_s)),
    (
        "builders",
        "Builders by whether they showed themselves within a minute.",
        _each("state", lambda _, f: {"alive": f.builders, "silent": f.silent_builders}),
    ),
    (
        "last_heartbeat_timestamp_seconds",
        "When a builder last showed itself.",
        _one(lambda v, _: max((worker.time for worker in v.workers), default=None)),
    ),
    (
        "last_commit_timestamp_seconds",
        "When a group was last committed.",
        _one(lambda v, _: max((float(record.built["ended"]) for record in v.committed.records), default=None)),
    ),
    (
        "spool_bytes",
        "Encoded patches on the scratch of builders.",
        _one(lambda v, _: sum(w.spool_bytes for w in v.workers)),
    ),
    ("disk_free_bytes", "Free on the disk of the data set.", _one(lambda _, f: f.free_bytes)),
    ("disk_needed_bytes", "Shards still to come, by the sizes of the slides.", _one(lambda _, f: f.needed_bytes)),
    (
        "verification_problems",
        "Problems that the last verification found.",
        _one(lambda v, _: None if v.verified is None else len(v.verified["problems"])),
    ),
)
COUNTERS: tuple[tuple[str, str, Of], ...] = (
    ("samples", "Patches in committed shards.", _one(lambda _, f: f.samples)),
    ("shards", "Committed shards.", _one(lambda _, f: f.shards)),
    ("shard_bytes", "Bytes of committed shards.", _one(lambda _, f: f.bytes)),
    (
        "dropped_patches",
        "Patches of committed groups that were dropped, per reason.",
        _each("reason", lambda _, f: f.dropped),
    ),
    ("stain_samples", "Committed patches per stain status.", _each("status", lambda _, f: f.stain_statuses)),
    ("attempts_failed", "Failed attempts at groups.", _one(lambda _, f: f.attempts_failed)),
)


def _reasons(view: View) -> dict[str, int]:
    found = counts_of(view.committed.slides.column("reason"))
    return {reason: found.get(reason, 0) for reason in REASONS}


def _values(seen: Iterable[tuple[View, Figures]], of: Of) -> list[tuple[dict[str, str], float]]:
    return [
        ({"dataset": view.key, **labels}, float(value))
        for view, figures in seen
        for labels, value in of(view, figures)
        if value is not None
    ]


def _family(
    name: str, what: str, values: Iterable[tuple[Mapping[str, str], float]], *, counter: bool = False
) -> Metric:
    found = list(values)
    labels = list(found[0][0]) if found else ["dataset"]
    family: Any = (CounterMetricFamily if counter else GaugeMetricFamily)(f"exaone_prep_{name}", what, labels=labels)
    for own, value in found:
        family.add_metric([own[label] for label in labels], value)
    return family  # type: ignore[no-any-return]
