"""Bring the slides of a group within reach of native decoders: local ones stay where they are."""

from __future__ import annotations

import errno
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from exaone_prep.catalog import CatalogRow, check_stamp, members_of
from exaone_prep.catalog.place import is_url, read_chunks
from exaone_prep.errors import UnreachableError

THREADS: Final = 4
"""Slides fetched at a time: enough to fill a network, few enough that the first is soon there."""

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_END_S: Final = 3.0


class StagingEndedError(Exception):
    """Nobody waits for the slides any more."""


def stage(row: CatalogRow, uri: str, folder: Path, *, go_on: Callable[[], bool] = lambda: True) -> Path:
    """A local path of the slide, after its content stamp was found unchanged.

    Args:
        row: The slide in the catalog.
        uri: Where it is: a local path or an fsspec URL.
        folder: Receives copies of remote slides.
        go_on: Asked after every few megabytes.

    Raises:
        SlideChangedError: It is not what the catalog froze.
        UnreachableError: It cannot be reached.
        OSError: The disk of the folder is full.
        StagingEndedError: It need not go on.
    """
    path = _fetch(uri, folder / row.slide_id, go_on) if is_url(uri) else Path(uri.removeprefix("file://"))
    check_stamp(row, path)
    return path


def _fetch(uri: str, folder: Path, go_on: Callable[[], bool]) -> Path:
    """Copy a remote slide with all its files, laid out as they were."""
    root = uri.rsplit("/", 1)[0]
    try:
        for member in members_of(uri):
            if not go_on():  # the store may have answered after the folder was taken away
                raise StagingEndedError
            target = folder / member.removeprefix(root).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as stream:
                for chunk in read_chunks(member):
                    stream.write(chunk)
                    if not go_on():
                        raise StagingEndedError
    except (OSError, ImportError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise
        raise UnreachableError(f"{uri} cannot be fetched from its store: {error}.") from error
    return folder / uri.removeprefix(root).lstrip("/")


Arrival = Callable[[int, Path], None]
"""Called with the number of a slide and its local path."""
Failing = Callable[[BaseException], None]


class Staging:
    """The slides of a group on their way to this machine, some at a time, in their order.

    It begins when it is made. Threads of its own fetch and compare; they call back from there.
    """

    def __init__(self, rows: Sequence[CatalogRow], uris: Mapping[str, str], folder: Path) -> None:
        """Begin.

        Args:
            rows: Slides of one group; those with a problem are passed over.
            uris: Where they are, by id.
            folder: To be made; receives copies, and goes with `end`.
        """
        self.remote = frozenset(
            number for number, row in enumerate(rows) if row.problem is None and is_url(uris[row.slide_id])
        )
        self._rows = rows
        self._uris = uris
        self._folder = folder
        self._changed = threading.Condition()
        self._tasks: deque[Callable[[], None]] = deque()
        self._running = 0
        self._ended = False
        self._error: BaseException | None = None
        self._there: dict[int, Path] = {}
        self._arrival: Arrival | None = None
        self._failing: Failing | None = None
        folder.mkdir()
        for number, row in enumerate(rows):
            if row.problem is None:
                self._add(lambda number=number: self._stage(number))  # type: ignore[misc]
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()

    @property
    def failed(self) -> bool:
        """Whether a slide could not be staged."""
        with self._changed:
            return self._error is not None

    def deliver(self, arrival: Arrival, failing: Failing) -> None:
        """Hand out the slides, those that are there already now.

        Args:
            arrival: Called once for each slide without a problem.
            failing: Called when one of them cannot be staged; the others may then not come either.
        """
        with self._changed:
            self._arrival, self._failing = arrival, failing
            there, error = dict(self._there), self._error
        for number, path in there.items():
            arrival(number, path)
        if error is not None:
            failing(error)

    def done_with(self, number: int) -> None:
        """Delete the copy of a slide that nobody reads any more, or compare a local slide with its stamp once more."""
        if number in self.remote:
            shutil.rmtree(self._folder / self._rows[number].slide_id, ignore_errors=True)
        else:
            self._add(lambda: check_stamp(self._rows[number], self._there[number]))

    def finish(self) -> None:
        """Wait until everything asked for is done.

        Raises:
            SlideChangedError: A slide changed while it was read.
            UnreachableError, OSError: As in `stage`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or not (self._tasks or self._running))
            if self._error is not None:
                raise self._error

    def end(self) -> None:
        """Stop, wherever it is, and remove the copies."""
        with self._changed:
            self._ended = True
            self._tasks.clear()
            self._changed.notify_all()
        deadline = time.monotonic() + _END_S  # a store that hangs must not hold up the end
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        shutil.rmtree(self._folder, ignore_errors=True)

    def _add(self, task: Callable[[], None]) -> None:
        with self._changed:
            self._tasks.append(task)
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._tasks)
                if self._ended:
                    return
                task = self._tasks.popleft()
                self._running += 1
            error: BaseException | None = None
            try:
                task()
            except Exception as raised:  # noqa: BLE001 (whatever it is, who waits for the slides must hear of it)
                error = raised
            with self._changed:
                self._running -= 1
                failing = None
                if error is not None and self._error is None and not self._ended:
                    self._error, failing = error, self._failing
                    self._tasks.clear()
                self._changed.notify_all()
            if failing is not None and error is not None:
                failing(error)

    def _stage(self, number: int) -> None:
        row = self._rows[number]
        path = stage(row, self._uris[row.slide_id], self._folder, go_on=lambda: not self._ended and not self._error)
        with self._changed:
            self._there[number] = path
            arrival = self._arrival
        if arrival is not None:
            arrival(number, path)
