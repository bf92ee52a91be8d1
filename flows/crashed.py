"""Flow runs that a kill left Running: the next start of the same data set says that they crashed."""

from __future__ import annotations

import os
import socket
import time
from uuid import UUID

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.states import Crashed

from exaone_prep.dataset import Dataset
from exaone_prep.progress import read_heartbeat, this_process
from exaone_prep.status import ALIVE_S
from exaone_prep.storage import Storage

_DATASET = "dataset:"
_BUILDER = "builder:"


def claim(dataset: Dataset, flow_run_id: UUID) -> list[UUID]:
    """Say that a flow run builds a data set in this process, and that dead ones which said so before have crashed.

    To be called while this process shows itself by its heartbeat.

    Returns:
        The flow runs that have crashed.
    """
    storage = dataset.storage
    ours = f"{_DATASET}{storage.url}"
    with get_client(sync_client=True) as client:
        tags = set(client.read_flow_run(flow_run_id).tags)
        # A flow run that Prefect starts anew keeps its tags.
        tags = {tag for tag in tags if not tag.startswith((_DATASET, _BUILDER))}
        client.update_flow_run(flow_run_id, tags=[*sorted(tags), ours, f"{_BUILDER}{this_process()}"])
        states = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.CANCELLING]))
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[ours]), state=states))
        dead = [
            run.id
            for run in found
            if run.id != flow_run_id
            and not any(_lives(storage, tag.removeprefix(_BUILDER)) for tag in run.tags if tag.startswith(_BUILDER))
        ]
        for run_id in dead:
            _mark(client, run_id)
    return dead


def _mark(client: SyncPrefectClient, flow_run_id: UUID) -> None:
    crashed: State[None] = Crashed(message="Its process is gone; a later run goes on with its data set.")
    states = TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING]))
    runs = client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])),
        task_run_filter=TaskRunFilter(state=states),
    )
    for run in runs:
        client.set_task_run_state(run.id, crashed, force=True)
    client.set_flow_run_state(flow_run_id, crashed, force=True)


def _lives(storage: Storage, builder: str) -> bool:
    """Whether a builder showed itself within a minute; on this host a dead process need not be waited for."""
    host, _, pid = builder.rpartition("-")
    if host == socket.gethostname() and not os.path.exists(f"/proc/{pid}"):  # noqa: PTH110 (no file of ours)
        return False
    beat = read_heartbeat(storage, builder)
    return beat is not None and bool(time.time() - beat["time"] < ALIVE_S)
