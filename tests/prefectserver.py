"""A Prefect server, its deployments, and workers: what a person starts, in processes that can be killed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.settings import temporary_settings

from flows.server import home_environment, prefect_server

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 280


@dataclass(frozen=True)
class Server:
    """A Prefect server of the tests.

    Attributes:
        url: Of its API.
        home: Its PREFECT_HOME.
    """

    url: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables for processes that use it; a worker asks for work every second."""
        return {**os.environ, **home_environment(self.home, self.url), "PREFECT_WORKER_QUERY_SECONDS": "1"}

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """Let this process use it."""
        with temporary_settings({"api.url": self.url, "home": self.home}):
            yield

    @contextlib.contextmanager
    def client(self) -> Iterator[SyncPrefectClient]:
        """What asks it."""
        with self.here(), get_client(sync_client=True) as client:
            assert isinstance(client, SyncPrefectClient)
            yield client

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run this Python in the checkout, to its end."""
        done = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def start_run(self, name: str, **parameters: str) -> UUID:
        """Ask for a run of a deployment."""
        with self.client() as client:
            deployment = client.read_deployment_by_name(name)
            return client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id

    def deployment_run(self, name: str, **parameters: str) -> UUID:
        """`prefect deployment run --watch`: until it ends, which must be a success."""
        given = [word for key, value in parameters.items() for word in ("--param", f"{key}={value}")]
        done = self.run("-m", "prefect", "deployment", "run", name, *given, "--watch")
        found = re.search(r"UUID: ([0-9a-f-]{36})", done.stdout)
        assert found is not None, done.stdout
        return UUID(found[1])

    def flow_run(self, run_id: UUID) -> FlowRun:
        """A flow run, as the server knows it."""
        with self.client() as client:
            return client.read_flow_run(run_id)

    def groups(self, run_id: UUID) -> dict[str, str]:
        """States of the task runs of a flow run, by name."""
        with self.client() as client:
            chosen = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
            return {
                run.name: run.state_type.value
                for run in client.read_task_runs(flow_run_filter=chosen)
                if run.state_type
            }

    def artifacts(self, run_id: UUID) -> dict[str, Any]:
        """What a flow run left, by key."""
        with self.client() as client:
            found = client.request("POST", "/artifacts/filter", json={"flow_runs": {"id": {"any_": [str(run_id)]}}})
            return {one["key"]: one["data"] for one in found.json()}


@contextlib.contextmanager
def server_of_tests(home: Path) -> Iterator[Server]:
    """A server that goes with the block."""
    with prefect_server(home) as url:
        yield Server(url, home)


@contextlib.contextmanager
def worker(server: Server, variables: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process worker of the pool `exaone-cpu`, in a process group of its own; it is killed with the block."""
    with (server.home / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "exaone-cpu"],
            cwd=server.home,
            env={**server.environment, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
