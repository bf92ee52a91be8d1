"""Slides and data sets in S3, by the protocol: a build there makes the bytes of one here, whatever the store does."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from exaone_prep import s3_upload
from exaone_prep.catalog.place import read_ranges
from exaone_prep.dataset import open_dataset
from exaone_prep.errors import StorageConflictError, UnreachableError
from exaone_prep.faults import Fault, fault_of, patiently
from exaone_prep.object_storage import ObjectStorage
from exaone_prep.status import status_of
from exaone_prep.steps import KILL_AT
from tests.builds import build, command, finish, start
from tests.commandline import run_here
from tests.store import Errors, LostAnswers, Request, Slow, Store, Then, by_method

SMALL = ("--set", "shards.slides_per_group=1", "--set", "shards.samples_per_shard=5", "--workers", "1")
PART_BYTES = 5 << 20
"""The least that S3 takes."""


@pytest.fixture(scope="module")
def digest(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of an undisturbed build in a folder."""
    return build(slides, tmp_path_factory.mktemp("local") / "out", *SMALL)


@pytest.fixture(scope="module")
def store(slides: Path) -> Iterator[Store]:
    """A store whose bucket holds the slides."""
    with Store() as store:
        store.upload(slides, "slides")
        yield store


@pytest.fixture
def data(store: Store, tmp_path: Path) -> ObjectStorage:
    """A place in the store of its own."""
    return ObjectStorage(store.url(tmp_path.name))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"some bytes" * 1000)
    return path


@pytest.fixture
def large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three parts of an upload."""
    monkeypatch.setattr(s3_upload, "PART_BYTES", PART_BYTES)
    path = tmp_path / "large"
    path.write_bytes(b"part one" * (PART_BYTES // 8) + b"part two" * (PART_BYTES // 8) + b"part three")
    return path


def build_there(store: Store, out: str) -> tuple[str, ...]:
    return ("build", "--slides", store.url("slides/*.tiff"), "--out", store.url(out), *SMALL)


def digest_in(said: str) -> str:
    return said.strip().splitlines()[-1].removeprefix("digest ")


def shards_of(requests: list[Request], method: str) -> Counter[str]:
    """Bytes per shard that went in or out."""
    found: Counter[str] = Counter()
    for request in requests:
        if request.method == method and request.key.endswith(".tar"):
            found[request.key] += request.bytes_in if method == "PUT" else request.bytes_out
    return found


@pytest.fixture(scope="module")
def undisturbed(store: Store, digest: str) -> list[Request]:
    """The requests of a build from the store into `once` there."""
    with store.counting() as requests:
        ended = command(*build_there(store, "once"))
    assert ended.code == 0, ended.err
    assert digest_in(ended.out) == digest
    return requests


def test_a_build_in_a_store_makes_the_bytes_of_a_local_one_and_each_shard_goes_up_once_and_comes_back_once(
    store: Store, undisturbed: list[Request]
) -> None:
    requests = undisturbed
    committed = max(n for n, one in enumerate(requests) if one.method == "PUT" and "/ledger/" in one.key)
    before = requests[:committed]  # afterwards the card's picture takes a few samples
    up, back = shards_of(before, "PUT"), shards_of(before, "GET")
    assert len(up) > 3
    assert up == back
    assert up.keys() == {key for key in store.keys("once") if key.endswith(".tar")}
    sizes = {found["Key"]: found["Size"] for found in store.client().list_objects_v2(Bucket=store.bucket)["Contents"]}
    assert up == {key: sizes[key] for key in up}
    put = Counter(request.key for request in requests if request.method == "PUT")
    assert {put[key] for folder in ("ledger", "index", "survey", "slides") for key in store.keys(f"once/{folder}")} == {
        1
    }
    assert store.unfinished_uploads() == []
    assert command("verify", store.url("once"), "--deep").code == 0
    with store.counting() as requests:
        status = status_of(open_dataset(store.url("once")))
    assert (status.state, status.slides["done"], status.workers) == ("complete", 3, [])
    assert sum(by_method(requests).values()) <= 3 + 12, "one request per group, and a few"


def test_an_estimate_counts_the_requests_of_a_build(store: Store, undisturbed: list[Request]) -> None:
    words = ("estimate", "--slides", store.url("slides/*.tiff"), *SMALL, "--json")
    found = json.loads(run_here(*words).succeeded().out)
    sizes = [one["Size"] for one in store.client().list_objects_v2(Bucket=store.bucket, Prefix="slides/")["Contents"]]
    assert found["staged_bytes"] == sum(sizes)
    counted = Counter(
        "list" if "list-type" in one.query else "put" if one.method in {"PUT", "POST"} else "get"
        for one in undisturbed
        if one.method != "DELETE"
    )
    for kind, count in counted.items():
        assert 0.6 * count <= found["requests"][kind] <= 1.7 * count, (kind, counted, found["requests"])
    assert found["requests"]["put"] > 3 * found["requests_per_group"]["put"] > 0


def test_errors_slow_answers_and_a_lost_one_change_nothing(store: Store, digest: str) -> None:
    lost = LostAnswers(matching=r"^PUT .*/shards/", times=1)
    lost_entry = LostAnswers(matching=r"^PUT .*/ledger/", times=1)
    lost_slide = LostAnswers(matching=r"^GET slides/", share=0.5, times=2)
    errors, slow = Errors(share=0.05, seed=1), Slow(share=0.1, seconds=0.2, seed=2)
    with store.failing(lost, lost_entry, lost_slide, errors, slow):
        ended = command(*build_there(store, "disturbed"))
    assert ended.code == 0, ended.err
    assert digest_in(ended.out) == digest
    assert (lost.hits, lost_entry.hits, lost_slide.hits) == (1, 1, 2)
    assert errors.hits >= 3
    assert slow.hits >= 3
    assert store.keys("disturbed/attempts") == [], "faults that pass fail no group"
    assert command("verify", store.url("disturbed"), "--deep").code == 0


def test_a_slide_that_is_read_in_many_places_bears_as_many_faults_as_any_request(store: Store) -> None:
    """Each of twenty ranges meets a fault of its own: tried again as a whole, they would hardly ever all come."""
    data = bytes(range(256)) * 4096
    store.client().put_object(Bucket=store.bucket, Key="long/slide.tiff", Body=data)
    ranges = [(at * 50_000, 1_000) for at in range(20)]
    errors = Errors(share=0.25, seed=3, matching="^GET long/")
    with store.failing(errors):
        parts = read_ranges(store.url("long/slide.tiff"), ranges)
    assert parts == [data[offset : offset + length] for offset, length in ranges]
    assert errors.hits >= 3


def test_two_builders_at_once_in_one_store_are_safe(store: Store, digest: str) -> None:
    both = [start(*build_there(store, "both")) for _ in range(2)]
    ended = [finish(process) for process in both]
    assert [one.code for one in ended] == [0, 0], [one.err for one in ended]
    assert {digest_in(one.out) for one in ended} == {digest}
    assert command("verify", store.url("both")).code == 0
    assert store.keys("both/progress") == []


def test_a_build_that_is_interrupted_in_an_upload_and_killed_in_a_commit_goes_on_to_the_same_bytes(
    store: Store, digest: str
) -> None:
    asked = threading.Event()

    def hold_up() -> None:
        asked.set()
        time.sleep(3)

    waits = Then(matching=r"^PUT .*/shards/", times=1, happens=hold_up)
    with store.failing(waits):
        process = start(*build_there(store, "interrupted"))
        assert asked.wait(120)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        ended = finish(process, 30)
        assert time.monotonic() - began < 15
    assert ended.code == 130, ended.err
    assert store.keys("interrupted/ledger") == store.keys("interrupted/progress") == []
    assert store.unfinished_uploads() == []
    killed = command(*build_there(store, "interrupted"), env={KILL_AT: "index-put:2"})
    assert killed.code == -signal.SIGKILL, killed.err
    ended = command(*build_there(store, "interrupted"))
    assert ended.code == 0, ended.err
    assert digest_in(ended.out) == digest


def test_a_store_that_does_not_answer_is_said_in_a_sentence(store: Store, tmp_path: Path) -> None:
    nowhere = {**store.environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    ended = command("build", "--slides", store.url("slides/*.tiff"), "--out", str(tmp_path / "out"), env=nowhere)
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert len(ended.err.strip().splitlines()) == 1


@pytest.mark.parametrize("lacking", ["rights", "credentials"])
def test_lacking_rights_or_credentials_are_said_at_once(
    store: Store, undisturbed: list[Request], lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacking == "credentials":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
        monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    # s3fs keeps file systems by what they were asked for, not by the environment.
    store.forget_clients()
    with store.counting() as requests, store.failing(Errors(statuses=(403,))):
        sentence = run_here("status", store.url("once")).sentence(1)
    store.forget_clients()
    assert f"{store.url('once')} denies access" in sentence
    assert "credentials in the environment" in sentence
    assert len(requests) == (1 if lacking == "rights" else 0), "asking again does not help"


def test_a_store_whose_faults_last_is_said_to_be_unreachable(
    store: Store, data: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("exaone_prep.faults.time.sleep", waits.append)
    with (
        store.counting() as requests,
        store.failing(Errors(statuses=(503,))),
        pytest.raises(UnreachableError, match=r"cannot be reached, tried 7 times .*run the same command again"),
    ):
        data.read("ledger/group-000000.json")
    assert len(requests) == len(waits) + 1 == 7, "nobody below tries again by himself"
    assert all(
        low <= wait <= high
        for wait, low, high in zip(waits, (0.12, 0.25, 0.5, 1, 2, 4), (0.25, 0.5, 1, 2, 4, 8), strict=True)
    )


def test_a_store_that_says_nothing_at_all_is_not_waited_for_for_ever(
    store: Store, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_upload, "ANSWERS_WITHIN_S", 0.2)
    monkeypatch.setattr("exaone_prep.faults.time.sleep", lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        store.forget_clients()
        data = ObjectStorage(store.url("silent"))
        with pytest.raises(UnreachableError, match="tried 7 times"):
            data.put_new("a", file)
        with pytest.raises(UnreachableError, match="tried 7 times"):
            data.replace("a", b"beat")
    store.forget_clients()


@pytest.mark.parametrize("fault", [Errors(times=2), LostAnswers(times=1)], ids=["errors", "a lost answer"])
@pytest.mark.parametrize("size", ["small", "large"])
def test_a_file_is_put_once_whatever_befalls_its_upload(
    store: Store, data: ObjectStorage, file: Path, large_file: Path, size: str, fault: Errors | LostAnswers
) -> None:
    chosen = file if size == "small" else large_file
    fault.hits = 0
    with store.failing(fault):
        data.put_new("a", chosen)
    assert fault.hits == fault.times
    assert data.read("a") == chosen.read_bytes()
    assert data.put_new("a", chosen) is False
    # Of an upload whose first answer was lost nobody knows the number: the bucket's rule takes such away.
    assert len(store.unfinished_uploads()) == (1 if size == "large" and isinstance(fault, LostAnswers) else 0)
    for upload in store.client().list_multipart_uploads(Bucket=store.bucket).get("Uploads", []):
        store.client().abort_multipart_upload(Bucket=store.bucket, Key=upload["Key"], UploadId=upload["UploadId"])


def test_a_completion_whose_answer_is_lost_is_a_completion(store: Store, data: ObjectStorage, large_file: Path) -> None:
    lost = LostAnswers(matching="^POST .*uploadId", times=1)
    with store.failing(lost):
        data.put_new("a", large_file)
    assert lost.hits == 1
    assert data.read("a") == large_file.read_bytes()


def test_a_large_file_overwrites_nothing_and_leaves_no_parts(
    store: Store, data: ObjectStorage, large_file: Path
) -> None:
    assert data.put_new("a", large_file) is True
    first = large_file.read_bytes()
    large_file.write_bytes(bytes(len(first)))
    with store.counting() as requests, pytest.raises(StorageConflictError, match="with other bytes"):
        data.put_new("a", large_file)
    assert sum(request.bytes_in for request in requests if request.method == "PUT") >= len(first)
    assert data.read("a") == first
    assert store.unfinished_uploads() == []


def test_a_large_upload_that_is_interrupted_is_taken_back(store: Store, data: ObjectStorage, large_file: Path) -> None:
    main = threading.main_thread().ident
    assert main is not None
    interrupts = Then(matching="^PUT .*partNumber=3", times=1, happens=lambda: signal.pthread_kill(main, signal.SIGINT))
    with store.failing(interrupts), pytest.raises(KeyboardInterrupt):
        data.put_new("a", large_file)
    assert interrupts.hits == 1
    assert data.size("a") is None
    assert store.unfinished_uploads() == []


class StoreError(Exception):
    """As clients of stores raise them: with a status somewhere."""

    def __init__(self, **attributes: object) -> None:
        super().__init__()
        self.__dict__.update(attributes)


def _boto(status: int, code: str = "x") -> StoreError:
    return StoreError(response={"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}})


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (_boto(500), "passing"),
        (_caused(OSError(5, "SlowDown"), _boto(503)), "passing"),
        (_caused(OSError(22, "ConditionalRequestConflict"), _boto(409)), "passing"),
        (_caused(OSError(22, "damaged on its way"), _boto(400, "BadDigest")), "passing"),
        (StoreError(code=429), "passing"),
        (StoreError(status_code="503"), "passing"),
        (ConnectionResetError(104, "reset"), "passing"),
        (TimeoutError(), "passing"),
        (type("ReadTimeoutError", (type("HTTPClientError", (Exception,), {}),), {})(), "passing"),
        (_boto(403), "denied"),
        (PermissionError(13, "denied"), "denied"),
        (type("NoCredentialsError", (Exception,), {})(), "denied"),
        (_boto(400), "other"),
        (_boto(412), "exists"),
        (FileExistsError(), "exists"),
        (_boto(416), "beyond"),
        (_caused(FileNotFoundError(2, "NoSuchKey"), _boto(404)), "other"),
        (OSError(28, "No space left on device"), "other"),
        (ValueError("a defect"), "other"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_faults_that_pass_are_told_from_those_a_person_must_mend(error: Exception, fault: Fault) -> None:
    assert fault_of(error) == fault


def test_what_is_no_passing_fault_is_raised_as_it_is_and_not_tried_again() -> None:
    asked: list[int] = []

    def ask() -> None:
        asked.append(1)
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        patiently(ask)
    assert asked == [1]
