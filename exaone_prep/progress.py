"""How far a builder is: counted in one place, shown by bars and written to the data set as a heartbeat."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

from exaone_prep import layout
from exaone_prep.errors import PrepError
from exaone_prep.storage import Storage

HEARTBEAT_S = 5.0
STORE_HEARTBEAT_S = 20.0
"""In an object store, which takes money for each."""


@dataclass
class Progress:
    """Counts of one builder; written by its threads, read by whoever shows them."""

    groups: int = 0
    groups_done: int = 0
    group: int | None = None
    stage: str = ""
    slides: int = 0
    slides_done: int = 0
    slide: str | None = None
    patches: int = 0
    patches_done: int = 0
    samples_total: int = 0
    bytes_total: int = 0
    spool_bytes: int = 0
    started: float = field(default_factory=time.time)
    _at: dict[int, int] = field(default_factory=dict, repr=False)

    def start_group(self, group: int, slides: int) -> None:
        """A group begins."""
        self.group, self.slides, self.stage = group, slides, "stage"
        self.slides_done = self.patches = self.patches_done = self.spool_bytes = 0
        self.slide = None
        self._at.clear()

    def start_stage(self, stage: str, patches: int = 0) -> None:
        """A group goes over to its next stage."""
        self.stage, self.slides_done, self.patches, self.patches_done = stage, 0, patches, 0
        self._at.clear()

    def tell(self, number: int, patches: int) -> None:
        """Slide `number` of the group has gone through so many patches."""
        self.patches_done += patches - self._at.get(number, 0)
        self._at[number] = patches

    def snapshot(self) -> dict[str, object]:
        """The counts, as plain values."""
        values = asdict(self)
        del values["_at"]
        return values


class Heartbeat:
    """Writes the counts of this builder to `progress/<worker>.json` every few seconds."""

    def __init__(self, storage: Storage, progress: Progress) -> None:
        self._storage = storage
        self._progress = progress
        self._every_s = HEARTBEAT_S if storage.local is not None else STORE_HEARTBEAT_S
        self._path = layout.heartbeat(this_process())
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError, PrepError):
            self._storage.remove(self._path)

    def _beat(self) -> None:
        while True:
            document = {"worker": self._path, "time": time.time(), **self._progress.snapshot()}
            # A missed heartbeat harms nothing; the build itself will meet the fault.
            with contextlib.suppress(OSError, PrepError):
                self._storage.replace(self._path, json.dumps(document).encode())
            if self._ended.wait(self._every_s):
                return


def this_process() -> str:
    """The name under which this process shows itself: its host and its number."""
    return f"{socket.gethostname()}-{os.getpid()}"


def read_heartbeat(storage: Storage, builder: str) -> dict[str, Any] | None:
    """What a builder last showed of itself, None where it has ended."""
    try:
        return dict(json.loads(storage.read(layout.heartbeat(builder))))
    except (FileNotFoundError, ValueError):
        return None
