"""A Prefect server of one's own: for a demonstration, for tests, for measurements. It goes with the block."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from exaone_prep.errors import PrepError

START_WITHIN_S = 180.0
STOP_WITHIN_S = 20.0


class ServerNotStartedError(PrepError):
    """The server did not come up."""


def home_environment(home: Path, url: str) -> dict[str, str]:
    """Variables for processes that are to use a server.

    Args:
        home: Its PREFECT_HOME: database, profiles, logs.
        url: Of its API.
    """
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


@contextlib.contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """Start a server on a free port of this machine, with SQLite; yield the URL of its API.

    Args:
        home: Folder for its database, its settings and its log.

    Raises:
        ServerNotStartedError: With what to look at.
    """
    home.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    log = home / "server.log"
    # Without services: nothing is scheduled, and nobody asks for events.
    words = ["server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-services"]
    with log.open("ab") as stream:
        process = subprocess.Popen(  # noqa: S603 (our own interpreter)
            [sys.executable, "-m", "prefect", *words],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env={**os.environ, **home_environment(home, url)},
            start_new_session=True,
        )
    try:
        _wait_for(process, url, log)
        yield url
    finally:
        _stop(process)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def _wait_for(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + START_WITHIN_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise ServerNotStartedError(f"The Prefect server ended with {process.returncode}; see {log}.")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):  # noqa: S310 (our own)
            return
        time.sleep(0.2)
    raise ServerNotStartedError(f"The Prefect server does not answer at {url}; see {log}.")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_WITHIN_S)
            return
