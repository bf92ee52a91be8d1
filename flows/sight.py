"""What a build looks like in Prefect: a task run for each group, and a bar. The driver tells; Prefect decides nothing.

A thread does the telling, so that a server that is slow, or gone, holds up no group. It also hears whether a person
suspended the run: the flow then ends with the group it is at, and Prefect starts it anew when it is resumed.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable
from logging import Logger, LoggerAdapter
from types import TracebackType
from typing import Self
from uuid import UUID

import httpx
from prefect import get_client, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.exceptions import Pause, PrefectException
from prefect.states import Completed, Crashed, Failed, Running

from exaone_prep.build import Failure, Watch, sentence_of
from exaone_prep.progress import Progress

TELL_WITHIN_S = 10.0
"""How long the end of a flow waits for a server that does not answer."""

LOOK_EVERY_S = 2.0
"""How often the server is asked whether a person suspended the run."""


@task(name="group", tags={"group"})
def group(number: int) -> None:
    """A group of slides. Its runs are those of the driver's attempts; nobody calls it."""
    raise NotImplementedError(number)


class Sight:
    """Shows one build; see `watch`."""

    def __init__(self, flow_run_id: UUID, progress: Progress, logger: Logger | LoggerAdapter[Logger]) -> None:
        """Show nothing yet.

        Args:
            flow_run_id: Of the flow that runs the build.
            progress: Whose groups are counted.
            logger: Of the flow run.
        """
        self._flow_run_id = flow_run_id
        self._progress = progress
        self._logger = logger
        self._runs: dict[int, UUID] = {}
        self._running: set[int] = set()
        self._bar: UUID | None = None
        self._suspended: State[object] | None = None
        self._look_at = time.monotonic() + LOOK_EVERY_S
        self._events: queue.SimpleQueue[Callable[[SyncPrefectClient], None] | None] = queue.SimpleQueue()
        context = contextvars.copy_context()  # it holds the flow run that artifacts belong to
        self._thread = threading.Thread(target=context.run, args=(self._tell,), daemon=True)

    @property
    def watch(self) -> Watch:
        """For the driver."""
        return Watch(say=self._logger.info, on_start=self._start, on_end=self._end)

    def __enter__(self) -> Self:
        self._thread.start()
        self._events.put(self._draw)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in sorted(self._running):
            self._set(number, Crashed(message="The flow ended before the group did; run it again."))
        self._events.put(self._draw)
        self._events.put(None)
        self._thread.join(TELL_WITHIN_S)

    def _start(self, number: int) -> None:
        self._running.add(number)
        self._set(number, Running())

    def _end(self, number: int, failure: Failure | None) -> None:
        self._running.discard(number)
        if failure is None:
            self._set(number, Completed(message="Committed."))
        else:
            sentence = sentence_of(failure.error)
            self._logger.warning("An attempt at group %d failed: %s", number, sentence)
            self._set(number, Failed(message=sentence))
        self._events.put(self._draw)
        if self._suspended is not None:
            self._logger.info("The run is suspended and ends here; when it is resumed it goes on with what is missing.")
            raise Pause(state=self._suspended)

    def _set(self, number: int, state: State[None]) -> None:
        def tell(client: SyncPrefectClient) -> None:
            if number not in self._runs:
                name = f"group-{number:06d}"
                run = client.create_task_run(group, self._flow_run_id, dynamic_key=str(number), name=name)
                self._runs[number] = run.id
            # Forced: a further attempt follows a failed one, and that is the driver's to decide.
            client.set_task_run_state(self._runs[number], state, force=True)

        self._events.put(tell)

    def _draw(self, _: SyncPrefectClient) -> None:
        percent = 100.0 * self._progress.groups_done / max(1, self._progress.groups)
        if self._bar is None:
            made = create_progress_artifact(percent, key="groups", description="Groups that are committed.")
            assert isinstance(made, UUID)  # and no coroutine: this thread has no event loop
            self._bar = made
        else:
            update_progress_artifact(self._bar, progress=percent)

    def _look(self, client: SyncPrefectClient) -> None:
        self._look_at = time.monotonic() + LOOK_EVERY_S
        state = client.read_flow_run(self._flow_run_id).state
        self._suspended = state if state is not None and state.is_paused() else None

    def _tell(self) -> None:
        with get_client(sync_client=True) as client:
            while (event := self._next()) is not None:
                try:
                    event(client)
                except (httpx.HTTPError, PrefectException, OSError) as error:
                    self._logger.warning("The Prefect server does not answer, the build goes on: %s", error)

    def _next(self) -> Callable[[SyncPrefectClient], None] | None:
        """What is to be told next; now and then, what is to be asked."""
        try:
            return self._events.get(timeout=max(0.0, self._look_at - time.monotonic()))
        except queue.Empty:
            return self._look
