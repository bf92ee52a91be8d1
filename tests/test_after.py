"""Repair and growth are further data sets: `--after` builds what an earlier one has not done, in its way."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from exaone_prep.dataset import create_dataset, open_dataset
from exaone_prep.manifest import load_manifest
from exaone_prep.outcomes import earlier
from tests.commandline import Ended, run_here
from tests.committed import outcomes, results, samples
from tests.smallslides import small_slide

SPLITS = {"val": 0.4}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An earlier data set of four slides, of which two were quarantined for want of an mpp."""
    folder = tmp_path_factory.mktemp("originals")
    for i, name in enumerate(("a1", "b1", "a2_no_mpp", "b2_no_mpp")):
        small_slide(folder / "slides" / f"{name}.tiff", i, mpp=None if name.endswith("no_mpp") else 0.5)
    build(folder, "first", manifest(folder)).succeeded()
    assert results(folder / "first") == {"a1": "done", "b1": "done", "a2_no_mpp": "no_mpp", "b2_no_mpp": "no_mpp"}
    # With these splits and seed the two patients are in different splits.
    assert {row["split"] for row in outcomes(folder / "first").values()} == {"train", "val"}
    return folder


def manifest(folder: Path, *, mpp_if_missing: float | None = None, **changes: Any) -> Path:
    """All slides of the folder; the patient is the first letter of a slide's name."""
    cohort = {"name": "c", "slides": ["slides"], "patient_regex": "^[a-z]", "mpp_if_missing": mpp_if_missing}
    document = {"name": "first", "cohorts": [cohort], "splits": SPLITS, "seed": 1, **changes}
    file = folder / "data_manifest.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def build(folder: Path, out: str, file: Path, *more: object) -> Ended:
    return run_here("build", file, "--out", folder / out, "--workers", 1, *more)


@pytest.fixture
def folder(originals: Path, tmp_path: Path) -> Path:
    """A copy to go on with."""
    shutil.copytree(originals, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(scope="module")
def grown(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The earlier data set and a second one, after it, with a remedy, a new slide and a copy of an old one."""
    folder = tmp_path_factory.mktemp("grown")
    shutil.copytree(originals, folder, dirs_exist_ok=True)
    small_slide(folder / "slides" / "b3_new.tiff", 10)
    shutil.copy(folder / "slides" / "a1.tiff", folder / "slides" / "a1_again.tiff")
    mended = manifest(folder, mpp_if_missing=0.5, name="second")
    build(folder, "second", mended, "--after", folder / "first").succeeded()
    return folder


def test_what_was_quarantined_and_is_mended_is_built_with_what_is_new_and_nothing_else(grown: Path) -> None:
    assert results(grown / "second") == {
        "a2_no_mpp": "done",
        "b2_no_mpp": "done",
        "b3_new": "done",
        "a1_again": "duplicate",
    }
    second = outcomes(grown / "second")
    assert second["a1_again"]["duplicate_of"] == "a1"
    assert second["a2_no_mpp"]["mpp_source"] == "cohort_if_missing"
    slides = [{sample.row["slide_id"] for sample in samples(grown / name)} for name in ("first", "second")]
    assert slides == [{"a1", "b1"}, {"a2_no_mpp", "b2_no_mpp", "b3_new"}]


def test_patients_keep_their_split(grown: Path) -> None:
    split_of = {row["patient_id"]: row["split"] for row in outcomes(grown / "first").values()}
    assert sorted(split_of) == ["a", "b"]
    assert set(split_of.values()) == {"train", "val"}
    for row in outcomes(grown / "second").values():
        assert row["split"] == split_of[row["patient_id"]]
    for name in ("first", "second"):
        for split in ("train", "val"):
            (file,) = (grown / name / "index" / split).glob("*.parquet")
            patients = pq.ParquetFile(file).read(columns=["patient_id"]).column("patient_id").to_pylist()
            assert {split_of[patient] for patient in patients} == {split}


def test_the_patches_are_those_that_a_build_of_everything_makes(grown: Path) -> None:
    build(grown, "whole", manifest(grown, mpp_if_missing=0.5)).succeeded()
    parts = [image for name in ("first", "second") for image in images(grown / name)]
    assert sorted(parts) == sorted(images(grown / "whole"))


def images(dataset: Path) -> list[tuple[str, int, int, bytes]]:
    return [(s.row["slide_id"], s.row["x"], s.row["y"], s.image) for s in samples(dataset)]


def test_other_parameters_than_those_of_the_earlier_data_set_are_refused_by_name(folder: Path) -> None:
    changes = {"codec": {"quality": 80}, "stain": {"on_failure": "drop"}, "splits": {"val": 0.5}}
    file = manifest(folder, mpp_if_missing=0.5, **changes)
    sentence = build(folder, "second", file, "--after", folder / "first").sentence(2)
    assert "codec.quality, splits.val, stain.on_failure differ" in sentence
    assert not (folder / "second").exists()


def test_what_decides_whether_a_slide_is_set_aside_may_change(folder: Path) -> None:
    file = manifest(folder, mpp_if_missing=0.5, quality={"max_unreadable": 0.5})
    assert catalogued(folder, file) == {"a2_no_mpp", "b2_no_mpp"}


def catalogued(folder: Path, file: Path) -> set[str]:
    """Slides of the catalog that a build after the first would have."""
    dataset = create_dataset(
        folder / "second", load_manifest(file), base=folder, after=earlier(open_dataset(folder / "first"))
    )
    return {row.slide_id for row in dataset.catalog.rows}


def test_an_earlier_data_set_must_be_complete_and_there(folder: Path) -> None:
    file = manifest(folder, mpp_if_missing=0.5)
    assert "no data set" in build(folder, "second", file, "--after", folder / "nowhere").sentence(2)
    (folder / "first" / "build.json").unlink()
    assert "not complete" in build(folder, "second", file, "--after", folder / "first").sentence(2)
    assert not (folder / "second").exists()


def test_with_nothing_left_to_build_it_says_so(folder: Path) -> None:
    for name in ("a2_no_mpp", "b2_no_mpp"):
        (folder / "slides" / f"{name}.tiff").unlink()
    assert "nothing is left" in build(folder, "second", manifest(folder), "--after", folder / "first").sentence(2)


def test_a_slide_done_before_with_other_content_is_named(folder: Path) -> None:
    small_slide(folder / "slides" / "a1.tiff", 50)
    sentence = build(folder, "second", manifest(folder), "--after", folder / "first").sentence(2)
    assert "Slide a1 " in sentence
    assert "other content" in sentence


def test_hashed_ids_of_an_earlier_data_set_are_known_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAONE_PREP_ID_KEY", "the same key")
    small_slide(tmp_path / "slides" / "a1.tiff", 1)
    hashed: dict[str, Any] = {"privacy": {"slide_ids": "hash"}}
    build(tmp_path, "first", manifest(tmp_path, **hashed)).succeeded()
    small_slide(tmp_path / "slides" / "a2.tiff", 2)
    (new,) = catalogued(tmp_path, manifest(tmp_path, **hashed))
    assert [new] != list(outcomes(tmp_path / "first"))
    patients = [
        {(row.patient_id, row.split) for row in open_dataset(tmp_path / name).catalog.rows}
        for name in ("first", "second")
    ]
    assert len(patients[0]) == 1
    assert patients[0] == patients[1]


def test_hashed_ids_continue_only_under_their_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: dict[str, Any] = {"privacy": {"slide_ids": "hash"}}
    file = manifest(folder, **hashed)
    monkeypatch.setenv("EXAONE_PREP_ID_KEY", "one")
    build(folder, "hashed", file).succeeded()
    file = manifest(folder, mpp_if_missing=0.5, **hashed)
    monkeypatch.setenv("EXAONE_PREP_ID_KEY", "two")
    assert "EXAONE_PREP_ID_KEY" in build(folder, "second", file, "--after", folder / "hashed").sentence(2)
    assert not (folder / "second").exists()
    monkeypatch.setenv("EXAONE_PREP_ID_KEY", "one")
    build(folder, "second", file, "--after", folder / "hashed").succeeded()
    assert sorted(row["outcome"] for row in outcomes(folder / "second").values()) == ["done", "done"]
