"""What is frozen of a manifest's slides, and what is told of them."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exaone_prep.catalog import (
    Catalog,
    PrivateTable,
    build_catalog,
    id_key_from_environment,
    locations,
)
from exaone_prep.errors import DatasetError, ManifestError, UnreachableError
from exaone_prep.manifest import parse_manifest
from tests.catalogs import build, build_both, ids, slide, table

SCRIPT = """
import sys
from pathlib import Path
from exaone_prep.catalog import build_catalog
from exaone_prep.errors import PrepError
from exaone_prep.manifest import parse_manifest
privacy = {"slide_ids": sys.argv[2]}
manifest = parse_manifest(
    {"name": "s", "cohorts": [{"name": "c", "slides": sys.argv[3:]}], "privacy": privacy}, {}, where="m")
try:
    build_catalog(manifest, base=Path(sys.argv[1]), versions={}, key=b"key")
except PrepError as error:
    print(type(error).__name__, error)
"""


def without_privileges() -> None:
    """Root reads everything; this drops CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH from what a child can hold."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (1, 2):
        libc.prctl(24, capability, 0, 0, 0)


def run_without_privileges(base: Path, privacy: str, *patterns: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(base), privacy, *patterns],
        preexec_fn=without_privileges,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def test_slides_without_permission_are_named_and_counted(tmp_path: Path) -> None:
    for i in range(5):
        slide(tmp_path / f"s{i}.svs").chmod(0)
    slide(tmp_path / "ok.svs")
    said = run_without_privileges(tmp_path, "name", "*.svs")
    assert said.startswith("UnreachableError 5 of 6 slides cannot be read")
    assert said.count("Permission denied") == 3
    assert "s2.svs" in said
    assert "and 2 more" in said


def test_with_hashed_ids_the_names_stay_hidden(tmp_path: Path) -> None:
    slide(tmp_path / "JaneDoe.svs").chmod(0)
    said = run_without_privileges(tmp_path, "hash", "*.svs")
    assert said.startswith("UnreachableError 1 of 1 slides")
    assert "Jane" not in said
    assert str(tmp_path) not in said


def test_a_folder_without_permission_is_not_passed_over(tmp_path: Path) -> None:
    slide(tmp_path / "a" / "a.svs")
    slide(tmp_path / "b" / "b.svs")
    (tmp_path / "b").chmod(0)
    for pattern in ("**/*.svs", str(tmp_path), "*/*.svs"):
        said = run_without_privileges(tmp_path, "name", pattern)
        assert said.startswith("UnreachableError Cohort c: ")
        assert str(tmp_path / "b") in said


def test_a_dicom_file_without_permission_does_not_split_its_series(tmp_path: Path) -> None:
    slide(tmp_path / "a.dcm", b"no DICOM")
    slide(tmp_path / "b.dcm").chmod(0)
    assert run_without_privileges(tmp_path, "name", "a.dcm").startswith("UnreachableError A DICOM file")


def test_a_link_to_nowhere_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "a.svs").symlink_to(tmp_path / "not mounted" / "a.svs")
    with pytest.raises(UnreachableError, match="1 of 1 slides"):
        build(tmp_path, {"slides": "*.svs"})


def test_hashed_ids_leave_clear_names_to_the_private_table(tmp_path: Path) -> None:
    folder = tmp_path / "Doe"
    slide(folder / "JaneDoe_1.svs")
    slide(folder / "JohnDoe_2.svs")
    slide(folder / "JohnDoe_3.svs", (folder / "JohnDoe_2.svs").read_bytes())
    settings = {"privacy": {"slide_ids": "hash"}}
    cohort = {"slides": str(folder), "patient_regex": "^[A-Za-z]+"}
    catalog, private = build_both(tmp_path, cohort, key=b"secret", **settings)
    assert private is not None
    assert b"Doe" not in catalog.to_parquet()
    assert "Doe" not in repr(catalog)
    for row in catalog.rows:
        assert len(row.slide_id) == len(row.patient_id) == 16
        assert row.uri is None
    assert len({row.patient_id for row in catalog.rows}) == 2
    clear = {row.clear_id: row for row in private.rows}
    assert set(clear) == {"JaneDoe_1", "JohnDoe_2", "JohnDoe_3"}
    assert clear["JohnDoe_2"].patient == clear["JohnDoe_3"].patient == "JohnDoe"
    assert locations(catalog, private)[clear["JaneDoe_1"].slide_id] == str(folder / "JaneDoe_1.svs")
    assert PrivateTable.from_parquet(private.to_parquet()) == private
    with pytest.raises(DatasetError, match="private"):
        locations(catalog, None)
    again, _ = build_both(tmp_path, cohort, key=b"secret", **settings)
    other, _ = build_both(tmp_path, cohort, key=b"other", **settings)
    assert again == catalog
    assert not set(ids(other)) & set(ids(catalog))


def test_a_missing_key_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide(tmp_path / "a.svs")
    monkeypatch.setenv("EXAONE_PREP_ID_KEY", "")
    with pytest.raises(ManifestError, match="EXAONE_PREP_ID_KEY"):
        build(tmp_path, {"slides": "*"}, privacy={"slide_ids": "hash"}, key=id_key_from_environment())
    monkeypatch.setenv("EXAONE_PREP_ID_KEY", "k")
    assert id_key_from_environment() == b"k"


def test_extra_columns_may_not_tell_names(tmp_path: Path) -> None:
    slide(tmp_path / "JaneDoe.svs")
    location = table(tmp_path / "t.csv", [{"slide": "JaneDoe.svs", "note": "see JaneDoe.pdf"}])
    assert build(tmp_path, {"table": location}).rows[0].extra == {"note": "see JaneDoe.pdf"}
    with pytest.raises(ManifestError, match="`note`") as caught:
        build(tmp_path, {"table": location}, privacy={"slide_ids": "hash"}, key=b"k")
    assert "Jane" not in str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.svs", "b.svs", "c.svs"):
        slide(tmp_path / "here" / name, name)
    return tmp_path / "here"


def test_it_is_blind_to_places_and_to_the_order_of_patterns(folder: Path, tmp_path: Path) -> None:
    before = build(folder, {"slides": ["a.svs", "b.svs", "c.svs"]})
    shutil.move(folder, tmp_path / "there")
    after = build(tmp_path, {"slides": ["there/c.svs", "there"]}, name="other")
    assert after.content_id == before.content_id
    assert [replace(row, uri=None) for row in after.rows] == [replace(row, uri=None) for row in before.rows]


def test_whatever_decides_bytes_changes_it(folder: Path) -> None:
    one: dict[str, Any] = {"name": "c", "slides": "*.svs"}
    seen = [
        build(folder, one).content_id,
        build(folder, one, seed=1).content_id,
        build(folder, one, codec={"quality": 91}).content_id,
        build(folder, {**one, "mpp": 0.5}).content_id,
        build(folder, {**one, "mpp_if_missing": 0.5}).content_id,
        build(folder, {**one, "allow_non_he": True}).content_id,
        build(folder, {**one, "name": "d"}).content_id,
        build(folder, {**one, "patient_regex": ".s"}).content_id,
        build(folder, {**one, "slides": "[ab].svs"}).content_id,
    ]
    manifest = parse_manifest({"name": "set", "cohorts": [one]}, {}, where="m")
    other = build_catalog(manifest, base=folder, versions={"openslide": "4.0.1"}, key=None)[0]
    seen.append(other.content_id)
    slide(folder / "b.svs", "changed")
    seen.append(build(folder, one).content_id)
    assert len(set(seen)) == len(seen)


def test_a_written_out_reference_is_content(folder: Path) -> None:
    def content_id(reference: object) -> str:
        document = {"name": "s", "cohorts": [{"name": "c", "slides": "*"}], "stain": {"reference": reference}}
        manifest = parse_manifest(document, {}, where="m")
        return build_catalog(manifest, base=folder, versions={}, key=None)[0].content_id

    numbers = {"stain_matrix": [[0.6, 0.2], [0.7, 0.8], [0.4, 0.5]], "max_concentration": [2.0, 1.0]}
    assert (
        len({content_id("macenko"), content_id(numbers), content_id({**numbers, "max_concentration": [2, 1.1]})}) == 3
    )


def test_slides_done_before_are_left_out_and_their_copies_are_duplicates(tmp_path: Path) -> None:
    slide(tmp_path / "b.svs", "b")
    first = build(tmp_path, {"slides": "*.svs"})
    slide(tmp_path / "a_copy_of_b.svs", "b")
    slide(tmp_path / "new.svs", "new")
    done = {row.slide_id: row.stamp for row in first.rows}
    catalog, _ = build_both(tmp_path, {"slides": "*.svs"}, done=done)
    assert [(row.slide_id, row.duplicate_of) for row in catalog.rows] == [("a_copy_of_b", "b"), ("new", None)]
    assert catalog.metadata.excluded["done_before"] == 1
    slide(tmp_path / "b.svs", "B")
    with pytest.raises(ManifestError, match="Slide b was done in the earlier data set with other content"):
        build_both(tmp_path, {"slides": "*.svs"}, done=done)


def test_nothing_new_is_an_error(tmp_path: Path) -> None:
    slide(tmp_path / "b.svs")
    done = {row.slide_id: row.stamp for row in build(tmp_path, {"slides": "*.svs"}).rows}
    with pytest.raises(ManifestError, match="nothing is left"):
        build_both(tmp_path, {"slides": "*.svs"}, done=done)


def test_it_reads_back_equal_and_its_bytes_are_fixed(tmp_path: Path) -> None:
    slide(tmp_path / "a.svs", "same")
    slide(tmp_path / "b.svs", "same")
    slide(tmp_path / "c.svs", b"")
    table(tmp_path / "t.csv", [{"slide": "a.svs", "mpp": 0.25, "organ": "Lunge, größer", "scanner": "S360"}])
    cohort = {"slides": "*.svs", "table": "t.csv", "mpp": 0.5}
    catalog = build(tmp_path, cohort)
    content = catalog.to_parquet()
    assert Catalog.from_parquet(content) == catalog
    assert build(tmp_path, cohort).to_parquet() == content
    columns = pq.read_table(pa.BufferReader(content)).column_names
    assert columns[:7] == ["slide_id", "cohort", "patient_id", "patient_source", "split", "group", "stamp"]
    assert columns[-2:] == ["organ", "scanner"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all"])
def test_what_is_no_catalog_is_refused(content: bytes) -> None:
    with pytest.raises(DatasetError, match="catalog"):
        Catalog.from_parquet(content)


def test_a_foreign_parquet_and_a_future_format_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"slide_id": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match="no catalog"):
        Catalog.from_parquet((tmp_path / "x.parquet").read_bytes())
    slide(tmp_path / "a.svs")
    catalog = build(tmp_path, {"slides": "*.svs"})
    future = replace(catalog, metadata=replace(catalog.metadata, format_version=99))
    with pytest.raises(DatasetError, match="format 99"):
        Catalog.from_parquet(future.to_parquet())
