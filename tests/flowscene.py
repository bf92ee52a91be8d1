"""A build as a flow of Prefect's, while faults befall it, the server's among them."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import httpx
from prefect.exceptions import PrefectException

from flows.server import PrefectServer
from tests.faults import Scene
from tests.prefectserver import Server
from tests.processes import of_kind

ASK_EVERY_S: Final = 1.0
FORGOTTEN_S: Final = 60.0
"""After so long without a process a person takes a run for dead, whatever the server says."""


@dataclass
class FlowScene(Scene):
    """Runs of `tile-and-normalize/local`, the next one when the last has not ended well.

    Attributes:
        server: To be started again when it dies.
        prefect: The same, for asking.
        parameters: Of the runs.
        runs: So far.
    """

    server: PrefectServer | None = None
    prefect: Server | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    runs: list[UUID] = field(default_factory=list)
    _next: float = 0.0
    _seen: float = 0.0
    _awaited: bool = False

    def keep(self) -> None:
        """See `Scene`."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + ASK_EVERY_S
        assert self.server is not None
        assert self.server.process is not None
        if self.server.process.poll() is None:
            # It may have just died, or not answer yet.
            with contextlib.suppress(httpx.HTTPError, PrefectException):
                self._keep_run(now)
        elif not self._awaited:
            self._awaited = True
            self.later(self.chance.uniform(2, 8), self._start_server)

    def _start_server(self) -> None:
        assert self.server is not None
        self.server.start()
        self._awaited = False

    def _keep_run(self, now: float) -> None:
        assert self.prefect is not None
        if self.runs:
            state = self.prefect.flow_run(self.runs[-1]).state
            assert state is not None
            self.done = state.is_completed()
            if of_kind(self.mark, "flow"):
                self._seen = now
            if self.done or not (state.is_final() or now - self._seen > FORGOTTEN_S):
                return
        self.runs.append(self.prefect.start_run("tile-and-normalize/local", **self.parameters))
        self._seen = now
