"""Which files a manifest means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exaone_prep.errors import ManifestError, UnreachableError
from tests.catalogs import build, ids, slide, table


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://bucket"
    fsspec.filesystem("memory").store.clear()


def test_globs_folders_and_files(tmp_path: Path) -> None:
    for name in ("g/a.svs", "g/deep/er/b.svs", "g/no.txt", "f/c.NDPI", "f/sub/d.tif", "f/sub/readme.md", "e.svs"):
        slide(tmp_path / name)
    assert ids(build(tmp_path, {"slides": ["g/**/*.svs"]})) == ["a", "b"]
    assert ids(build(tmp_path, {"slides": ["g/*.svs", "f", str(tmp_path / "e.svs")]})) == ["a", "c", "d", "e"]
    assert ids(build(tmp_path, {"slides": ["g/**"]})) == ["a", "b"]
    assert ids(build(tmp_path, {"slides": ["g/*"]})) == ["a", "b"]
    assert ids(build(tmp_path, {"slides": ["?/[ac].*"]})) == ["a", "c"]


def test_relative_paths_start_at_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide(tmp_path / "base" / "a.svs")
    slide(tmp_path / "cwd" / "b.svs")
    monkeypatch.chdir(tmp_path / "cwd")
    catalog = build(tmp_path / "base", {"slides": "*.svs"})
    assert [row.uri for row in catalog.rows] == [str(tmp_path / "base" / "a.svs")]


def test_names_with_brackets_are_taken_as_they_are(tmp_path: Path) -> None:
    slide(tmp_path / "a[1].svs")
    assert ids(build(tmp_path, {"slides": ["a[1].svs"]})) == ["a_1_"]
    listed = table(tmp_path / "t.csv", [{"slide": "a[1].svs"}])
    assert ids(build(tmp_path, {"table": listed})) == ["a_1_"]


def test_hidden_files_and_snapshots_are_passed_over(tmp_path: Path) -> None:
    for name in ("a.svs", "._a.svs", ".snapshot/monday/a.svs"):
        slide(tmp_path / name)
    assert ids(build(tmp_path, {"slides": ["**/*.svs"]})) == ["a"]
    assert ids(build(tmp_path, {"slides": [str(tmp_path)]})) == ["a"]
    assert ids(build(tmp_path, {"slides": [".snapshot/*/*.svs"]})) == ["a"]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    slide(tmp_path / "x" / "a.svs")
    (tmp_path / "x" / "loop").symlink_to(tmp_path / "x")
    assert ids(build(tmp_path, {"slides": ["**/*.svs"]})) == ["a"]


def test_a_pattern_that_matches_nothing_is_named_with_its_cohort(tmp_path: Path) -> None:
    slide(tmp_path / "a.svs")
    for pattern in ("b*.svs", "gone/**/*.svs", "gone.svs", "a.svs/*.svs"):
        with pytest.raises(ManifestError) as caught:
            build(tmp_path, {"slides": ["a.svs", pattern]})
        assert "c0" in str(caught.value)
        assert pattern in str(caught.value)


def test_two_globs_of_one_cohort_count_a_file_once(tmp_path: Path) -> None:
    slide(tmp_path / "x" / "a.svs")
    (tmp_path / "y").symlink_to(tmp_path / "x")
    assert ids(build(tmp_path, {"slides": ["x/*.svs", "**/a.*", "x/../x/a.svs", "y/*"]})) == ["a"]


def test_a_file_of_two_cohorts_is_an_error_naming_both(tmp_path: Path) -> None:
    slide(tmp_path / "x" / "a.svs")
    (tmp_path / "y").symlink_to(tmp_path / "x")
    for other in ("x/*", "y/a.svs"):
        with pytest.raises(ManifestError, match=r"cohorts c0 and c1 both name .*a\.svs"):
            build(tmp_path, {"slides": "x/*.svs"}, {"slides": other})


def test_urls(memory: str, tmp_path: Path) -> None:
    for name in ("x/a.svs", "x/deep/b.svs", "x/.trash/c.svs", "x/note.txt", "m/d.mrxs", "m/d/Data0.dat"):
        with fsspec.open(f"{memory}/{name}", "wb") as file:
            file.write(name.encode())
    catalog = build(tmp_path, {"slides": [f"{memory}/x/**/*.svs", f"{memory}/x", f"{memory}/m/d.mrxs"]})
    assert ids(catalog) == ["a", "b", "d"]
    assert catalog.rows[2].size_bytes == len("m/d.mrxsm/d/Data0.dat")
    assert all(row.uri and row.uri.startswith("memory://") for row in catalog.rows)
    with pytest.raises(ManifestError, match="matches no slide"):
        build(tmp_path, {"slides": f"{memory}/gone/*.svs"})


def test_an_unknown_store_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="nosuchstore"):
        build(tmp_path, {"slides": "nosuchstore://x/*.svs"})


def test_what_a_table_says_goes_into_the_rows(tmp_path: Path) -> None:
    slide(tmp_path / "t" / "a.svs")
    slide(tmp_path / "t" / "b.svs")
    rows = [
        {"slide": "a.svs", "patient_id": "P1", "mpp": "0.25", "organ": "lung", "md5": "AB" * 16, "slide_id": ""},
        {
            "slide": str(tmp_path / "t" / "b.svs"),
            "patient_id": "",
            "mpp": "",
            "organ": "",
            "md5": "",
            "slide_id": "B 2",
        },
    ]
    location = table(tmp_path / "t" / "slides.csv", rows)
    catalog = build(tmp_path, {"table": "t/slides.csv", "slides": "t/*.svs", "mpp_if_missing": 0.5})
    second, first = catalog.rows
    assert (first.slide_id, first.patient_id, first.patient_source) == ("a", "P1", "table")
    assert (first.mpp_override, first.mpp_if_missing, first.stamp) == (0.25, 0.5, f"md5:{'ab' * 16}")
    assert first.extra == {"organ": "lung"}
    assert (second.slide_id, second.patient_id, second.patient_source) == ("B_2", "B_2", "slide")
    assert (second.mpp_override, second.extra) == (None, {})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t" / "slides.parquet")
    assert build(tmp_path, {"table": "t/slides.parquet", "mpp_if_missing": 0.5}).content_id == catalog.content_id
    assert location.endswith(".csv")


def test_numbers_of_parquet_read_as_in_csv(tmp_path: Path) -> None:
    slide(tmp_path / "a.svs")
    rows = {"slide": ["a.svs"], "patient_id": [123.0], "mpp": [0.5], "block": [None]}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    row = build(tmp_path, {"table": "t.parquet"}).rows[0]
    assert (row.patient_id, row.mpp_override, row.extra) == ("123", 0.5, {})


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"slide": "gone.svs"}, ["gone.svs", "row 2", "c0"]),
        ({"slide": "", "organ": "lung"}, ["`slide` is empty", "row 2"]),
        ({"slide": "b.svs", "mpp": "0,25"}, ["mpp", "'0,25'", "row 2"]),
        ({"slide": "b.svs", "mpp": "-1"}, ["mpp", "'-1'", "row 2"]),
        ({"slide": "b.svs", "mpp": "nan"}, ["mpp", "'nan'", "row 2"]),
        ({"slide": "b.svs", "mpp": "inf"}, ["mpp", "'inf'", "row 2"]),
        ({"slide": "b.svs", "md5": "123"}, ["md5", "'123'", "row 2"]),
        ({"slide": "a.svs"}, ["rows 1 and 2", "a.svs"]),
        ({"slide": "b.svs", "group": "x"}, ["`group`", "rename"]),
        ({"slide": "folder"}, ["row 2", "several slides"]),
        ({"slide": "m.mrxs", "md5": "0" * 32}, ["md5", "several files", "row 2"]),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: dict[str, str], words: list[str]) -> None:
    for name in ("a.svs", "b.svs", "m.mrxs", "folder/x.svs", "folder/y.svs"):
        slide(tmp_path / name)
    columns = dict.fromkeys(["slide", *row], "")
    location = table(tmp_path / "t.csv", [{**columns, "slide": "a.svs"}, {**columns, **row}])
    with pytest.raises(ManifestError) as caught:
        build(tmp_path, {"table": location})
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"path\na.svs\n", "no column `slide`"),
        (b"slide\n", "no rows"),
        (b"", "no column `slide`"),
        (b"slide,slide\na,b\n", "twice"),
        (b"slide,organ\na.svs\n", "row 1: 1 values for 2 columns"),
        (b"slide\n\xff\xfe\n", "neither CSV"),
    ],
)
def test_a_bad_table_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    slide(tmp_path / "a.svs")
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ManifestError, match=words) as caught:
        build(tmp_path, {"table": "t.csv"})
    assert "t.csv" in str(caught.value)
    with pytest.raises(ManifestError, match=r"gone\.csv cannot be read"):
        build(tmp_path, {"table": "gone.csv"})
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(ManifestError, match=r"t\.parquet"):
        build(tmp_path, {"table": "t.parquet"})


def test_a_data_frames_unnamed_index_column_is_left_out(tmp_path: Path) -> None:
    slide(tmp_path / "a.svs")
    (tmp_path / "t.csv").write_text("\ufeff,slide\n0,a.svs\n\n", encoding="utf-8")
    assert build(tmp_path, {"table": "t.csv"}).rows[0].extra == {}
