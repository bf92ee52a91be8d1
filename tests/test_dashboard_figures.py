"""What the dashboard says of a data set, and what it reads for that: few objects, each that never changes once."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exaone_prep import layout
from exaone_prep.catalog.overrides import read_overrides
from exaone_prep.commands.watch import line_of, screen_of
from exaone_prep.dashboard import words
from exaone_prep.dashboard.album import Album, by_chance
from exaone_prep.dashboard.committed import WAITING
from exaone_prep.dashboard.figures import cohorts_of, figures_of, timeline, union_s
from exaone_prep.dashboard.pace import Pace
from exaone_prep.dashboard.quarantine import as_csv, quarantined
from exaone_prep.dashboard.source import MOST_READS, Source
from exaone_prep.dashboard.sources import Sources, mended
from exaone_prep.dashboard.stains import fits_of
from exaone_prep.dashboard.table import Query, Shown, page_of
from exaone_prep.dataset import create_dataset, open_dataset
from exaone_prep.ledger import read_ledger
from exaone_prep.outcomes import cohort_rows, read_outcomes
from exaone_prep.pool import WorkerPool
from exaone_prep.progress import Progress
from exaone_prep.scratch import Scratch
from exaone_prep.status import status_of
from exaone_prep.stored_file import BUFFER_BYTES
from exaone_prep.survey_table import fit_columns, fit_of
from tests.dashboards import Reads, reads
from tests.smallslides import build_small, manifest_of, small_slides
from tests.store import Store

__all__ = ["reads"]

GROUPS = 544
MOVED = 30
"""Groups that are committed only while somebody looks."""


@pytest.fixture(scope="module")
def large(suite: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of as many groups as EXAONEPath's slides make, of two stand-ins of slides each."""
    folder = tmp_path_factory.mktemp("large")
    stand_in = suite("stand_in")
    manifest = stand_in.Corpus(slides=2 * GROUPS, patches=10 * GROUPS).write(folder / "slides")
    shards = manifest.shards.model_copy(update={"slides_per_group": 2, "samples_per_shard": 5})
    dataset = create_dataset(folder / "out", manifest.model_copy(update={"shards": shards}), base=folder)
    assert len(dataset.groups) == GROUPS
    with Scratch(folder / "scratch") as scratch:
        pool = WorkerPool(1, Path(os.devnull))
        builder = stand_in.StandInBuilder(dataset=dataset, pool=pool, scratch=scratch)
        for group in dataset.groups:
            builder.build(group)
    return folder / "out"


def beat(folder: Path, name: str, time: float, **values: Any) -> None:
    document = {"worker": f"progress/{name}.json", "time": time, **Progress().snapshot(), **values}
    (folder / "progress").mkdir(exist_ok=True)
    (folder / "progress" / f"{name}.json").write_text(json.dumps(document))


@pytest.fixture
def young(large: Path, tmp_path: Path) -> Iterator[Path]:
    """The large data set before its last groups were committed, which wait beside it."""
    waiting = tmp_path / "waiting"
    waiting.mkdir()
    for file in sorted((large / "ledger").iterdir())[-MOVED:]:
        shutil.move(file, waiting / file.name)
    yield waiting
    for file in waiting.iterdir():
        shutil.move(file, large / "ledger" / file.name)
    for name in ("progress", "attempts"):
        shutil.rmtree(large / name, ignore_errors=True)


def test_a_refresh_reads_40_objects_at_most_however_much_has_happened(large: Path, young: Path, reads: Reads) -> None:
    now = 1000.0
    source = Source(str(large), clock=lambda: now)
    view = source.load()
    assert view is not None
    assert len(view.committed.records) == GROUPS - MOVED
    for file in young.iterdir():
        shutil.copy(file, large / "ledger" / file.name)
    for number in range(200):
        beat(large, f"host-{number:03d}", 990.0, group=number)
    (large / "attempts").mkdir()
    for number in range(50):
        attempt = {"group": number, "time": float(number), "sentence": "It failed."}
        (large / layout.attempt(number, 1)).write_text(json.dumps(attempt))
    counts = []
    while True:
        before = len(reads.paths)
        view = source.view(0.0)
        counts.append(len(reads.paths) - before)
        assert view is not None
        assert not source.trouble
        if len(view.attempts) == 50 and len(view.workers) == 200 and not view.backlog:
            break
        now += 5
    assert max(counts) <= MOST_READS
    assert len(view.committed.records) == GROUPS
    # Whatever never changes was read once, and nothing again; and nothing but what is allowed.
    for part, most in (("ledger/", 1), ("survey/", 1), ("attempts/", 1), ("slides/", 0), ("index/", 0), ("shards/", 0)):
        some = [path for path in reads.paths if path.startswith(part)]
        assert len(some) == most * len(set(some)), part
        assert len(some) > 0 or not most
    before = len(reads.paths)
    source.view(0.0)
    assert len(reads.paths) - before <= 22
    source.view(60.0)
    assert len(reads.paths) - before <= 22, "what is fresh is not read again"


def test_from_a_store_a_refresh_asks_40_times_at_most_and_a_slide_is_read_by_ranges(tmp_path: Path) -> None:
    small_slides(tmp_path / "slides", 6)
    build_small(manifest_of(tmp_path / "slides"), tmp_path / "out")
    with Store() as store:
        for file in (tmp_path / "out").rglob("*.*"):
            if file.is_file():
                key = f"out/{file.relative_to(tmp_path / 'out')}"
                store.client().upload_file(str(file), store.bucket, key)
        source = Source(store.url("out"))
        view = source.load()
        assert view is not None
        assert not source.trouble
        with store.counting() as requests:
            source.view(0.0)
        assert 0 < len(requests) <= MOST_READS
        with store.counting() as requests:
            slide = Album().slide(view, "slide-03")
        assert slide.pictures is not None
        assert len(slide.kept) == slide.row["kept"] > 0
        pictures = [one for one in requests if one.key.startswith("out/slides/")]
        assert all(one.method == "HEAD" or one.bytes_out <= BUFFER_BYTES for one in pictures)
        assert len(requests) < 12


def test_figures_are_those_of_status_and_of_the_outcomes(large: Path) -> None:
    dataset = open_dataset(large)
    status = status_of(dataset)
    view = Source(str(large)).load()
    assert view is not None
    figures = figures_of([view], view.committed.slides, 0.0)
    assert figures.slides == {**status.slides, WAITING: 0}
    assert (figures.samples, figures.shards, figures.bytes) == (status.samples, status.shards, status.bytes)
    assert {name: count for name, count in figures.dropped.items() if count} == {
        name: count for name, count in status.dropped.items() if count
    }
    assert (figures.groups["done"], figures.groups["total"]) == (GROUPS, GROUPS)
    assert figures.needed_bytes == 0
    outcomes = read_outcomes(dataset)
    named = ("cohort", "slides", "done", "empty", "quarantined", "patches")
    assert [{name: row[name] for name in named} for row in cohorts_of(view.committed.slides)] == cohort_rows(outcomes)
    assert view.committed.shards.num_rows == status.shards
    same = ["slide_id", "outcome", "reason", "sentence", "kept", "mpp", "group", "split"]
    assert view.committed.slides.select(same).to_pylist() == outcomes.select(same).to_pylist()


def test_what_is_to_come_follows_from_the_sizes_of_slides_and_the_pace_of_the_latest_groups(
    large: Path, young: Path
) -> None:
    records = read_ledger(open_dataset(large).storage)
    ended = max(float(record.built["ended"]) for record in records)
    beat(large, "host-1", ended + 1, group=GROUPS - 1, stage="cut", slides=2)
    view = Source(str(large), clock=lambda: ended + 1).load()
    assert view is not None
    figures = figures_of([view], view.committed.slides, ended + 1)
    assert figures.state == "running"
    assert figures.groups == {"done": GROUPS - MOVED, "running": 1, "failed": 0, "waiting": MOVED - 1, "total": GROUPS}
    assert figures.slides[WAITING] == 2 * MOVED
    assert figures.needed_bytes == pytest.approx(figures.bytes * MOVED / (GROUPS - MOVED), rel=0.05)
    recent = sorted(records, key=lambda record: -float(record.built["ended"]))[:20]
    each_s = union_s((float(one.built["started"]), float(one.built["ended"])) for one in recent) / 20
    assert figures.eta_s == pytest.approx(max(0.0, each_s * MOVED - 1), rel=0.1, abs=0.05)
    assert "host-1" in _text(screen_of(view))
    assert f"groups {GROUPS - MOVED}/{GROUPS}" in line_of(figures)


def _text(screen: Any) -> str:
    from rich.console import Console

    console = Console(width=120)
    with console.capture() as captured:
        console.print(screen)
    return captured.get()


def test_a_builder_is_silent_after_a_minute_and_its_group_is_not_running(large: Path, young: Path) -> None:
    beat(large, "host-1", 1000.0, group=GROUPS - 1, stage="cut")
    (large / "attempts").mkdir()
    attempt = {"group": GROUPS - 1, "time": 990.0, "sentence": "It failed."}
    (large / layout.attempt(GROUPS - 1, 1)).write_text(json.dumps(attempt))
    for now, alive in ((1059.0, True), (1061.0, False)):
        view = Source(str(large), clock=lambda now=now: now).load()  # type: ignore[misc]
        assert view is not None
        figures = figures_of([view], view.committed.slides, now)
        assert (figures.builders, figures.silent_builders) == ((1, 0) if alive else (0, 1))
        assert (figures.groups["running"], figures.groups["failed"]) == ((1, 0) if alive else (0, 1))
        assert figures.state == ("running" if alive else "stopped")


def test_a_data_set_that_comes_later_is_found_and_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    source = Source(str(tmp_path / "out"))
    assert source.view(0.0) is None
    assert not source.trouble
    small_slides(tmp_path / "slides", 1)
    build_small(manifest_of(tmp_path / "slides"), tmp_path / "out")
    view = source.view(0.0)
    assert view is not None
    assert view.state == "complete"
    (tmp_path / "out" / "verification.json").write_text("{")
    assert source.view(0.0) is view, "what was known before is still shown"
    assert source.trouble


def test_nothing_is_read_of_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: Reads) -> None:
    monkeypatch.setenv("EXAONE_PREP_ID_KEY", "key")
    small_slides(tmp_path / "slides", 1)
    build_small(manifest_of(tmp_path / "slides", privacy={"slide_ids": "hash"}), tmp_path / "out")
    assert any(path.startswith("private") for path in reads.paths), "building does"
    reads.paths.clear()
    shutil.rmtree(tmp_path / "out" / "private")
    view = Source(str(tmp_path / "out")).load()
    assert view is not None
    assert view.committed.slides.num_rows == 1
    assert reads.paths
    assert not [path for path in reads.paths if path.startswith("private")]


def test_the_pace_counts_patches_that_are_read_over_the_last_minute() -> None:
    pace = Pace()

    def tell(name: str, time: float, group: int, stage: str, done: int) -> None:
        pace.tell(name, {"time": time, "group": group, "stage": stage, "patches_done": done})

    assert pace.per_s(0.0) is None
    tell("a", 0.0, 1, "cut", 100)
    assert pace.per_s(1.0) is None, "one look tells no pace"
    tell("a", 10.0, 1, "cut", 600)
    tell("a", 10.0, 1, "cut", 600)
    assert pace.per_s(11.0) == 50
    tell("a", 20.0, 1, "pack", 700)
    assert pace.per_s(21.0) == 25, "packing counts the same patches again"
    tell("a", 30.0, 2, "cut", 300)
    assert pace.per_s(31.0) == pytest.approx(800 / 30)
    tell("b", 20.0, 7, "cut", 0)
    tell("b", 30.0, 7, "cut", 1000)
    assert pace.per_s(31.0) == pytest.approx(800 / 30 + 100)
    assert pace.per_s(91.0) is None


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=8))
def test_a_union_of_spans_is_what_at_least_one_covers(spans: list[tuple[int, int]]) -> None:
    seconds = {second for begin, long in spans for second in range(begin, begin + long)}
    assert union_s([(begin, begin + long) for begin, long in spans]) == len(seconds)


def test_a_timeline_begins_at_nothing_never_falls_and_ends_at_all_samples(large: Path) -> None:
    records = read_ledger(open_dataset(large).storage)
    line = timeline(records)
    assert line is not None
    assert line.samples[0] == 0
    assert (np.diff(line.samples) >= 0).all()
    assert line.samples[-1] == pytest.approx(sum(record.samples for record in records))
    assert (line.rates * np.diff(line.edges)).sum() == pytest.approx(line.samples[-1])
    assert timeline([]) is None


ROWS = st.lists(
    st.tuples(st.text("abB-", max_size=4), st.one_of(st.none(), st.integers(0, 5)), st.sampled_from(["x", "y"])),
    max_size=30,
)


@given(
    rows=ROWS,
    text=st.text("aB-%_.", max_size=2),
    down=st.booleans(),
    page=st.integers(1, 5),
    kind=st.sampled_from(["", "x"]),
)
def test_a_page_is_that_of_the_whole_table_searched_and_sorted(
    rows: list[tuple[str, int | None, str]], text: str, down: bool, page: int, kind: str
) -> None:
    schema = pa.schema([("name", pa.string()), ("value", pa.int64()), ("kind", pa.string())])
    table = pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema)
    shown = Shown(columns={"name": "name", "value": "value"}, search=("name",), filters=("kind",))
    asked = {"q": text, "sort": "value", "down": "1" if down else "", "page": str(page), "kind": kind}
    found = page_of(table, Query.of(asked, shown), shown, rows=7)
    some = [row for row in rows if text.lower() in row[0].lower() and kind in ("", row[2])]
    there = sorted([row for row in some if row[1] is not None], key=lambda row: (row[1] or 0) * (-1 if down else 1))
    expected = there + [row for row in some if row[1] is None]
    assert found.found == len(some)
    assert found.pages == max(1, -(-len(some) // 7))
    assert found.page == min(page, found.pages)
    first = (found.page - 1) * 7
    assert [tuple(row.values()) for row in found.rows] == expected[first : first + 7]


@pytest.mark.parametrize("page", ["0", "-1", "x", "9" * 30, "²", ""])
def test_what_makes_no_sense_in_an_address_is_passed_over(page: str) -> None:
    shown = Shown(columns={"name": "name"}, sort="name")
    query = Query.of({"page": page, "sort": "__class__", "down": "perhaps"}, shown)
    assert query == Query(sort="name")
    assert query.address(page=3) == "?sort=name&page=3"


def fits(vectors: list[tuple[float, float, float]], cohorts: list[str]) -> pa.Table:
    count = len(vectors)
    return pa.table(
        {
            "dataset": ["d"] * count,
            "slide_id": [f"s{number}" for number in range(count)],
            "cohort": cohorts,
            "fit_status": ["ok"] * count,
            "fit_reason": pa.nulls(count, pa.string()),
            "fit_haematoxylin": pa.array(vectors, pa.list_(pa.float64(), 3)),
            "fit_eosin": pa.array([(0.0, 1.0, 0.0)] * count, pa.list_(pa.float64(), 3)),
            "fit_max_concentration": pa.array([(1.0, 1.0)] * count, pa.list_(pa.float64(), 2)),
            "fit_angle_deg": [20.0] * count,
        }
    )


def test_a_fit_is_far_off_by_its_angle_to_the_middle_of_its_own_cohort() -> None:
    def at(degrees: float) -> tuple[float, float, float]:
        return float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees))), 0.0

    table = fits([at(10), at(10), at(25), at(40), at(40), at(40)], ["a", "a", "a", "b", "b", "b"])
    found = fits_of(table)
    assert found.off_deg == pytest.approx([0, 0, 15, 0, 0, 0], abs=1e-6)
    assert [row["slide_id"] for row in found.worst(2)] == ["s2", "s0"]
    assert fits_of(table.slice(0, 0)).worst(3) == []
    some = table.slice(1, 3)
    assert fits_of(pa.concat_tables([some, some.slice(0, 1)])).slides.num_rows == 4


def test_a_fit_comes_back_from_its_columns(large: Path) -> None:
    view = Source(str(large)).load()
    assert view is not None
    rows = view.committed.slides.to_pylist()
    some = [row for row in rows if row["fit_status"] is not None]
    assert some
    fit = fit_of(some[0])
    assert fit is not None
    assert {name: some[0][name] for name in fit_columns(fit)} == fit_columns(fit)
    assert fit_of(next(row for row in rows if row["fit_status"] is None)) is None


def test_of_data_sets_as_one_a_mended_slide_counts_once(large: Path) -> None:
    view = Source(str(large), "first").load()
    assert view is not None
    slides = view.committed.slides
    aside = quarantined(slides)
    assert aside.num_rows
    second = aside.set_column(aside.column_names.index("outcome"), "outcome", pa.array(["done"] * aside.num_rows))
    joined = mended([slides, second])
    assert joined.num_rows == slides.num_rows
    assert quarantined(joined).num_rows == 0
    assert mended([second, slides]).num_rows == slides.num_rows + second.num_rows, "only later ones mend"


def test_keys_of_data_sets_are_unlike_and_harmless() -> None:
    keys = list(Sources(["/a/data", "/b/data", "s3://bucket/all", "/c/ä b/"]).by_key)
    assert keys == ["data", "data-2", "all-2", "b"]


def test_the_list_of_quarantined_slides_is_a_table_that_a_build_takes(large: Path, tmp_path: Path) -> None:
    view = Source(str(large)).load()
    assert view is not None
    some = quarantined(view.committed.slides)
    text = as_csv(some)
    (tmp_path / "fix.csv").write_text(text)
    assert read_overrides("fix.csv", tmp_path) == {}
    lines = text.splitlines()
    assert len(lines) == some.num_rows + 1
    slide = str(some.column("slide_id")[0])
    (tmp_path / "fix.csv").write_text(text.replace(f"{slide},,", f"{slide},0.25,"))
    assert [asdict(one) for one in read_overrides("fix.csv", tmp_path).values()] == [
        {"mpp": 0.25, "allow_non_he": None}
    ]


def test_a_spreadsheet_takes_no_sentence_for_a_formula(large: Path) -> None:
    view = Source(str(large)).load()
    assert view is not None
    some = quarantined(view.committed.slides).slice(0, 1)
    evil = some.set_column(some.column_names.index("sentence"), "sentence", pa.array(['=HYPERLINK("x")']))
    assert ",\"'=HYPERLINK(" in as_csv(evil)


def test_by_chance_a_shard_holds_nearly_all_large_slides_and_few_small_ones() -> None:
    assert by_chance(10, np.array([10])) == 1
    assert by_chance(100, np.array([1000] * 64)) == pytest.approx(64 * (1 - (63.9 / 64) ** 1000), rel=0.2)
    assert by_chance(5, np.array([], dtype=np.int64)) == 0
    random = np.random.default_rng(0)
    kept = np.array([3, 30, 300])
    owners = np.repeat(np.arange(3), kept)
    drawn = [len(np.unique(random.choice(owners, 40, replace=False))) for _ in range(3000)]
    assert by_chance(40, kept) == pytest.approx(np.mean(drawn), abs=0.05)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (words.duration(0), "0 s"),
        (words.duration(59.7), "1 min"),
        (words.duration(3700), "1 h 1 min"),
        (words.duration(86_400 * 3 + 60), "3 d"),
        (words.duration(None), "–"),
        (words.size(999), "999 B"),
        (words.size(1_234_567), "1.23 MB"),
        (words.size(5.6e12), "5.6 TB"),
        (words.size(5.6e15), "5,600 TB"),
        (words.percent(1, 100_000), "< 0.1 %"),
        (words.percent(99_999, 100_000), "> 99.9 %"),
        (words.percent(0, 5), "0.0 %"),
        (words.percent(0, 0), "–"),
        (words.when(0), "1970-01-01 00:00:00 UTC"),
    ],
)
def test_figures_are_written_for_people(written: str, expected: str) -> None:
    assert written == expected
