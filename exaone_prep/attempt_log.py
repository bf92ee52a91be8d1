"""What happened in one attempt at a group: JSON objects, one a line, in the scratch; their end is kept if it fails."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from exaone_prep.progress import this_process

Level = Literal["info", "warning", "error"]
TAIL_BYTES: Final = 4096


class AttemptLog:
    """A file of lines; any thread may write.

    Attributes:
        file: `<scratch>/log/group-<group>-<number>.jsonl`, in the folder of its builder.
    """

    def __init__(self, file: Path, group: int, workers_log: Path, hide: Callable[[str], str | None]) -> None:
        """Begin.

        Args:
            file: To be made.
            group: Stands in every line.
            workers_log: Where the native code of workers writes.
            hide: Takes clear names out of a message.
        """
        self.file = file
        self._group = group
        self._hide = hide
        self._worker = this_process()
        self._workers_log = workers_log
        self._read = workers_log.stat().st_size if workers_log.exists() else 0
        self._lock = threading.Lock()
        with contextlib.suppress(OSError):
            file.parent.mkdir(exist_ok=True)

    def write(self, message: str, *, level: Level = "info", slide: str | None = None) -> None:
        """Add a line; a disk that is full harms nothing but the log."""
        line = {
            "time": round(time.time(), 3),
            "level": level,
            "group": self._group,
            "slide": slide,
            "worker": self._worker,
            "message": self._hide(message),
        }
        with self._lock, contextlib.suppress(OSError), self.file.open("a") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")

    def take_over(self) -> None:
        """Add what the native code of workers has written since, at most `TAIL_BYTES` of it."""
        with contextlib.suppress(FileNotFoundError), self._workers_log.open("rb") as stream:
            end = self._workers_log.stat().st_size
            stream.seek(max(self._read, end - TAIL_BYTES))
            self._read = end
            for line in stream.read().decode("utf-8", "replace").splitlines():
                self.write(line, level="warning")

    def tail(self) -> str:
        """The last lines, together at most `TAIL_BYTES`."""
        try:
            lines = self.file.read_bytes()[-TAIL_BYTES - 1 :]
        except FileNotFoundError:
            return ""
        whole = lines if len(lines) <= TAIL_BYTES else lines.partition(b"\n")[2]
        return whole.decode("utf-8", "replace")
