"""What is known of data sets at one moment: of one, and of several taken as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import pyarrow as pa

from exaone_prep.dashboard.committed import Committed
from exaone_prep.dataset import Dataset
from exaone_prep.status import ALIVE_S, State
from exaone_prep.storage import Storage

ALL = "all"
"""The key of all data sets taken as one."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """What a builder last showed of itself.

    Attributes:
        name: `<host>-<pid>`.
        time: When it did, in seconds since 1970.
        age_s: How old that was when it was read.
        group: None for a driver whose groups are built elsewhere.
    """

    name: str
    time: float
    age_s: float
    group: int | None
    stage: str
    slides: int
    slides_done: int
    patches: int
    patches_done: int
    spool_bytes: int

    @classmethod
    def of(cls, name: str, read_at: float, beat: Mapping[str, Any]) -> Self:
        """From a heartbeat."""
        counts = {count: int(beat[count]) for count in ("slides", "slides_done", "patches", "patches_done")}
        return cls(
            name=name,
            time=float(beat["time"]),
            age_s=max(0.0, read_at - float(beat["time"])),
            group=None if beat["group"] is None else int(beat["group"]),
            stage=str(beat["stage"]),
            spool_bytes=int(beat["spool_bytes"]),
            **counts,
        )

    @property
    def alive(self) -> bool:
        """Whether it showed itself within a minute."""
        return self.age_s < ALIVE_S


@dataclass(frozen=True, kw_only=True)
class View:
    """One data set.

    Attributes:
        key: Of the data set in addresses.
        read_at: When this was read, in seconds since 1970.
        backlog: Committed groups that are not read yet.
        attempts: Failed ones that are read, the latest first.
        attempts_failed: How many there are.
        workers: The living first.
        patches_per_s: Now; None where nobody shows it.
        free_bytes: Of the disk it lies on; None in an object store.
    """

    key: str
    url: str
    storage: Storage
    dataset: Dataset
    committed: Committed
    state: State
    read_at: float
    backlog: int
    attempts: tuple[dict[str, Any], ...]
    attempts_failed: int
    workers: tuple[Worker, ...]
    patches_per_s: float | None
    verified: dict[str, Any] | None
    build: dict[str, Any] | None
    free_bytes: int | None

    @property
    def name(self) -> str:
        """Of the manifest."""
        return self.dataset.manifest.name

    @cached_property
    def running(self) -> set[int]:
        """Groups that living builders are at."""
        built = self.committed.record_of
        return {w.group for w in self.workers if w.alive and w.group is not None and w.group not in built}

    @cached_property
    def failed(self) -> set[int]:
        """Groups with a failed attempt that are neither committed nor at work."""
        return {int(one["group"]) for one in self.attempts} - set(self.committed.record_of) - self.running


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What a page is about: one data set, or all of them as one.

    Attributes:
        key: Of the data set, or `ALL`.
        views: In the order they were given.
        slides: See `Committed.slides`; of several data sets a slide that was set aside in one and is in a later one
            counts there alone.
    """

    key: str
    views: tuple[View, ...]
    slides: pa.Table
    shards: pa.Table

    @property
    def title(self) -> str:
        """For people."""
        return self.views[0].name if len(self.views) == 1 else f"{len(self.views)} data sets"

    def view(self, key: str) -> View:
        """The view of one of its data sets."""
        return next(view for view in self.views if view.key == key)
