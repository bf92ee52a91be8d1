"""Whatever is wrong with slides, settings or disks: a row with a reason, or one sentence; never less, never a hang."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from exaone_prep import group as group_module
from exaone_prep.dataset import create_dataset
from tests.catalogs import table
from tests.commandline import Ended, run, run_here
from tests.committed import outcomes, results, samples
from tests.disks import fill
from tests.smallslides import manifest_of, small_slide, tissue_rgb, write_slide

ONE_WORKER = ("--workers", 1)
NO_CAPABILITIES = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
PR_CAPBSET_DROP = 24


def build(slides: Path | str, out: Path, *more: object) -> Ended:
    """Build all TIFFs of a folder in this process."""
    return run_here("build", "--slides", slides, "--out", out, *ONE_WORKER, *more)


def damage(path: Path, tiles: list[int]) -> None:
    """Make tiles of level 0 zeros, by their number in raster order."""
    data = bytearray(path.read_bytes())
    starts = [i for i in range(len(data) - 3) if data[i : i + 3] == b"\xff\xd8\xff"]
    for tile in tiles:
        data[starts[tile] : starts[tile + 1]] = bytes(starts[tile + 1] - starts[tile])
    path.write_bytes(data)


def attempts(dataset: Path) -> list[dict[str, Any]]:
    """Failed attempts, in order."""
    folder = dataset / "attempts"
    return [json.loads(file.read_text()) for file in sorted(folder.iterdir())] if folder.exists() else []


# Bad slides among good ones.


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of slides that have everything wrong with them, and of two good ones."""
    folder = tmp_path_factory.mktemp("mixed")
    slides = folder / "slides"
    good = small_slide(slides / "good.tiff", 1)
    shutil.copy(good, slides / "same_content.tiff")
    (slides / "text.svs").write_text("this is not a slide\n" * 1000)
    (slides / "zero_bytes.tiff").touch()
    os.mkfifo(slides / "pipe.tiff")
    small_slide(slides / "no_mpp.tiff", 2, mpp=None)
    small_slide(slides / "screen_mpp.tiff", 3, mpp=352.8)
    small_slide(slides / "coarse.tiff", 4, mpp=0.6)
    write_slide(slides / "blank.tiff", np.full((768, 1024, 3), 243, np.uint8))
    write_slide(slides / "not_he.tiff", tissue_rgb(5)[..., [0, 2, 1]])
    whole = small_slide(slides / "cut_off.tiff", 6).stat().st_size
    os.truncate(slides / "cut_off.tiff", whole // 3)
    # 8 × 6 tiles of 128 px, of which every patch of 256 px covers four.
    damage(small_slide(slides / "one_bad_tile.tiff", 7), [20])
    damage(small_slide(slides / "two_bad_tiles.tiff", 8), [20, 38])
    odd = small_slide(folder / "odd" / "typing_error.tiff", 9)
    manifest = folder / "data_manifest.yaml"
    cohorts = [
        {"name": "folder", "slides": ["slides"]},
        {"name": "table", "table": table(folder / "odd.csv", [{"slide": odd, "mpp": 500}])},
    ]
    quality = {"max_unreadable": 0.1}  # of 12 patches: one may be damaged
    manifest.write_text(yaml.safe_dump({"name": "mixed", "cohorts": cohorts, "quality": quality, "splits": {}}))
    run_here("build", manifest, "--out", folder / "dataset", *ONE_WORKER).succeeded()
    return folder / "dataset"


def test_every_bad_slide_has_a_row_with_its_reason_and_the_good_ones_are_done(mixed: Path) -> None:
    assert results(mixed) == {
        "good": "done",
        "same_content": "duplicate",
        "text": "not_a_slide",
        "zero_bytes": "empty_file",
        "pipe": "not_a_file",
        "no_mpp": "no_mpp",
        "screen_mpp": "no_mpp",
        "coarse": "too_coarse",
        "blank": "empty",
        "not_he": "not_he",
        "cut_off": "unreadable",
        "one_bad_tile": "done",
        "two_bad_tiles": "unreadable",
        "typing_error": "absurd_mpp",
    }


def test_sentences_of_bad_slides_can_be_acted_on(mixed: Path) -> None:
    rows = outcomes(mixed)
    for slide, words in {
        "same_content": "slide good",
        "zero_bytes": "zero bytes",
        "pipe": "pipe",
        "screen_mpp": "352.796",
        "no_mpp": "mpp_if_missing",
        "coarse": "never upsampled",
        "typing_error": "500 µm",
        "cut_off": "copy it again",
        "two_bad_tiles": "planned patches cannot be decoded",
    }.items():
        assert words in rows[slide]["sentence"]


def test_a_damaged_tile_costs_its_patch_which_is_counted(mixed: Path) -> None:
    row = outcomes(mixed)["one_bad_tile"]
    assert row["dropped_unreadable"] == 1
    assert row["kept"] + sum(row[name] for name in row if name.startswith("dropped_")) == row["planned"] == 12
    places = {(s.row["x"], s.row["y"]) for s in samples(mixed) if s.row["slide_id"] == "one_bad_tile"}
    assert len(places) == row["kept"]
    # Tile 20 is the fifth of the third row: at (512, 256), in the patch that begins there.
    assert (512, 256) not in places
    assert {(256, 256), (768, 256), (512, 0), (512, 512)} <= places


def test_of_a_quarantined_slide_no_sample_is_committed(mixed: Path) -> None:
    rows = outcomes(mixed)
    kept = {slide: row["kept"] for slide, row in rows.items() if row["kept"]}
    assert set(kept) == {"good", "one_bad_tile"}
    found = [sample.row["slide_id"] for sample in samples(mixed)]
    assert {slide: found.count(slide) for slide in set(found)} == kept


# Slides that cannot be reached, or do not stay as they are.


def without_rights_of_root() -> None:
    """Called in a child before it becomes another program: rights of files count for it as for anybody."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in NO_CAPABILITIES:
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            os._exit(99)


@pytest.fixture
def as_anybody() -> Callable[[], None] | None:
    """For `run(before=…)`: what makes root subject to the rights of files; nothing where the tests are not root's."""
    return without_rights_of_root if os.geteuid() == 0 else None


def test_a_slide_that_may_not_be_read_stops_the_build_by_name_which_goes_on_with_the_right(
    tmp_path: Path, as_anybody: Callable[[], None] | None
) -> None:
    slide = small_slide(tmp_path / "slides" / "locked.tiff")
    words = ("build", "--slides", slide.parent, "--out", tmp_path / "out", *ONE_WORKER)
    slide.chmod(0)
    at_once = run(*words, before=as_anybody).sentence(1)
    assert "locked.tiff" in at_once
    assert "ermission" in at_once
    assert not (tmp_path / "out").exists()

    slide.chmod(0o644)
    create_from_command_line(slide.parent, tmp_path / "out")
    slide.chmod(0)
    later = run(*words, before=as_anybody).sentence(1)
    assert "locked" in later
    assert "run the same command again" in later
    assert [attempt["group"] for attempt in attempts(tmp_path / "out")] == [0, 0, 0]

    slide.chmod(0o644)
    run_here(*words).succeeded()
    assert results(tmp_path / "out") == {"locked": "done"}


def create_from_command_line(slides: Path, out: Path) -> None:
    """Freeze the catalog that `build --slides FOLDER` would."""
    from exaone_prep.cli import _manifest

    manifest, base = _manifest(None, [str(slides)], None)
    create_dataset(out, manifest, base=base)


def test_a_slide_that_vanishes_fails_its_group_by_name_and_the_build_goes_on_when_it_is_back(tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    small_slide(slides / "gone.tiff", 1)
    small_slide(slides / "stays.tiff", 2)
    create_from_command_line(slides, tmp_path / "out")
    (slides / "gone.tiff").rename(tmp_path / "gone.tiff")
    assert "gone" in build(slides, tmp_path / "out").sentence(1)
    assert not (tmp_path / "out" / "build.json").exists()
    (tmp_path / "gone.tiff").rename(slides / "gone.tiff")
    build(slides, tmp_path / "out").succeeded()
    assert results(tmp_path / "out") == {"gone": "done", "stays": "done"}


def test_a_slide_that_changes_during_the_build_fails_its_group_by_name_until_it_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slides = tmp_path / "slides"
    changed = small_slide(slides / "changing.tiff", 1)
    small_slide(slides / "other.tiff", 2)
    original = changed.read_bytes()

    def rewrite(step: str) -> None:
        if step == "group-surveyed":
            small_slide(changed, 3)

    one_each = ("--set", "shards.slides_per_group=1")
    with monkeypatch.context() as patch:
        patch.setattr(group_module, "reach", rewrite)
        sentence = build(slides, tmp_path / "out", *one_each).sentence(1)
    assert "changing" in sentence
    assert "1 of 2 groups" in sentence
    failed = attempts(tmp_path / "out")
    assert [attempt["error"] for attempt in failed] == ["SlideChangedError"]
    assert "changing" in failed[0]["sentence"]
    committed = list((tmp_path / "out" / "ledger").iterdir())
    assert len(committed) == 1, "the group of the other slide is built all the same"
    changed.write_bytes(original)
    build(slides, tmp_path / "out", *one_each).succeeded()
    assert results(tmp_path / "out") == {"changing": "done", "other": "done"}


def test_a_manifest_that_matches_nothing_says_so(tmp_path: Path) -> None:
    assert "matches no slide" in build(tmp_path / "*.svs", tmp_path / "out").sentence(2)
    assert not (tmp_path / "out").exists()


def test_a_slide_named_by_two_cohorts_is_refused_by_name(tmp_path: Path) -> None:
    slide = small_slide(tmp_path / "twice.tiff")
    cohorts = [{"name": "one", "slides": [str(slide)]}, {"name": "two", "slides": [str(tmp_path)]}]
    manifest = tmp_path / "data_manifest.yaml"
    manifest.write_text(yaml.safe_dump({"name": "twice", "cohorts": cohorts}))
    sentence = run_here("build", manifest, "--out", tmp_path / "out").sentence(2)
    assert "twice.tiff" in sentence
    assert "one and two" in sentence


def test_a_slide_named_twice_by_one_cohort_counts_once(tmp_path: Path) -> None:
    slide = small_slide(tmp_path / "slides" / "once.tiff")
    manifest = manifest_of(slide.parent)
    twice = manifest.cohorts[0].model_copy(update={"slides": (str(slide), str(slide.parent))})
    dataset = create_dataset(tmp_path / "out", manifest.model_copy(update={"cohorts": (twice,)}), base=tmp_path)
    assert [row.slide_id for row in dataset.catalog.rows] == ["once"]


def test_an_output_directory_of_another_manifest_is_refused_with_the_fields(tmp_path: Path) -> None:
    slides = small_slide(tmp_path / "slides" / "a.tiff").parent
    create_from_command_line(slides, tmp_path / "out")
    before = (tmp_path / "out" / "catalog.parquet").read_bytes()
    sentence = build(slides, tmp_path / "out", "--set", "codec.quality=80", "--set", "stain.on_failure=drop").sentence(
        2
    )
    assert "codec.quality, stain.on_failure differ" in sentence
    assert "new directory" in sentence
    assert (tmp_path / "out" / "catalog.parquet").read_bytes() == before


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    slides = small_slide(tmp_path / "slides" / "a.tiff").parent
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    assert "not empty" in build(slides, tmp_path / "out").sentence(2)
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["thesis.txt"]
    assert "not a directory" in build(slides, tmp_path / "out" / "thesis.txt").sentence(2)


def test_a_directory_that_may_not_be_written_is_named(tmp_path: Path, as_anybody: Callable[[], None] | None) -> None:
    slides = small_slide(tmp_path / "slides" / "a.tiff").parent
    (tmp_path / "locked").mkdir(mode=0o555)
    words = ("build", "--slides", slides, "--out", tmp_path / "locked" / "out", *ONE_WORKER)
    sentence = run(*words, before=as_anybody).sentence(1)
    assert "ermission" in sentence
    assert "locked" in sentence


@pytest.mark.parametrize(
    ("left_bytes", "elsewhere"),
    [
        pytest.param(60_000, False, id="the working space is full"),
        pytest.param(60_000, True, id="the data set's disk is full"),
    ],
)
def test_a_full_disk_is_said_and_with_room_the_same_command_completes(
    tmp_path: Path, small_disk: Path, left_bytes: int, elsewhere: bool
) -> None:
    slides = small_slide(tmp_path / "slides" / "a.tiff").parent
    scratch = ("--scratch", tmp_path / "scratch") if elsewhere else ()
    ballast = fill(small_disk, left_bytes)
    sentence = build(slides, small_disk / "out", *scratch).sentence(1)
    assert "No space left on device" in sentence
    assert not list((small_disk / "out").glob("ledger/*"))
    ballast.unlink()
    build(slides, small_disk / "out", *scratch).succeeded()
    assert results(small_disk / "out") == {"a": "done"}
    hidden = [file for file in (small_disk / "out").rglob("*") if file.name.startswith(".")]
    assert not hidden, "nothing half-written is left"


def test_a_disk_that_turns_read_only_is_said_and_once_writable_the_same_command_completes(
    tmp_path: Path, small_disk: Path
) -> None:
    slides = small_slide(tmp_path / "slides" / "a.tiff").parent
    create_from_command_line(slides, small_disk / "out")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "Read-only file system" in build(slides, small_disk / "out").sentence(1)
    assert "Read-only file system" in build(slides, small_disk / "out", "--scratch", tmp_path / "scratch").sentence(1)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    build(slides, small_disk / "out").succeeded()
    assert results(small_disk / "out") == {"a": "done"}


# Decoders that die.

DEADLY = """
import os
import pathlib
import signal

import openslide


class OpenSlide(openslide.OpenSlide):
    def __init__(self, path):
        name = pathlib.Path(path).name
        if name.startswith("fatal"):
            os.kill(os.getpid(), signal.SIGSEGV)
        once = pathlib.Path(path).parents[1] / "killed"
        if name.startswith("unlucky") and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        super().__init__(path)


openslide.OpenSlide = OpenSlide
"""


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes OpenSlide die in workers: at slides `fatal…` always, at slides `unlucky…` once, as if memory ran out."""
    folder = tmp_path / "python"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(DEADLY)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return tmp_path / "slides"


def test_a_slide_at_which_the_decoder_dies_is_quarantined_and_its_neighbour_is_done(
    tmp_path: Path, deadly: Path
) -> None:
    small_slide(deadly / "fatal.tiff", 1)
    small_slide(deadly / "good.tiff", 2)
    build(deadly, tmp_path / "out").succeeded()
    assert results(tmp_path / "out") == {"fatal": "crashed", "good": "done"}
    assert signal.SIGSEGV.name in outcomes(tmp_path / "out")["fatal"]["sentence"]
    assert attempts(tmp_path / "out") == []


def test_a_worker_killed_from_outside_is_no_fault_of_its_slide(tmp_path: Path, deadly: Path) -> None:
    small_slide(deadly / "unlucky.tiff", 1)
    build(deadly, tmp_path / "out").succeeded()
    assert (tmp_path / "killed").exists()
    assert results(tmp_path / "out") == {"unlucky": "done"}
    failed = attempts(tmp_path / "out")
    assert [attempt["error"] for attempt in failed] == ["WorkerLostError"]
    assert "SIGKILL" in failed[0]["sentence"]
