"""A store that speaks S3 (moto's server, in this process), counts what is asked of it, and fails as it is told to."""

from __future__ import annotations

import importlib
import io
import json
import random
import re
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

WsgiEnvironment = dict[str, Any]
StartResponse = Callable[..., Any]
Answer = Callable[[], Iterable[bytes]]

READ_TIMEOUT_S = 3
CODES = {403: "AccessDenied", 500: "InternalError", 503: "SlowDown"}


@dataclass(kw_only=True)
class Request:
    """One request.

    Attributes:
        method: Of HTTP.
        key: The object, without the bucket; empty for requests to the bucket.
        query: As in the URL.
        bytes_in: Of its body.
        bytes_out: Of the answer's body, as far as it was sent.
        fault: What was done to it, empty if nothing.
    """

    method: str
    key: str
    query: str
    bytes_in: int
    bytes_out: int = 0
    fault: str = ""


class Fault:
    """Something that befalls some requests."""

    def befalls(self, request: Request) -> bool:
        """Whether it is this one's turn."""
        raise NotImplementedError

    def act(self, answer: Answer, environ: WsgiEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer in place of the store; `answer` lets the store act."""
        raise NotImplementedError


@dataclass
class _Chosen(Fault):
    """Befalls a share of the requests that match, at most so many.

    Attributes:
        share: Of them, by a seeded generator.
        matching: Regular expression that `<method> <key>?<query>` must contain.
        times: Most often; None: always.
        seed: Of the generator.
    """

    share: float = 1.0
    matching: str = ""
    times: int | None = None
    seed: int = 0
    hits: int = 0
    _random: random.Random = field(init=False)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def befalls(self, request: Request) -> bool:
        with self._lock:
            if self.times is not None and self.hits >= self.times:
                return False
            if not re.search(self.matching, f"{request.method} {request.key}?{request.query}"):
                return False
            if self._random.random() >= self.share:
                return False
            self.hits += 1
            return True


@dataclass
class Errors(_Chosen):
    """The store answers with an error and does nothing."""

    statuses: tuple[int, ...] = (500, 503)

    def act(self, answer: Answer, environ: WsgiEnvironment, start: StartResponse) -> Iterable[bytes]:
        """See `Fault`."""
        _read_all(environ)
        status = self._random.choice(self.statuses)
        start(f"{status} Fault", [("Content-Type", "application/xml")])
        if environ["REQUEST_METHOD"] == "HEAD":
            return []
        return [f"<Error><Code>{CODES[status]}</Code><Message>injected</Message></Error>".encode()]


@dataclass
class Slow(_Chosen):
    """The store takes its time."""

    seconds: float = 1.0

    def act(self, answer: Answer, environ: WsgiEnvironment, start: StartResponse) -> Iterable[bytes]:
        """See `Fault`."""
        time.sleep(self.seconds)
        return answer()


@dataclass
class LostAnswers(_Chosen):
    """The store does what it is asked to, and the connection breaks before it can say so."""

    def act(self, answer: Answer, environ: WsgiEnvironment, start: StartResponse) -> Iterable[bytes]:
        """See `Fault`."""
        list(answer())
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return []


@dataclass
class Then(_Chosen):
    """Something else happens when the request comes, before the store does what it is asked to."""

    happens: Callable[[], None] = lambda: None

    def act(self, answer: Answer, environ: WsgiEnvironment, start: StartResponse) -> Iterable[bytes]:
        """See `Fault`."""
        self.happens()
        return answer()


class Store:
    """A bucket in a server of its own, which this process and its children find while the block lasts.

    Attributes:
        environment: Variables by which they do.
        requests: All that came so far.
    """

    def __init__(self) -> None:
        self.bucket = f"bucket-{secrets.token_hex(4)}"
        self.requests: list[Request] = []
        self._faults: list[Fault] = []
        self._variables = pytest.MonkeyPatch()
        moto = importlib.import_module("moto.moto_server.werkzeug_app")
        self._moto: Any = moto.DomainDispatcherApplication(moto.create_backend_app)
        serving = importlib.import_module("werkzeug.serving")

        class Handler(serving.WSGIRequestHandler):  # type: ignore[misc, name-defined]
            """Quiet."""

            def log(self, *_: object) -> None:
                """Say nothing."""

        self._server: Any = serving.make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            # A client that waits for leave to send a body sees a connection that breaks only as an answer that is late.
            "FSSPEC_S3": json.dumps({"config_kwargs": {"read_timeout": READ_TIMEOUT_S}}),
        }

    def __enter__(self) -> Self:
        self._thread.start()
        for name, value in self.environment.items():
            self._variables.setenv(name, value)
        self._variables.setattr("s3fs.S3FileSystem.read_timeout", READ_TIMEOUT_S)  # the variable is read at import
        self.forget_clients()
        self.client().create_bucket(Bucket=self.bucket)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._variables.undo()
        self.forget_clients()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, path: str) -> str:
        """Of a place in the bucket."""
        return f"s3://{self.bucket}/{path}"

    def client(self) -> Any:
        """Boto3's, for looking into the bucket."""
        boto3: Any = importlib.import_module("boto3")
        return boto3.client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id="none",
            aws_secret_access_key="none",
        )

    def upload(self, folder: Path, prefix: str) -> None:
        """Copy the files of a folder."""
        client = self.client()
        for path in sorted(folder.iterdir()):
            client.upload_file(str(path), self.bucket, f"{prefix}/{path.name}")

    def keys(self, prefix: str = "") -> list[str]:
        """Objects below a prefix; at most 1,000."""
        return [
            found["Key"]
            for found in self.client().list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", [])
        ]

    def unfinished_uploads(self) -> list[str]:
        """Keys of uploads whose parts lie in the bucket."""
        return [found["Key"] for found in self.client().list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])]

    @contextmanager
    def failing(self, *faults: Fault) -> Iterator[None]:
        """Let faults befall the requests of a block; the first that does so acts."""
        self._faults = list(faults)
        try:
            yield
        finally:
            self._faults = []

    def befall(self, fault: Fault) -> None:
        """Let one more fault befall requests until it has had its times."""
        self._faults.append(fault)

    def download(self, prefix: str, folder: Path) -> Path:
        """Copy all objects below a prefix, at most 1,000, into a folder."""
        for key in self.keys(f"{prefix}/"):
            file = folder / key.removeprefix(f"{prefix}/")
            file.parent.mkdir(parents=True, exist_ok=True)
            self.client().download_file(self.bucket, key, str(file))
        return folder

    @contextmanager
    def counting(self) -> Iterator[list[Request]]:
        """The requests of a block."""
        found: list[Request] = []
        first = len(self.requests)
        try:
            yield found
        finally:
            found += self.requests[first:]

    def forget_clients(self) -> None:
        """Let this process look into its environment again for the way to the store."""
        # fsspec keeps file systems, and those know where they first found a store.
        importlib.import_module("s3fs").S3FileSystem.clear_instance_cache()

    def _serve(self, environ: WsgiEnvironment, start: StartResponse) -> Iterable[bytes]:
        request = Request(
            method=environ["REQUEST_METHOD"],
            key=environ["PATH_INFO"].removeprefix(f"/{self.bucket}").lstrip("/"),
            query=environ.get("QUERY_STRING", ""),
            bytes_in=int(environ.get("CONTENT_LENGTH") or 0),
        )
        self.requests.append(request)

        def answer() -> Iterable[bytes]:
            return list(self._moto(environ, start))

        for fault in self._faults:
            if fault.befalls(request):
                request.fault = type(fault).__name__
                body = list(fault.act(answer, environ, start))
                break
        else:
            body = list(answer())
        request.bytes_out = sum(map(len, body))
        return body


def by_method(requests: Iterable[Request]) -> Counter[str]:
    """How many requests of each method."""
    return Counter(request.method for request in requests)


def _read_all(environ: WsgiEnvironment) -> None:
    # An answer before the body is read would look like a broken connection to the client, not like the error it says.
    stream: io.BufferedIOBase = environ["wsgi.input"]
    left = int(environ.get("CONTENT_LENGTH") or 0)
    while left > 0 and (part := stream.read(min(left, 1 << 20))):
        left -= len(part)
