"""The limit of the scratch, and a scratch that is full: groups wait, and no slide is blamed."""

from __future__ import annotations

import errno
import json
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from exaone_prep import group as group_module
from exaone_prep.build import LocalExecutor
from exaone_prep.dataset import Dataset, create_dataset
from exaone_prep.group import GroupBuilder
from exaone_prep.ledger import GroupRecord, committed_groups
from exaone_prep.pool import WorkerPool
from exaone_prep.scratch import Scratch, ScratchTooSmallError, open_scratch, used_bytes
from tests.builds import digest_of, finish, start
from tests.commandline import run_here
from tests.disks import fill
from tests.smallslides import build_small, manifest_of, small_slides

WAIT_S = 60.0
MB = 10**6


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    small_slides(folder, 2)
    return folder


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_module, "LOOK_FOR_ROOM_EVERY_S", 0.02)


def wait_until(true: Callable[[], object]) -> None:
    """Until it comes true, within a generous time."""
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def begun(slides: Path, folder: Path) -> Dataset:
    manifest = manifest_of(slides, shards={"slides_per_group": 1})
    return create_dataset(folder / "out", manifest, base=folder)


def build(dataset: Dataset, scratch: Scratch, log: Path, said: list[str]) -> GroupRecord:
    with WorkerPool(1, log) as pool:
        return GroupBuilder(dataset=dataset, pool=pool, scratch=scratch, say=said.append).build(0)


def test_builders_under_one_root_never_claim_more_than_the_limit_together(tmp_path: Path) -> None:
    root = tmp_path / "scratch"
    with Scratch(root, 100 * MB) as one, Scratch(root, 100 * MB) as other:
        assert one.claim("a", 60 * MB)
        assert not other.claim("a", 60 * MB)
        assert other.claim("a", 40 * MB)
        assert not one.claim("b", MB)
        assert one.claim("a", 50 * MB)  # less than before always fits
        assert other.claim("b", 10 * MB)
        other.release("a")
        assert one.claim("b", 40 * MB)


def test_what_a_builder_without_a_limit_holds_counts_as_well(tmp_path: Path) -> None:
    with Scratch(tmp_path) as free, Scratch(tmp_path, 10 * MB) as limited:
        (free.path / "spool").write_bytes(bytes(4 * MB))
        assert not limited.claim("a", 7 * MB)
        assert limited.claim("a", 5 * MB)
        assert free.claim("a", 10**15)


def test_claims_made_at_once_are_granted_one_after_the_other(tmp_path: Path) -> None:
    builders = [Scratch(tmp_path, 100 * MB) for _ in range(8)]
    granted: list[bool] = []
    barrier = threading.Barrier(len(builders))

    def claim(scratch: Scratch) -> None:
        barrier.wait()
        granted.append(scratch.claim("a", 40 * MB))

    threads = [threading.Thread(target=claim, args=(scratch,)) for scratch in builders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 2


def test_a_group_waits_until_another_builder_gives_room_and_says_so(slides: Path, tmp_path: Path) -> None:
    dataset, said = begun(slides, tmp_path), list[str]()
    root = tmp_path / "scratch"
    with Scratch(root, 50 * MB) as other, Scratch(root, 50 * MB) as scratch:
        assert other.claim("group-000007", 49 * MB)
        records: list[GroupRecord] = []
        thread = threading.Thread(
            target=lambda: records.append(build(dataset, scratch, tmp_path / "log", said)), daemon=True
        )
        thread.start()
        wait_until(lambda: said)
        time.sleep(0.2)
        assert sorted(path.name for path in scratch.path.iterdir()) == ["log", "owner.json"], "nothing is begun"
        other.release("group-000007")
        thread.join(WAIT_S)
    assert records[0].outcomes == {"done": 1}
    assert len(said) == 1
    assert "Group 0 waits for room on the scratch" in said[0]
    assert "others hold too much of the limit" in said[0]


def test_room_that_a_dead_builder_held_is_found(slides: Path, tmp_path: Path) -> None:
    root = tmp_path / "scratch"
    with Scratch(root, 50 * MB) as scratch:
        left = root / "elsewhere-1-dead"
        left.mkdir()
        owner = json.loads((scratch.path / "owner.json").read_text())
        (left / "owner.json").write_text(json.dumps({**owner, "started": "1"}))
        (left / "claimed").write_text(str(49 * MB))
        said: list[str] = []
        assert build(begun(slides, tmp_path), scratch, tmp_path / "log", said).outcomes == {"done": 1}
        assert len(said) == 1


def test_a_builder_that_finds_no_room_even_for_its_own_folder_waits_unless_it_is_the_disk_of_the_data_set(
    tmp_path: Path, small_disk: Path
) -> None:
    ballast = fill(small_disk, 0)
    said: list[str] = []

    def give_room(sentence: str) -> None:
        said.append(sentence)
        assert list(small_disk.glob("scratch/*")) == []
        ballast.unlink()

    with open_scratch(small_disk / "scratch", None, tmp_path, say=give_room) as scratch:
        assert (scratch.path / "owner.json").stat().st_size > 0
    assert said == [f"The disk of the scratch {small_disk}/scratch is full: waiting for room."]
    fill(small_disk, 0)
    with pytest.raises(OSError, match="No space left"):
        open_scratch(small_disk / "scratch", None, small_disk, say=said.append)
    assert len(said) == 1


def test_a_disk_without_room_for_the_folder_of_a_group_is_waited_for(
    slides: Path, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with Scratch(small_disk / "scratch") as scratch, WorkerPool(1, tmp_path / "log") as pool:
        ballast = fill(small_disk, 0)
        found = scratch.folder

        def folder(name: str) -> AbstractContextManager[Path]:
            if ballast.exists():  # a file system on a real disk has no block left for it
                raise OSError(errno.ENOSPC, "No space left on device")
            return found(name)

        def give_room(sentence: str) -> None:
            said.append(sentence)
            ballast.unlink()

        monkeypatch.setattr(scratch, "folder", folder)
        builder = GroupBuilder(dataset=begun(slides, tmp_path), pool=pool, scratch=scratch, say=give_room)
        assert builder.build(0).outcomes == {"done": 1}
    assert len(said) == 1


def test_room_that_was_given_back_before_anybody_looked_is_not_waited_for(
    slides: Path, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with Scratch(small_disk / "scratch") as scratch:
        found, full = scratch.folder, iter([True, False])

        def folder(name: str) -> AbstractContextManager[Path]:
            if next(full):
                raise OSError(errno.ENOSPC, "No space left on device")
            return found(name)

        monkeypatch.setattr(scratch, "folder", folder)
        assert build(begun(slides, tmp_path), scratch, tmp_path / "log", said).outcomes == {"done": 1}
    assert said == [], "more than the whole disk would never be free"


def test_a_group_keeps_within_what_it_claimed(slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = begun(slides, tmp_path)
    seen: list[tuple[int, int]] = []
    with Scratch(tmp_path / "scratch", 50 * MB) as scratch:

        def look(step: str) -> None:
            claimed = int((scratch.path / "claimed").read_text())
            seen.append((used_bytes(scratch.path), claimed))

        monkeypatch.setattr(group_module, "reach", look)
        build(dataset, scratch, tmp_path / "log", [])
        assert (scratch.path / "claimed").read_text() == "0"
    assert len(seen) > 5
    assert all(used <= claimed + 64_000 for used, claimed in seen), seen  # blocks of the file system, the log
    assert max(claimed for _, claimed in seen) < 3 * MB, "the need is estimated, and not the limit taken"


def test_a_group_that_can_never_fit_is_one_sentence_before_anything_is_cut(slides: Path, tmp_path: Path) -> None:
    dataset = begun(slides, tmp_path)
    said: list[str] = []
    with Scratch(tmp_path / "scratch", 400_000) as scratch:
        with pytest.raises(ScratchTooSmallError) as caught:
            build(dataset, scratch, tmp_path / "log", said)
        assert {path.name for path in scratch.path.iterdir()} - {"claimed"} == {"log", "owner.json"}
    assert "Group 0 needs about" in str(caught.value)
    assert "the limit is 400 kB" in str(caught.value)
    assert said == []


def test_other_groups_are_built_and_the_one_that_cannot_fit_is_named(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("build", "--slides", f"{slides}/*.tiff", "--out", str(out), "--workers", "1")
    ended = run_here(*words, "--scratch-limit", "400kB")
    assert ended.code == 1
    assert "1 of 1 groups could not be built" in ended.err
    assert "the limit is 400 kB: raise --scratch-limit" in ended.err
    assert len(list((out / "attempts").iterdir())) == 1, "another attempt would end in the same way"
    ended = run_here(*words, "--scratch-limit", "50MB")
    assert ended.code == 0, ended.err
    limit_is_no_size = run_here(*words, "--scratch-limit", "much")
    assert (limit_is_no_size.code, "200GB" in limit_is_no_size.err) == (2, True)


def test_a_full_scratch_waits_and_with_room_the_group_is_built_anew(
    slides: Path, tmp_path: Path, small_disk: Path
) -> None:
    dataset, said = begun(slides, tmp_path), list[str]()
    ballast = fill(small_disk, 60_000)
    log = tmp_path / "log"
    with Scratch(small_disk / "scratch") as scratch, WorkerPool(1, log) as pool:
        builder = GroupBuilder(dataset=dataset, pool=pool, scratch=scratch, say=said.append)

        def give_room() -> None:
            wait_until(lambda: said)
            ballast.unlink()

        thread = threading.Thread(target=give_room)
        thread.start()
        ended = list(LocalExecutor(builder).run([0, 1]))
        thread.join()
    assert ended == [(0, None), (1, None)]
    assert len(said) == 1
    assert "the disk is full" in said[0]
    assert committed_groups(dataset.storage) == [0, 1]
    assert not (tmp_path / "out" / "attempts").exists()
    here = tmp_path / "undisturbed"
    here.mkdir()
    build_small(manifest_of(slides, shards={"slides_per_group": 1}), here / "out")
    for tar in (here / "out").glob("shards/**/*.tar"):
        assert (tmp_path / "out" / tar.relative_to(here / "out")).read_bytes() == tar.read_bytes()


def test_who_waits_for_room_shows_it_and_ends_at_once_when_told_to(
    slides: Path, tmp_path: Path, small_disk: Path
) -> None:
    out = tmp_path / "out"
    ballast = fill(small_disk, 200_000)
    words = ("build", "--slides", f"{slides}/*.tiff", "--out", str(out), "--workers", "1", "--scratch", str(small_disk))

    def beats() -> list[str]:
        return [str(json.loads(path.read_text())["stage"]) for path in out.glob("progress/*.json")]

    process = start(*words)
    try:
        wait_until(lambda: beats() == ["wait"])
        assert "wait, 0 of 0 patches" in run_here("status", out).out
        told = time.monotonic()
        process.send_signal(signal.SIGTERM)
    finally:
        ended = finish(process)
    assert time.monotonic() - told < 10
    assert ended.code == 130
    assert "waits for room on the scratch" in ended.err
    assert not (out / "attempts").exists()
    ballast.unlink()
    assert run_here(*words).code == 0
    assert digest_of(out)
    assert [path.name for path in small_disk.iterdir()] == []
