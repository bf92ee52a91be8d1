"""One data set as the dashboard reads it: what never changes once, the rest a few objects at a time."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

import pyarrow as pa

from exaone_prep import layout
from exaone_prep.dashboard.committed import COLUMNS, Committed, catalog_table
from exaone_prep.dashboard.pace import Pace
from exaone_prep.dashboard.view import View, Worker
from exaone_prep.dataset import Dataset, open_dataset
from exaone_prep.errors import DatasetError, PrepError
from exaone_prep.ledger import GroupRecord, parsed
from exaone_prep.status import State, state_of
from exaone_prep.storage import READS_AT_ONCE, Storage, open_storage
from exaone_prep.survey_table import read_survey

REFRESH_S: Final = 4.0
"""Age up to which what is known is shown without reading anything."""
MOST_READS: Final = 40
"""Objects and listings that one refresh reads at most."""

_ALWAYS: Final = 6
"""Three listings; whether it is complete, paused, verified."""
_BEATS: Final = 16
_ATTEMPTS: Final = 4
_GROUPS: Final = (MOST_READS - _ALWAYS - _BEATS - _ATTEMPTS) // 2
"""Of each a ledger entry and a survey."""


class Source:
    """A data set directory, that may not be there yet.

    Ledger entries, surveys and failed attempts never change once they are written: each is read once. Where more have
    come than a refresh may read, the following ones read on. Any thread may ask.

    Attributes:
        key: Names it in addresses of pages.
        url: Where it lies.
        reads: Objects and listings read so far.
        trouble: Why the last refresh failed, in a sentence; empty if it did not.
    """

    def __init__(self, url: str, key: str = "", *, clock: Callable[[], float] = time.time) -> None:
        self.url = url
        self.key = key
        self.reads = 0
        self.trouble = ""
        self.storage: Storage = open_storage(url)
        self._clock = clock
        self._lock = threading.Lock()
        self._view: View | None = None
        self._read_at = 0.0
        self._dataset: Dataset | None = None
        self._catalog = pa.table({})
        self._committed: Committed | None = None
        self._records: dict[int, GroupRecord] = {}
        self._surveys: dict[int, pa.Table] = {}
        self._attempts: dict[str, dict[str, Any]] = {}
        self._beats: dict[str, tuple[float, Worker]] = {}
        self._pace = Pace()
        self._build: dict[str, Any] | None = None

    def view(self, max_age_s: float = REFRESH_S) -> View | None:
        """What is known of it, None while there is no data set; reads if that is older than `max_age_s`."""
        with self._lock:
            behind = self._view is not None and self._view.backlog > 0
            if behind or self._clock() - self._read_at > max_age_s:
                self._refresh(_GROUPS)
            return self._view

    def load(self) -> View | None:
        """Read all that is committed at once, as before the first page."""
        with self._lock:
            self._refresh(None)
            return self._view

    def _refresh(self, most_groups: int | None) -> None:
        try:
            self._view = self._refreshed(most_groups)
            self.trouble = ""
        except (PrepError, OSError, ValueError, KeyError) as error:
            self.trouble = str(error) or type(error).__name__
        self._read_at = self._clock()

    def _refreshed(self, most_groups: int | None) -> View | None:
        if self._dataset is None:
            self.reads += 1
            if self.storage.size(layout.CATALOG) is None:
                return None
            self._dataset = open_dataset(self.url)
            self._catalog = catalog_table(self._dataset.catalog)
        backlog = self._read_groups(most_groups)
        attempts = self._names(layout.ATTEMPTS)
        new = [name for name in reversed(attempts) if name not in self._attempts][:_ATTEMPTS]
        for name, data in self._read(f"{layout.ATTEMPTS}/{name}" for name in new).items():
            self._attempts[name.rpartition("/")[2]] = json.loads(data)
        workers = self._read_workers()
        state = self._state(workers)
        verified = self._json(layout.VERIFICATION)
        now = self._clock()
        assert self._committed is not None
        return View(
            key=self.key,
            url=self.storage.url,
            storage=self.storage,
            dataset=self._dataset,
            committed=self._committed,
            state=state,
            read_at=now,
            backlog=backlog,
            attempts=tuple(sorted(self._attempts.values(), key=lambda one: -float(one["time"]))),
            attempts_failed=len(attempts),
            workers=tuple(workers),
            patches_per_s=self._pace.per_s(now) if state in ("running", "paused") else None,
            verified=verified,
            build=self._build,
            free_bytes=None if self.storage.local is None else shutil.disk_usage(self.storage.local).free,
        )

    def _read_groups(self, most: int | None) -> int:
        """Read the next committed groups, at most so many; how many are left for the next time."""
        assert self._dataset is not None
        committed = [layout.group_of(name) for name in self._names(layout.LEDGER) if name.endswith(".json")]
        new = [group for group in committed if group not in self._surveys]
        now = new[:most]
        read = self._read(path for group in now for path in (layout.ledger(group), layout.survey(group)))
        for group in now:
            path, survey = layout.ledger(group), layout.survey(group)
            if missing := {path, survey} - set(read):
                raise DatasetError(f"{missing.pop()} is missing in {self.storage.url}: restore it from a copy.")
            self._surveys[group] = read_survey(read[survey], COLUMNS)
            self._records[group] = parsed(self.storage, path, read[path])
        if now or self._committed is None:
            records = tuple(self._records[group] for group in sorted(self._records))
            surveys = [self._surveys[record.group] for record in records]
            self._committed = Committed.of(self._catalog, records, surveys, key=self.key)
        return len(new) - len(now)

    def _read_workers(self) -> list[Worker]:
        names = set(self._names(layout.PROGRESS))
        self._beats = {name: beat for name, beat in self._beats.items() if name in names}
        # Those looked at longest ago first: of very many, all are seen in turn.
        turn = sorted(names, key=lambda name: (self._beats[name][0] if name in self._beats else 0.0, name))[:_BEATS]
        read = self._read(f"{layout.PROGRESS}/{name}" for name in turn)
        now = self._clock()
        for path, data in read.items():
            name = path.rpartition("/")[2]
            with suppress(ValueError, KeyError, TypeError):  # written by something else
                beat = json.loads(data)
                self._beats[name] = now, Worker.of(name.removesuffix(".json"), now, beat)
                self._pace.tell(name, beat)
        return sorted((worker for _, worker in self._beats.values()), key=lambda one: (not one.alive, one.name))

    def _state(self, workers: Iterable[Worker]) -> State:
        if self._build is None:
            self._build = self._json(layout.BUILD)
        return state_of(
            complete=self._build is not None,
            paused=lambda: self._json(layout.PAUSE) is not None,
            alive=any(worker.alive for worker in workers),
        )

    def _names(self, folder: str) -> list[str]:
        self.reads += 1
        return self.storage.names(folder)

    def _json(self, path: str) -> dict[str, Any] | None:
        self.reads += 1
        try:
            return dict(json.loads(self.storage.read(path)))
        except FileNotFoundError:
            return None

    def _read(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Those of the files that are there, several on their way at a time."""
        wanted = list(paths)
        self.reads += len(wanted)
        with ThreadPoolExecutor(max_workers=READS_AT_ONCE) as threads:
            return {path: data for path, data in zip(wanted, threads.map(self._try, wanted), strict=True) if data}

    def _try(self, path: str) -> bytes:
        try:
            return self.storage.read(path)
        except FileNotFoundError:
            return b""
