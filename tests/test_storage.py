"""Where a data set lies: names appear whole or not at all, and nothing is ever overwritten."""

from __future__ import annotations

import errno
import hashlib
import importlib
import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from exaone_prep.checksum import sha256_of
from exaone_prep.errors import PrepError, StorageConflictError
from exaone_prep.object_storage import ObjectStorage
from exaone_prep.storage import LocalStorage, Storage, open_storage, put_bytes, read_all

SHM = Path("/dev/shm")
needs_other_file_system = pytest.mark.skipif(
    not (SHM.is_dir() and os.access(SHM, os.W_OK)), reason="needs /dev/shm, a second file system"
)


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """An S3 server of this process, which knows conditional PUTs."""
    server: Any = importlib.import_module("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["local", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    if request.param == "local":
        return LocalStorage(tmp_path / "data set")
    if request.param == "memory":
        monkeypatch.setattr(MemoryFileSystem, "store", {})
        monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
        return ObjectStorage("memory://bucket/data set")
    endpoint = request.getfixturevalue("s3_endpoint")
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    bucket = f"bucket-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:16]}"
    s3fs.S3FileSystem().mkdir(bucket)
    return ObjectStorage(f"s3://{bucket}/data-set")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "made here"
    path.write_bytes(b"some bytes" * 1000)
    return path


def leftovers(folder: Path) -> list[Path]:
    """Whatever lies in a folder that is no name of a data set."""
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


def test_what_was_put_can_be_read_whole_and_in_parts(storage: Storage, file: Path) -> None:
    storage.put_new("shards/train/a.tar", file)
    data = file.read_bytes()
    assert storage.read("shards/train/a.tar") == data
    assert storage.read_range("shards/train/a.tar", 5, 20) == data[5:25]
    assert storage.size("shards/train/a.tar") == len(data)
    assert storage.sha256("shards/train/a.tar") == hashlib.sha256(data).hexdigest() == sha256_of(file)


def test_a_name_that_is_missing_is_said_to_be(storage: Storage) -> None:
    assert storage.size("build.json") is None
    assert storage.size("ledger/group-000000.json") is None
    assert storage.names("ledger") == []
    with pytest.raises(FileNotFoundError):
        storage.read("build.json")
    storage.remove("progress/worker.json")


def test_equal_bytes_may_be_put_again(storage: Storage, file: Path, tmp_path: Path) -> None:
    storage.put_new("index/a", file)
    (tmp_path / "again").write_bytes(file.read_bytes())
    storage.put_new("index/a", tmp_path / "again")
    assert storage.read("index/a") == file.read_bytes()


@pytest.mark.parametrize("other", [b"", b"other", b"SOME BYTES" * 1000], ids=["empty", "shorter", "of equal length"])
def test_other_bytes_are_refused_and_overwrite_nothing(
    storage: Storage, file: Path, tmp_path: Path, other: bytes
) -> None:
    storage.put_new("index/a", file)
    (tmp_path / "other").write_bytes(other)
    with pytest.raises(StorageConflictError, match=r"index/a exists in .* with other bytes"):
        storage.put_new("index/a", tmp_path / "other")
    assert storage.read("index/a") == file.read_bytes()


def test_an_empty_file_is_a_file(storage: Storage, tmp_path: Path) -> None:
    put_bytes(storage, "empty", b"", tmp_path)
    assert (storage.read("empty"), storage.size("empty")) == (b"", 0)


def test_bytes_are_put_as_a_file_is_and_leave_nothing_in_scratch(storage: Storage, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    put_bytes(storage, "ledger/a.json", b"{}", scratch)
    put_bytes(storage, "ledger/a.json", b"{}", scratch)
    with pytest.raises(StorageConflictError):
        put_bytes(storage, "ledger/a.json", b"[]", scratch)
    assert storage.read("ledger/a.json") == b"{}"
    assert list(scratch.iterdir()) == []


def test_names_are_the_files_of_one_folder_sorted(storage: Storage, tmp_path: Path) -> None:
    for path in ("ledger/b", "ledger/a", "ledger/deeper/c", "ledger-other/d", "e"):
        put_bytes(storage, path, path.encode(), tmp_path)
    assert storage.names("ledger") == ["a", "b"]


def test_sizes_of_a_folder_come_from_one_listing(storage: Storage, tmp_path: Path) -> None:
    for path, size in (("ledger/b", 3), ("ledger/a", 0), ("ledger/deeper/c", 1), ("e", 2)):
        put_bytes(storage, path, b"x" * size, tmp_path)
    assert storage.sizes("ledger") == {"a": 0, "b": 3}
    assert storage.sizes("nothing") == {}


def test_many_files_are_read_in_the_order_they_are_asked_for(storage: Storage, tmp_path: Path) -> None:
    paths = [f"ledger/{number}" for number in range(40)]
    for path in paths:
        put_bytes(storage, path, path.encode(), tmp_path)
    assert [data.decode() for data in read_all(storage, paths[::-1])] == paths[::-1]
    with pytest.raises(FileNotFoundError):
        list(read_all(storage, [*paths, "ledger/none"]))


def test_heartbeats_are_replaced_and_removed(storage: Storage) -> None:
    storage.replace("progress/worker.json", b"first")
    assert storage.read("progress/worker.json") == b"first"
    storage.replace("progress/worker.json", b"second, longer")
    assert storage.read("progress/worker.json") == b"second, longer"
    storage.remove("progress/worker.json")
    assert storage.size("progress/worker.json") is None
    assert storage.names("progress") == []


def test_a_storage_opens_again_from_its_url(storage: Storage, tmp_path: Path) -> None:
    put_bytes(storage, "a", b"1", tmp_path)
    assert open_storage(storage.url).read("a") == b"1"


def test_urls_and_paths_choose_the_kind_of_storage(tmp_path: Path) -> None:
    for place in (tmp_path, str(tmp_path), f"file://{tmp_path}"):
        assert open_storage(place).local == tmp_path
    assert open_storage("memory://bucket/a/").local is None
    assert open_storage("memory://bucket/a/").url == "memory://bucket/a"
    with pytest.raises(PrepError, match="nosuchstore://x cannot be opened"):
        open_storage("nosuchstore://x")


def test_names_do_not_show_partial_files(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    put_bytes(storage, "ledger/a", b"1", tmp_path)
    (tmp_path / "ledger" / ".b.host-123-abc.partial").write_bytes(b"half")
    assert storage.names("ledger") == ["a"]


def test_nothing_appears_where_the_file_cannot_be_read(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "set")
    with pytest.raises(FileNotFoundError):
        storage.put_new("ledger/a", tmp_path / "missing")
    assert storage.names("ledger") == []
    assert leftovers(tmp_path) == []


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another file system than `tmp_path`."""
    with tempfile.TemporaryDirectory(dir=SHM) as folder:
        yield Path(folder)


def on_two_file_systems(one: Path, other: Path) -> bool:
    return one.stat().st_dev != other.stat().st_dev


@needs_other_file_system
def test_a_file_of_another_file_system_is_put_as_well(tmp_path: Path, elsewhere: Path) -> None:
    if not on_two_file_systems(tmp_path, elsewhere):
        pytest.skip("the temporary folder lies on /dev/shm as well")
    storage = LocalStorage(tmp_path)
    (elsewhere / "a").write_bytes(b"far" * 1000)
    (elsewhere / "b").write_bytes(b"off" * 1000)
    with pytest.raises(OSError, match="cross-device") as caught:
        os.link(elsewhere / "a", tmp_path / "probe")
    assert caught.value.errno == errno.EXDEV
    storage.put_new("shards/a.tar", elsewhere / "a")
    storage.put_new("shards/a.tar", elsewhere / "a")
    with pytest.raises(StorageConflictError):
        storage.put_new("shards/a.tar", elsewhere / "b")
    assert storage.read("shards/a.tar") == b"far" * 1000
    assert leftovers(tmp_path) == []


@needs_other_file_system
def test_a_copy_that_fails_half_way_leaves_no_name_and_no_partial(tmp_path: Path, elsewhere: Path) -> None:
    """The limit on the size of files stands for a full disk: the copy stops with an error in the middle."""
    if not on_two_file_systems(tmp_path, elsewhere):
        pytest.skip("the temporary folder lies on /dev/shm as well")
    (elsewhere / "a").write_bytes(bytes(3_000_000))
    script = f"""
        import resource, signal
        from pathlib import Path
        from exaone_prep.storage import LocalStorage
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        try:
            LocalStorage(Path({str(tmp_path)!r})).put_new("shards/a.tar", Path({str(elsewhere / "a")!r}))
        except OSError as error:
            print(error.errno)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EFBIG)]
    assert list((tmp_path / "shards").iterdir()) == []


_PUT_WHEN_TOLD = """
import sys, time
from pathlib import Path
from exaone_prep.errors import StorageConflictError
from exaone_prep.storage import LocalStorage
root, go, name, file = map(Path, sys.argv[1:])
storage = LocalStorage(root)
print("ready", flush=True)
while not go.exists():
    pass
for number in range(20):
    try:
        storage.put_new(f"ledger/{number}", file)
        print("won", flush=True)
    except StorageConflictError:
        print("lost", flush=True)
"""


@needs_other_file_system
@pytest.mark.parametrize("far", [False, True], ids=["same file system", "another file system"])
def test_of_many_processes_that_put_one_name_exactly_one_wins(tmp_path: Path, far: bool, elsewhere: Path) -> None:
    sources = elsewhere if far else tmp_path
    files = []
    for number in range(5):
        file = sources / f"file-{number}"
        file.write_bytes(bytes([number]) * 200_000)
        files.append(file)
    command = [sys.executable, "-c", _PUT_WHEN_TOLD, str(tmp_path / "set"), str(tmp_path / "go"), "ledger"]
    processes = [subprocess.Popen([*command, str(file)], stdout=subprocess.PIPE, text=True) for file in files]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    answers = [process.communicate(timeout=120)[0].split() for process in processes]
    for number in range(20):
        winners = [file for file, answer in zip(files, answers, strict=True) if answer[number] == "won"]
        assert len(winners) == 1
        assert (tmp_path / "set" / "ledger" / str(number)).read_bytes() == winners[0].read_bytes()
    assert leftovers(tmp_path / "set") == []


def test_file_and_folders_are_synced_before_the_name_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut no name may point at missing bytes, and no folder may have lost its new name."""
    steps: list[str] = []
    fsync, link = os.fsync, os.link

    def noted_fsync(descriptor: int) -> None:
        steps.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().relative_to(tmp_path)}")
        fsync(descriptor)

    def noted_link(source: Path, target: Path) -> None:
        steps.append(f"link {target.relative_to(tmp_path)}")
        link(source, target)

    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "set").mkdir()
    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "link", noted_link)
    LocalStorage(tmp_path / "set").put_new("shards/train/a.tar", tmp_path / "file")
    linked = steps.index("link set/shards/train/a.tar")
    assert "sync file" in steps[:linked]
    assert "sync set" in steps
    assert "sync set/shards" in steps
    assert "sync set/shards/train" in steps[linked:]


def partial(folder: Path, host: str, pid: int, *, age_s: float = 0) -> Path:
    """What a builder that was killed while it wrote `a.tar` leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".a.tar.{host}-{pid}-0123abcd.partial"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def dead_pid() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("verb", ["put_new", "replace"])
def test_partials_of_dead_builders_are_swept_and_no_others(tmp_path: Path, verb: str) -> None:
    folder, here, day_s = tmp_path / "shards", socket.gethostname(), 24 * 3600
    dead = partial(folder, here, dead_pid())
    living = partial(folder, here, os.getpid())
    far = partial(folder, "another-host", dead_pid())
    far_and_old = partial(folder, "a-third-host", 1, age_s=1.1 * day_s)
    storage = LocalStorage(tmp_path)
    if verb == "put_new":
        put_bytes(storage, "shards/b.tar", b"1", tmp_path)
    else:
        storage.replace("shards/b.tar", b"1")
    assert [path.exists() for path in (dead, living, far, far_and_old)] == [False, True, True, False]


@needs_other_file_system
def test_a_builder_that_is_killed_while_it_copies_leaves_a_partial_that_the_next_one_sweeps(
    tmp_path: Path, elsewhere: Path
) -> None:
    if not on_two_file_systems(tmp_path, elsewhere):
        pytest.skip("the temporary folder lies on /dev/shm as well")
    (elsewhere / "a").write_bytes(b"whole")
    script = f"""
        import os, shutil, signal
        from pathlib import Path
        from exaone_prep.storage import LocalStorage
        def die(source, target):
            Path(target).write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        shutil.copyfile = die
        LocalStorage(Path({str(tmp_path)!r})).put_new("shards/a.tar", Path({str(elsewhere / "a")!r}))
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False).returncode == -9
    assert len(leftovers(tmp_path)) == 1
    LocalStorage(tmp_path).put_new("shards/a.tar", elsewhere / "a")
    assert leftovers(tmp_path) == []
    assert (tmp_path / "shards" / "a.tar").read_bytes() == b"whole"
