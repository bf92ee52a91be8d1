"""The cost model: what must hold whatever the rates are, and what can be counted by hand."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exaone_prep.catalog.place import CHUNK_BYTES

ROOT = Path(__file__).resolve().parents[1]
SECONDS = st.lists(st.floats(0.1, 100), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def model(suite: Any) -> Any:
    return suite("scale_model")


def test_the_paper_has_544_groups_whose_patches_add_up(model: Any) -> None:
    corpus = model.Corpus()
    patches = corpus.patches_of_groups()
    assert len(patches) == corpus.groups == 544
    assert patches.sum() == pytest.approx(285_153_903)


def test_the_model_tries_a_group_as_often_as_the_driver(model: Any) -> None:
    from exaone_prep.build import ATTEMPTS

    assert model.ATTEMPTS == ATTEMPTS


def test_one_worker_takes_what_all_groups_take_and_two_share_equal_ones(model: Any) -> None:
    assert model.makespan(np.array([3.0, 1.0, 2.0]), 1) == 6.0
    assert model.makespan(np.full(10, 2.0), 2) == 10.0
    assert model.makespan(np.array([1.0, 1.0, 4.0]), 2) == 5.0


@given(seconds=SECONDS, workers=st.integers(1, 80))
def test_no_schedule_is_shorter_than_its_longest_group_or_than_its_share(
    model: Any, seconds: list[float], workers: int
) -> None:
    taken = np.array(seconds)
    wall = model.makespan(taken, workers)
    least = max(taken.max(), taken.sum() / workers)
    # Graham's bound for lists (1966).
    assert least * (1 - 1e-9) <= wall <= taken.sum() / workers + taken.max() * (1 - 1 / workers) + 1e-6


@given(seconds=SECONDS, workers=st.integers(1, 80), seed=st.integers(0, 99))
def test_without_trouble_nothing_is_lost_or_done_twice(
    model: Any, seconds: list[float], workers: int, seed: int
) -> None:
    run = model.course(seconds, workers, model.NO_TROUBLE, seed)
    assert (run.lost, run.wasted_s) == (0, 0.0)
    assert run.busy_s == pytest.approx(sum(seconds))
    assert run.wall_s == pytest.approx(model.makespan(np.array(seconds), workers))
    assert 0 < run.busy_share(workers) <= 1 + 1e-9


def test_groups_that_always_fail_are_lost_after_three_attempts(model: Any) -> None:
    run = model.course(np.full(40, 10.0), 4, replace(model.NO_TROUBLE, failing=1.0))
    assert run.lost == 40
    assert run.busy_s == run.wasted_s
    assert 0 < run.wasted_s < 3 * 400


def test_failures_cost_about_half_of_an_attempt_each(model: Any) -> None:
    run = model.course(np.full(20_000, 1.0), 10, replace(model.NO_TROUBLE, failing=0.1))
    assert run.wasted_s == pytest.approx(20_000 * 0.111 / 2, rel=0.1)


def test_a_straggler_at_the_end_is_waited_for(model: Any) -> None:
    groups, rough = np.full(1000, 10.0), replace(model.NO_TROUBLE, straggling=0.01, straggler=5.0)
    assert model.course(groups, 1000, rough).wall_s == pytest.approx(50.0)
    assert model.course(groups, 1, rough).wall_s < 1.1 * groups.sum()


def test_more_workers_never_take_longer_until_the_store_gives_no_more(model: Any) -> None:
    corpus, rates = model.Corpus(), model.MEASURED["40x to 20x", "slide"]
    site = model.Site(workers=1, store_bytes_s=12.5e9)
    walls = [
        model.build(corpus, rates, replace(site, workers=some), model.NO_TROUBLE).wall_s for some in (1, 4, 16, 64, 256)
    ]
    assert walls == sorted(walls, reverse=True)
    moved = model.group_bytes(corpus, corpus.patches_of_groups()).sum()
    assert walls[-1] == walls[-2] == pytest.approx(moved / 12.5e9)
    assert walls[0] / walls[1] == pytest.approx(4, rel=0.05)


def test_no_worker_is_faster_than_its_network(model: Any) -> None:
    corpus, rates = model.Corpus(), model.MEASURED["20x", "slide"]
    site = model.Site(workers=1, cores=1000, worker_bytes_s=1e8, store_bytes_s=inf)
    patches = corpus.patches_of_groups()
    assert model.group_seconds(corpus, rates, site, patches) == pytest.approx(model.group_bytes(corpus, patches) / 1e8)


def test_a_gpu_takes_over_the_stain_and_no_more(model: Any) -> None:
    for (_, fit), rates in model.MEASURED.items():
        assert rates.on_gpu().chain_ms == pytest.approx(rates.chain_ms * (1 - rates.gpu_share))
        assert rates.gpu_speedup == pytest.approx(rates.chain_ms / rates.on_gpu().chain_ms)
        assert rates.gpu_share < (0.16 if fit == "slide" else 0.45)


def test_rates_are_those_of_the_performance_page(model: Any) -> None:
    table = (ROOT / "docs" / "performance.md").read_text().split("\n## ")
    chain = next(section for section in table if section.startswith("The chain before"))
    for row, name, fit in (
        ("| chain, `fit: slide` |", "chain_ms", "slide"),
        ("| chain, `fit: patch` |", "chain_ms", "patch"),
        ("| normalise, `fit: slide` |", "normalise_ms", "slide"),
        ("| normalise, `fit: patch` |", "normalise_ms", "patch"),
    ):
        cells = next(line for line in chain.splitlines() if line.startswith(row)).split("|")[2:5]
        rates = [getattr(model.MEASURED[kind, fit], name) for kind in ("20x", "40x to 20x", "real, 20x")]
        assert rates == [float(cell) for cell in cells], row


def test_money_is_the_sum_of_its_parts(model: Any) -> None:
    corpus = model.Corpus(slides=64, patches=640_000, slide_bytes=1e9, patch_bytes=20_000, index_row_bytes=0)
    site = model.Site(workers=2, cores=4)
    run = model.Course(wall_s=7200, busy_s=7200, wasted_s=0, lost=0)
    asked = model.requests(corpus, 7200)
    alone = {
        "core_hour": 2 * 2 * 4,
        "storage_per_gb_month": 12.8 * 3,
        "egress_per_gb": 64 + 12.8,
        "put_per_1000": (asked.put + asked.list) / 1000,
        "get_per_1000": asked.get / 1000,
    }
    nothing = {"currency": "EUR", **dict.fromkeys(alone, 0.0)}
    for name, expected in alone.items():
        prices = model.Prices(**nothing | {name: 1.0})
        assert model.money(corpus, site, run, prices, months=3) == pytest.approx(expected, abs=0.01), name
    together = model.Prices(**nothing | dict.fromkeys(alone, 1.0))
    assert model.money(corpus, site, run, together, months=3) == pytest.approx(sum(alone.values()), abs=0.02)


def test_slides_and_shards_are_read_in_whole_parts(model: Any) -> None:
    corpus = model.Corpus(slides=64, patches=640_000, slide_bytes=1e9)
    larger = replace(corpus, slide_bytes=2e9)
    chunks = -(-2 * 10**9 // CHUNK_BYTES) - -(-(10**9) // CHUNK_BYTES)
    assert model.requests(larger).get - model.requests(corpus).get == 64 * chunks
    assert model.requests(larger).put == model.requests(corpus).put


def test_the_picture_of_the_docs_is_what_the_model_says(suite: Any) -> None:
    chart = suite("scale_chart")
    drawn = chart.chart(*chart.panels())
    assert drawn == (ROOT / "docs" / "pictures" / "scale.svg").read_text(encoding="utf-8")
    lines = [one for one in ET.fromstring(drawn).iter() if one.tag.endswith("polyline")]
    assert len(lines) == 7
    assert all(len(str(line.get("points")).split()) == len(chart.WORKERS) for line in lines)
