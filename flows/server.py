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


class PrefectServer:
    """A server with SQLite on a port of this machine; it may be started again, on the same port, after it has died.

    Attributes:
        home: Folder for its database, its settings and its log.
        url: Of its API.
        process: The latest one.
    """

    def __init__(self, home: Path) -> None:
        """Choose a free port, and start nothing yet."""
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self._port = _free_port()
        self._log = home / "server.log"
        self.url = f"http://127.0.0.1:{self._port}/api"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and do not wait until it answers."""
        # Without services: nothing is scheduled, and nobody asks for events.
        words = ["server", "start", "--host", "127.0.0.1", "--port", str(self._port), "--no-services"]
        with self._log.open("ab") as stream:
            self.process = subprocess.Popen(  # noqa: S603 (our own interpreter)
                [sys.executable, "-m", "prefect", *words],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env={**os.environ, **home_environment(self.home, self.url)},
                start_new_session=True,
            )

    def answers(self) -> bool:
        """Whether it does, now."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5):  # noqa: S310 (our own)
                return True
        except OSError:
            return False

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            ServerNotStartedError: With what to look at.
        """
        until = time.monotonic() + START_WITHIN_S
        while time.monotonic() < until:
            if self.process is not None and self.process.poll() is not None:
                raise ServerNotStartedError(
                    f"The Prefect server ended with {self.process.returncode}; see {self._log}."
                )
            if self.answers():
                return
            time.sleep(0.2)
        raise ServerNotStartedError(f"The Prefect server does not answer at {self.url}; see {self._log}.")

    def stop(self) -> None:
        """End it, by force if need be."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                if self.process is not None:
                    self.process.wait(STOP_WITHIN_S)
                return

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


@contextlib.contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """Start a server that goes with the block; yield the URL of its API.

    Args:
        home: Folder for its database, its settings and its log.

    Raises:
        ServerNotStartedError: With what to look at.
    """
    server = PrefectServer(home)
    server.start()
    try:
        server.wait()
        yield server.url
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
