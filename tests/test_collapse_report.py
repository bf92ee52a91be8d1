"""From tables of features on disk to figures, JSON and a page that needs nothing else."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import tarfile
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from exaone_train.charts import Interval, Point, intervals, named_points, scatter, ticks
from exaone_train.collapse.measure import MEASURES, Report, measure
from exaone_train.collapse.page import page
from exaone_train.collapse.pictures import sheet, spread_out, tsne
from exaone_train.collapse.scene import Options
from exaone_train.collapse.table import TEXT_COLUMNS, FeatureTable, read_features
from exaone_train.collapse.words import words
from exaone_train.commands import collapse
from exaone_train.errors import FeatureError
from tests.features import around, random_table, table, write_table

QUICK = Options(resamples=50, clustering_trials=1, clustering_most=3, clustering_pairs=1)


def png(grey: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (32, 32), (grey, grey, grey)).save(out, "PNG")
    return out.getvalue()


def command_line() -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    collapse.register(app)
    return app


# --- tables ---


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16()])
def test_a_table_is_read_as_it_was_written(tmp_path: Path, kind: pa.DataType) -> None:
    written = random_table()
    got = read_features(write_table(tmp_path / "phikon.parquet", written, kind))
    assert got.name == "phikon"
    assert got.features == pytest.approx(written.features, rel=1e-3 if kind == pa.float16() else 0, abs=1e-3)
    for column in ("slide_id", "centre", "scanner", "label"):
        assert np.array_equal(getattr(got, column), getattr(written, column))
    assert got.patient_id is None
    assert got.place is None


def test_places_and_pictures_are_read_if_there_are_any(tmp_path: Path) -> None:
    written = table(around(np.arange(4)), np.arange(4), place=np.arange(8.0).reshape(4, 2))
    got = read_features(write_table(tmp_path / "t.parquet", written, image=[b"a", b"b", b"c", b"d"]))
    assert got.place is not None
    assert got.place.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert got.rows(np.array([2])).images == (b"c",)


def vectors(values: list[list[float]]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(values), type=pa.float32()), len(values[0]))


GOOD = vectors([[1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"slide_id": ["a", "b"]}, r"has no column `feature`\.$"),
        ({"features": [1, 2]}, r"has no column `slide_id` and no column `feature`\.$"),
        ({"slide_id": ["a", "b"], "feature": [[1.0], [2.0]]}, r"`feature` of .* is list<.*>, not a fixed-size list"),
        ({"slide_id": ["a", None], "feature": GOOD}, r"`slide_id` of .* has 1 empty cells\.$"),
        ({"slide_id": ["a", "b"], "feature": GOOD, "centre": ["x", None]}, r"`centre` of .* has 1 empty cells\.$"),
        ({"slide_id": ["a", "b"], "feature": vectors([[1, 0], [0, np.nan]])}, r"holds features that are not finite\.$"),
        ({"slide_id": ["a", "b"], "feature": vectors([[1, 0], [0, 0]])}, r"^1 features of .* are zero"),
        ({"slide_id": pa.array([], pa.string()), "feature": GOOD[:0]}, r"has no rows\.$"),
        ({"slide_id": ["a", "b"], "feature": GOOD, "x": [1.0, None], "y": [1.0, 2.0]}, r"`x` of .* has empty cells\.$"),
    ],
)
def test_each_fault_of_a_table_is_one_sentence(tmp_path: Path, columns: dict[str, object], sentence: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(FeatureError, match=sentence):
        read_features(tmp_path / "t.parquet")


def test_null_features_are_named(tmp_path: Path) -> None:
    features = pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"slide_id": ["a", "b"], "feature": features}), tmp_path / "t.parquet")
    with pytest.raises(FeatureError, match=r"^1 features of .* are null\.$"):
        read_features(tmp_path / "t.parquet")


def test_a_table_that_is_not_there_and_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match=r"There is no table of features at"):
        read_features(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(FeatureError, match=r"cannot be read as Parquet: [^\n]*\.$"):
        read_features(tmp_path / "text.parquet")


# --- pictures ---


def test_maps_are_the_same_for_the_same_seed_and_keep_clusters_apart() -> None:
    slide = np.repeat(np.arange(4), 20)
    points = tsne(table(around(slide), slide), seed=1)
    assert np.array_equal(points, tsne(table(around(slide), slide), seed=1))
    middle = np.array([points[slide == one].mean(axis=0) for one in range(4)])
    nearest = np.linalg.norm(points[:, None] - middle[None], axis=2).argmin(axis=1)
    assert (nearest == slide).all()


def test_features_that_are_all_the_same_have_a_map_too() -> None:
    same = table(np.ones((10, 4), dtype=np.float32), np.repeat([0, 1], 5))
    assert np.ptp(tsne(same, seed=0)) == 0


def test_a_map_shows_equally_many_patches_of_each_slide() -> None:
    slide = np.repeat(np.arange(3), [100, 10, 10])
    shown = spread_out(table(around(slide), slide), 30, seed=0)
    assert np.unique(shown.slide_id, return_counts=True)[1].tolist() == [10, 10, 10]


def test_a_sheet_shows_patches_of_different_slides_and_never_a_patch_beside_itself() -> None:
    one = random_table()
    rows = sheet(one, seed=0)
    assert len({str(one.slide_id[row.row]) for row in rows}) == len(rows) == 6
    for row in rows:
        assert row.row not in row.neighbours
        assert len(row.neighbours) == 8
        assert list(row.similarity) == sorted(row.similarity, reverse=True)


# --- charts ---


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.3, 0.7), (0.81, 0.9), (0, 0), (0.5, 0.5), (-2, 5000)])
def test_ticks_are_round_and_hold_the_numbers(low: float, high: float) -> None:
    first, last, step = ticks(low, high)
    assert first <= low + step * 1e-6
    assert high <= last + step * 1e-6
    assert 1 <= (last - first) / step <= 8
    assert f"{step:.0e}"[0] in "125"


def test_charts_are_xml_with_a_mark_for_each_number() -> None:
    names = np.array(["<a>", "b", "b"])
    drawn = ET.fromstring(scatter(np.array([[0.0, 0], [1, 1], [2, 0]]), names, title="A & B"))
    assert drawn.get("aria-label") == "A & B"
    assert len(list(drawn.iter("circle"))) == 3 + 2
    rows = [
        Interval(name="one", value=0.5, low=0.2, high=0.7, chance=0.1),
        Interval(name="two", value=0.3, low=np.nan, high=np.nan),
    ]
    assert len(list(ET.fromstring(intervals(rows, title="t")).iter("circle"))) == 2
    points = [Point(name="A", x=1000, y=0.8), Point(name="mine", x=50, y=0.7, own=True)]
    text = named_points(points, title="t", x_title="slides", y_title="accuracy")
    assert "mine" in text
    assert len(list(ET.fromstring(text).iter("{http://www.w3.org/2000/svg}circle"))) == 2


def test_names_of_points_that_are_close_do_not_hide_each_other() -> None:
    close = [Point(name=f"encoder number {one}", x=1000.0 * (1 + one / 8), y=0.8) for one in range(3)]
    drawn = ET.fromstring(named_points([*close, Point(name="far", x=10, y=0.7)], title="t", x_title="x", y_title="y"))
    texts = [one for one in drawn.iter("{http://www.w3.org/2000/svg}text") if (one.text or "").startswith("encoder")]
    heights = [float(one.get("y", "0")) for one in texts]
    assert len(texts) == 3
    assert all(abs(heights[one] - heights[other]) >= 14 for one in range(3) for other in range(one) if
               texts[one].get("text-anchor") == texts[other].get("text-anchor"))  # fmt: skip


def test_every_measure_has_words() -> None:
    for key in MEASURES:
        said = words(key)
        assert said.sentence.endswith(".")
        assert "{" not in said.title + said.sentence


# --- the page ---


class Page(HTMLParser):
    """Collects what a browser would fetch, and whether tags are closed."""

    VOID: ClassVar = {"meta", "img", "br", "circle", "path", "line", "rect"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: D102
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: D102
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:  # noqa: D102
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def reported() -> tuple[Report, list[FeatureTable]]:
    tables = [random_table(patches=80), random_table(seed=7, patches=80, name="<other> & more")]
    return measure(tables, QUICK), tables


def test_the_page_needs_nothing_else_and_shows_everything(reported: tuple[Report, list[FeatureTable]]) -> None:
    report, tables = reported
    text = page(report, tables)
    parsed = Page(text)
    assert parsed.open == []
    assert parsed.sources == []
    assert not {"script", "link", "iframe", "object"} & set(parsed.tags)
    assert not re.search(r"https?://|url\(|@import", text)
    assert "&lt;other&gt; &amp; more" in text
    assert "<other>" not in text
    for key in report.encoders[0].measures:
        assert f"<code>{key}</code>" in text
    assert parsed.tags.count("svg") >= len(report.encoders[0].measures) + 2 * 4
    assert "Nearest neighbours" not in text


def test_few_slides_are_said_to_be_few() -> None:
    slide = np.repeat([0, 1], 10)
    few = [table(around(slide), slide)]
    assert "2 slides are few" in page(measure(few, QUICK), few)


def with_keys(places: Path | None = None) -> FeatureTable:
    one = random_table(patches=30, slides=4)
    keys = np.array([f"{slide}-{number}-0" for number, slide in enumerate(one.slide_id)])
    return FeatureTable(**{**vars(one), "key": keys})


@pytest.mark.parametrize("where", ["column", "folder", "shard"])
def test_neighbours_are_shown_from_a_column_a_folder_or_shards(tmp_path: Path, where: str) -> None:
    one = with_keys()
    assert one.key is not None
    files = {f"{key}.png": png(number) for number, key in enumerate(one.key)}
    if where == "column":
        one = FeatureTable(**{**vars(one), "images": tuple(files.values())})
    elif where == "folder":
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
    else:
        with tarfile.open(tmp_path / "shard-000000-000.tar", "w") as shard:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))
    text = page(measure([one], QUICK), [one], tmp_path)
    parsed = Page(text)
    assert len(parsed.sources) == 4 * 9
    assert all(source.startswith("data:image/jpeg;base64,") for source in parsed.sources)
    first = Image.open(io.BytesIO(base64.b64decode(parsed.sources[0].partition(",")[2])))
    grey = first.getpixel((48, 48))
    assert isinstance(grey, tuple)
    row = sheet(one, QUICK.seed)[0].row
    assert abs(grey[0] - row) <= 2


def test_a_picture_that_does_not_decode_is_one_sentence() -> None:
    one = FeatureTable(**{**vars(random_table(patches=20, slides=4)), "images": (b"no picture",) * 20})
    with pytest.raises(FeatureError, match=r"^The picture of a patch of slide\d+ cannot be decoded\.$"):
        page(measure([one], QUICK), [one])


def test_a_folder_of_pictures_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    one = with_keys()
    with pytest.raises(FeatureError, match=r"^There is no folder of pictures or shards at .*\.$"):
        page(measure([one], QUICK), [one], tmp_path / "none")


# --- the command ---


def test_the_command_prints_json_and_writes_a_page(tmp_path: Path) -> None:
    slide = np.repeat(np.arange(8), 10)
    one = write_table(tmp_path / "one.parquet", table(around(slide), slide))
    other = write_table(tmp_path / "two.parquet", table(around(slide % 2), slide))
    done = CliRunner().invoke(
        command_line(),
        ["collapse", str(one), f"mixed={other}", "--json", "--k", "9", "--page", str(tmp_path / "new" / "p.html")],
    )
    assert done.exit_code == 0, done.output
    got = json.loads(done.output)["encoders"]
    assert got["one"]["measures"]["same_slide_knn"]["value"] == 1
    assert got["mixed"]["measures"]["same_slide_knn"]["value"] < 0.5
    assert got["mixed"]["measures"]["same_slide_knn"]["difference"]["high"] < -0.5
    assert got["one"]["measures"]["same_slide_knn"]["chance"] == pytest.approx(9 / 79)
    assert (tmp_path / "new" / "p.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_command_prints_a_table(tmp_path: Path) -> None:
    slide = np.repeat(np.arange(4), 12)
    path = write_table(tmp_path / "one.parquet", table(around(slide), slide))
    done = CliRunner().invoke(command_line(), ["collapse", str(path), "--resamples", "20"])
    assert re.search(r"^same_slide_knn +1\.000 \[ 1\.000,  1\.000\]  chance 0\.234$", done.output, re.MULTILINE)
    assert "one: 48 patches of 4 slides, few for intervals" in done.output
    assert "not measured: knn_gap" in done.output


@pytest.mark.parametrize("command", ["collapse", "probe"])
def test_loading_the_command_loads_nothing_heavy(command: str) -> None:
    heavy = "{'numpy', 'pyarrow', 'sklearn', 'torch', 'PIL', 'scipy'}"
    code = f"import sys, exaone_train.commands.{command}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_measure_and_column_is_described() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "collapse.md").read_text(encoding="utf-8")
    for name in (*MEASURES, *TEXT_COLUMNS, "feature", "x", "y", "image"):
        assert f"`{name}`" in text, name
