"""Slides on their way to this machine: by threads, in order, and the rest of the group does not wait for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from exaone_prep import stage as stage_module
from exaone_prep.catalog import stamp_slide
from exaone_prep.catalog.place import read_chunks
from exaone_prep.dataset import Dataset, create_dataset
from exaone_prep.errors import PrepError, SlideChangedError, UnreachableError
from exaone_prep.group import GroupBuilder
from exaone_prep.manifest import parse_manifest
from exaone_prep.pool import WorkerPool
from exaone_prep.scratch import Scratch
from exaone_prep.stage import THREADS, Staging
from tests.builds import files_of
from tests.smallslides import build_small, manifest_of, small_slides

WAIT_S = 60.0


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    small_slides(folder, 3)
    return folder


@pytest.fixture
def store(slides: Path) -> Iterator[str]:
    """The slides in another store."""
    files = fsspec.filesystem("memory")
    for slide in sorted(slides.iterdir()):
        files.pipe_file(f"/staged/{slide.name}", slide.read_bytes())
    yield "memory://staged"
    files.rm("/staged", recursive=True)


def begun(where: str, folder: Path, *, slides_per_group: int = 64) -> Dataset:
    document = {
        "name": "small",
        "cohorts": [{"name": "c", "slides": [f"{where}/*.tiff"]}],
        "splits": {},
        "shards": {"slides_per_group": slides_per_group},
    }
    return create_dataset(folder / "out", parse_manifest(document, {}, where="m.yaml"), base=folder)


class Arrivals:
    """What a staging called back with."""

    def __init__(self) -> None:
        self.paths: dict[int, Path] = {}
        self.errors: list[BaseException] = []

    def come(self, number: int, path: Path) -> None:
        """See `Arrival`."""
        self.paths[number] = path

    def fail(self, error: BaseException) -> None:
        """See `Failing`."""
        self.errors.append(error)

    def wait(self, count: int) -> None:
        """Until so many callbacks."""
        end = time.monotonic() + WAIT_S
        while len(self.paths) + len(self.errors) < count:
            assert time.monotonic() < end
            time.sleep(0.01)


def staging_of(dataset: Dataset, folder: Path) -> Staging:
    return Staging(dataset.groups[0], dataset.names.uris, folder)


def test_remote_slides_are_copied_with_their_content_and_go_with_the_staging(store: str, tmp_path: Path) -> None:
    dataset, seen = begun(store, tmp_path), Arrivals()
    staging = staging_of(dataset, tmp_path / "staged")
    staging.deliver(seen.come, seen.fail)
    seen.wait(3)
    staging.finish()
    assert {stamp_slide(str(seen.paths[number])).text for number in range(3)} == {
        row.stamp for row in dataset.catalog.rows
    }
    staging.done_with(1)
    assert [seen.paths[number].exists() for number in range(3)] == [True, False, True]
    staging.end()
    assert not (tmp_path / "staged").exists()


def test_what_came_before_anybody_asked_is_handed_out(store: str, tmp_path: Path) -> None:
    staging, seen = staging_of(begun(store, tmp_path), tmp_path / "staged"), Arrivals()
    staging.finish()
    staging.deliver(seen.come, seen.fail)
    assert sorted(seen.paths) == [0, 1, 2]
    staging.end()


def test_local_slides_are_not_copied_and_one_that_changes_while_it_is_read_is_named(tmp_path: Path) -> None:
    [slide] = small_slides(tmp_path / "slides", 1)
    dataset, seen = begun(str(tmp_path / "slides"), tmp_path), Arrivals()
    staging = staging_of(dataset, tmp_path / "staged")
    staging.deliver(seen.come, seen.fail)
    seen.wait(1)
    assert seen.paths == {0: slide}
    assert list((tmp_path / "staged").iterdir()) == []
    slide.write_bytes(slide.read_bytes()[:-1] + b"x")
    staging.done_with(0)
    with pytest.raises(SlideChangedError, match="slide-00"):
        staging.finish()
    staging.end()


def test_a_slide_that_is_gone_fails_the_group_and_says_nothing_about_the_slide(store: str, tmp_path: Path) -> None:
    dataset = begun(store, tmp_path)
    fsspec.filesystem("memory").rm("/staged/slide-01.tiff")
    with (
        Scratch(tmp_path / "scratch") as scratch,
        WorkerPool(1, tmp_path / "log") as pool,
        pytest.raises(UnreachableError, match="slide-01"),
    ):
        GroupBuilder(dataset=dataset, pool=pool, scratch=scratch).build(0)
    assert not list((tmp_path / "out").glob("survey/*"))


def test_a_slide_is_cut_and_its_copy_gone_while_the_next_is_still_on_its_way(
    store: str, slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last slide is held back until another has its spool; a build that waited for it would never end."""
    spools: list[Path] = []
    copies: list[list[str]] = []

    def slow(uri: str) -> Iterator[bytes]:
        if uri.endswith("slide-02.tiff"):
            end = time.monotonic() + WAIT_S
            while True:
                spools[:] = sorted((tmp_path / "scratch").rglob("*.npy"))
                left = sorted(path.name for path in (tmp_path / "scratch").rglob("*.tiff"))
                if len(spools) == 2 and left == ["slide-02.tiff"]:
                    break
                if time.monotonic() > end:
                    raise PrepError("nothing is cut while this slide is on its way")
                time.sleep(0.02)
            copies.append(left)
        yield from read_chunks(uri)

    monkeypatch.setattr(stage_module, "read_chunks", slow)
    dataset = begun(store, tmp_path)
    with Scratch(tmp_path / "scratch") as scratch, WorkerPool(2, tmp_path / "log") as pool:
        record = GroupBuilder(dataset=dataset, pool=pool, scratch=scratch).build(0)
    assert copies == [["slide-02.tiff"]]
    assert record.outcomes == {"done": 3}
    local = tmp_path / "local"
    local.mkdir()
    build_small(manifest_of(slides), local / "out")
    theirs = {name: data for name, data in files_of(local / "out").items() if name.endswith(".tar")}
    assert {name: data for name, data in files_of(tmp_path / "out").items() if name.endswith(".tar")} == theirs


def test_few_slides_are_fetched_at_a_time(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = fsspec.filesystem("memory")
    for number in range(3 * THREADS):
        files.pipe_file(f"/staged/more-{number:02d}.tiff", b"II*\0" + bytes([number]) * 1000)
    lock, now, most = threading.Lock(), [0], [0]

    def counted(uri: str) -> Iterator[bytes]:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        yield from read_chunks(uri)
        with lock:
            now[0] -= 1

    monkeypatch.setattr(stage_module, "read_chunks", counted)
    staging = staging_of(begun(store, tmp_path), tmp_path / "staged")
    staging.finish()
    staging.end()
    assert most[0] == THREADS


def test_a_staging_that_nobody_wants_any_more_ends_in_the_middle_of_a_slide(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(uri: str) -> Iterator[bytes]:
        while True:
            time.sleep(0.01)
            yield uri.encode()

    monkeypatch.setattr(stage_module, "read_chunks", endless)
    staging = staging_of(begun(store, tmp_path), tmp_path / "staged")
    time.sleep(0.1)
    began = time.monotonic()
    staging.end()
    assert time.monotonic() - began < 2
    assert not (tmp_path / "staged").exists()


def test_a_store_that_answers_after_its_slides_are_not_wanted_any_more_leaves_nothing(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answers = threading.Event(), threading.Event()

    def late(uri: str) -> Iterator[str]:
        asked.set()
        answers.wait(WAIT_S)
        yield uri

    monkeypatch.setattr(stage_module, "members_of", late)
    monkeypatch.setattr(stage_module, "_END_S", 0.1)
    staging = staging_of(begun(store, tmp_path), tmp_path / "staged")
    assert asked.wait(WAIT_S)
    staging.end()
    answers.set()
    for thread in staging._threads:
        thread.join(WAIT_S)
    # Another attempt at the group makes the folder anew, and must not find it.
    assert not (tmp_path / "staged").exists()


def test_the_next_group_is_fetched_while_the_present_one_is_packed(store: str, tmp_path: Path) -> None:
    dataset = begun(store, tmp_path, slides_per_group=1)
    with Scratch(tmp_path / "scratch") as scratch, WorkerPool(1, tmp_path / "log") as pool:
        builder = GroupBuilder(dataset=dataset, pool=pool, scratch=scratch)
        builder.build(0, then=1)
        assert (scratch.path / "staged-000001").is_dir()
        end = time.monotonic() + WAIT_S
        while not list((scratch.path / "staged-000001").rglob("*.tiff")):
            assert time.monotonic() < end
            time.sleep(0.02)
        builder.build(1, then=2)
        assert not (scratch.path / "staged-000001").exists()
        builder.close()
        assert sorted(path.name for path in scratch.path.iterdir()) == ["log", "owner.json"]
