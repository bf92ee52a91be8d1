"""The dashboard as a browser meets it: served from a thread, asked by addresses; and storage that counts."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn

from exaone_prep.commands.dashboard import listening_socket
from exaone_prep.dashboard.app import create_app
from exaone_prep.dashboard.sources import Sources
from exaone_prep.storage import LocalStorage


@dataclass(frozen=True)
class Answer:
    """What came back."""

    code: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """As UTF-8."""
        return self.body.decode()


@contextmanager
def serving(*datasets: Path | str, token: str | None = None) -> Iterator[str]:
    """Serve data sets; gives the address without a slash at its end."""
    sources = Sources([str(dataset) for dataset in datasets])
    sources.load()
    socket = listening_socket("127.0.0.1", 0)
    config = uvicorn.Config(create_app(sources, token=token), log_level="error", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        socket.close()


def get(address: str, headers: Mapping[str, str] | None = None, *, method: str = "GET") -> Answer:
    """Ask for exactly this path, redirects and all."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    try:
        path = address.removeprefix(f"{parts.scheme}://{parts.netloc}") or "/"
        connection.request(method, path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): word for name, word in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@dataclass
class Reads:
    """What was asked of local storage, by anybody in this process."""

    paths: list[str] = field(default_factory=list)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Counts every object and listing that is read."""
    found = Reads()
    for name in ("read", "read_range", "size", "sizes"):
        original: Any = getattr(LocalStorage, name)

        def counted(self: LocalStorage, path: str, *more: Any, original: Any = original) -> Any:
            found.paths.append(path)
            return original(self, path, *more)

        monkeypatch.setattr(LocalStorage, name, counted)
    return found
