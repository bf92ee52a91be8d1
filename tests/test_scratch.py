"""Working space goes with its builder; of other builders only that of the dead is swept."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from exaone_prep.dataset import create_dataset
from exaone_prep.group import GroupBuilder
from exaone_prep.pool import WorkerPool
from exaone_prep.scratch import Scratch, sweep
from tests.smallslides import manifest_of, small_slides

DAY_S = 24 * 3600


def builder(root: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that has working space and stays; and the folder."""
    script = f"""
        import sys
        from pathlib import Path
        from exaone_prep.scratch import Scratch
        scratch = Scratch(Path({str(root)!r}))
        with scratch.folder("group-000000") as folder:
            (folder / "spool").write_bytes(b"patches")
            print(scratch.path, flush=True)
            sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def owned(root: Path, host: str, pid: int, started: str | None, *, age_s: float = 0) -> Path:
    """A folder as a builder leaves it."""
    folder = root / f"{host}-{pid}-00000000"
    folder.mkdir(parents=True)
    (folder / "spool").write_bytes(b"patches")
    (folder / "owner.json").write_text(json.dumps({"host": host, "pid": pid, "started": started}))
    os.utime(folder, (time.time() - age_s,) * 2)
    return folder


def started(pid: int) -> str:
    """Field 22 of /proc/<pid>/stat (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]


def test_a_builder_has_a_folder_of_its_own_that_goes_with_it(tmp_path: Path) -> None:
    root = tmp_path / "scratch"
    with Scratch(root) as one, Scratch(root) as other:
        assert one.path != other.path
        (one.path / "spool").write_bytes(b"patches")
        assert other.path.is_dir()
    assert not root.exists()


def test_it_goes_when_the_build_fails_as_well(tmp_path: Path) -> None:
    def build() -> None:
        with Scratch(tmp_path / "scratch") as scratch:
            (scratch.path / "spool").write_bytes(b"patches")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        build()
    assert list(tmp_path.iterdir()) == []


def test_the_space_of_a_group_is_given_back_when_it_ends(tmp_path: Path) -> None:
    with Scratch(tmp_path / "scratch") as scratch:
        for _ in range(2):
            with scratch.folder("group-000001") as folder:
                assert list(folder.iterdir()) == []
                (folder / "spool").write_bytes(b"patches")
            assert not folder.exists()
        with pytest.raises(OSError, match="full"), scratch.folder("group-000002") as folder:
            raise OSError("full")
        assert not folder.exists()


def test_a_build_of_several_groups_never_holds_the_spools_of_two(tmp_path: Path) -> None:
    small_slides(tmp_path / "slides", 2)
    manifest = manifest_of(tmp_path / "slides", shards={"slides_per_group": 1})
    dataset = create_dataset(tmp_path / "out", manifest, base=tmp_path)
    with Scratch(tmp_path / "scratch") as scratch, WorkerPool(1, tmp_path / "log") as pool:
        builder_here = GroupBuilder(dataset=dataset, pool=pool, scratch=scratch)
        for group in dataset.groups:
            builder_here.build(group)
            assert sorted(path.name for path in scratch.path.iterdir()) == ["log", "owner.json"]


def test_the_next_builder_sweeps_what_a_killed_one_left(tmp_path: Path) -> None:
    process, left = builder(tmp_path / "scratch")
    assert (left / "group-000000" / "spool").exists()
    kill(process)
    assert left.exists()
    with Scratch(tmp_path / "scratch"):
        assert not left.exists()


def test_a_living_builder_keeps_its_folder_however_old(tmp_path: Path) -> None:
    process, used = builder(tmp_path / "scratch")
    try:
        os.utime(used, (time.time() - 30 * DAY_S,) * 2)
        with Scratch(tmp_path / "scratch"):
            assert (used / "group-000000" / "spool").read_bytes() == b"patches"
        assert used.exists()
    finally:
        kill(process)


@pytest.mark.parametrize(("age_s", "kept"), [(0, True), (0.9 * DAY_S, True), (1.1 * DAY_S, False)])
def test_what_belongs_to_another_host_is_kept_until_it_is_a_day_old(tmp_path: Path, age_s: float, kept: bool) -> None:
    """Whether a process over there lives cannot be seen from here."""
    folder = owned(tmp_path, "another-host", 2**22 + 1, "1", age_s=age_s)
    sweep(tmp_path)
    assert folder.exists() == kept


def test_a_later_process_with_the_number_of_a_dead_builder_does_not_keep_its_folder(tmp_path: Path) -> None:
    here = socket.gethostname()
    mine = owned(tmp_path, here, os.getpid(), started(os.getpid()))
    earlier = owned(tmp_path / "b", here, os.getpid(), str(int(started(os.getpid())) - 1))
    sweep(tmp_path)
    sweep(tmp_path / "b")
    assert mine.exists()
    assert not earlier.exists()


@pytest.mark.parametrize("written", [None, "", '{"host": "h'])
def test_a_folder_whose_owner_is_not_written_yet_is_kept_for_a_day(tmp_path: Path, written: str | None) -> None:
    young, old = tmp_path / "young", tmp_path / "old"
    for folder in (young, old):
        folder.mkdir()
        if written is not None:
            (folder / "owner.json").write_text(written)
    os.utime(old, (time.time() - 1.1 * DAY_S,) * 2)
    sweep(tmp_path)
    assert young.exists()
    assert not old.exists()


def test_files_beside_the_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    sweep(tmp_path)
    sweep(tmp_path / "there is no such folder")
    assert (tmp_path / "note.txt").exists()


def test_a_process_whose_name_is_odd_is_told_alive(tmp_path: Path) -> None:
    """The name in /proc/<pid>/stat may hold blanks and parentheses."""
    script = tmp_path / "a) b (c"
    script.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(script), "600"])
    try:
        folder = owned(tmp_path / "scratch", socket.gethostname(), process.pid, started(process.pid))
        sweep(tmp_path / "scratch")
        assert folder.exists()
    finally:
        process.kill()
        process.wait()
