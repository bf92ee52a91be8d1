"""The benchmark suite: what it calls floor, chain and steps is what it says, on a slide that is built in seconds."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exaone_prep.codec import encode
from tests.smallslides import small_slide

ROOT = Path(__file__).resolve().parents[1]
SIZE_PX = 256


@pytest.fixture(scope="module")
def slide(suite: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small slide after its survey."""
    folder = tmp_path_factory.mktemp("benchmark")
    return suite("surveyed").survey(small_slide(folder / "slide.tiff"), folder)


@pytest.fixture(scope="module")
def found(suite: Any, slide: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures and ratios of one run."""
    figures, ratios = suite("chain").chain_figures(slide, runs=1)
    return figures, ratios


def test_the_chain_costs_more_than_the_floor_and_keeps_what_is_planned(found: Any, slide: Any) -> None:
    figures, ratios = found
    assert figures["kept"] == figures["planned"] == len(slide.positions)
    assert figures["chain_slide_fit_ms"] > figures["floor_ms"] > 0
    assert ratios["chain_over_floor_slide_fit"] > 1
    assert figures["cut_ms"] + figures["pack_ms"] + figures["commit_ms"] == pytest.approx(figures["chain_slide_fit_ms"])


def test_a_fit_per_patch_costs_more(found: Any) -> None:
    assert found[0]["step_normalise_fit_patch_ms"] > found[0]["step_normalise_ms"]


def test_the_floor_decodes_each_tile_under_a_patch_once(suite: Any, slide: Any) -> None:
    tiles = suite("floor").needed_tiles(slide)
    under = {
        (x // tiles.width_px + column, y // tiles.height_px + row)
        for x, y in slide.positions.tolist()
        for row in range(-(-(y % tiles.height_px + SIZE_PX) // tiles.height_px))
        for column in range(-(-(x % tiles.width_px + SIZE_PX) // tiles.width_px))
    }
    assert len(tiles.streams) == len(under)


def test_steps_make_the_patches_of_the_data_set(suite: Any, slide: Any) -> None:
    finished = suite("stages").steps(slide, slide.positions, keep=len(slide.positions)).finished
    job = suite("whole_build").cut_job(slide, slide.pictures.with_name("slide.spool"))
    job.run(lambda _: None)
    assert job.spool.read_bytes() == b"".join(encode(patch, slide.manifest.codec) for patch in finished)


def test_without_measures_every_planned_patch_is_kept_and_none_is_measured(
    suite: Any, slide: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(_: Any) -> None:
        raise AssertionError("a patch was measured")

    monkeypatch.setattr("exaone_prep.cut.measure", forbidden)
    assert suite("group_build").build_group([slide.path], measured=False).kept == len(slide.positions)
    with pytest.raises(AssertionError):
        suite("group_build").build_group([slide.path])


def test_a_tool_that_no_python_has_is_absent(suite: Any, slide: Any, tmp_path: Path, found: Any) -> None:
    figures, ratios = suite("chain").peer_figures(
        slide, {"slide_fit": 1.0, "patch_fit": 1.0}, runs=1, python=tmp_path / "python", tools={"hs2p": 1}
    )
    assert figures == {"hs2p_ms": "absent"}
    assert ratios == {}
    text = suite("chain_table").table({**found[0], **figures, "slide_px": "1x1"}, found[1])
    assert [line.split()[-1] for line in text.splitlines() if line.strip().startswith("hs2p")] == ["absent"]


def test_another_tool_gets_the_same_patches(suite: Any, slide: Any, tmp_path: Path) -> None:
    peers = _module(ROOT / "benchmarks" / "peers" / "slides.py")
    job = peers.Job(**suite("slide_peers").job_of(slide, slide.positions[:3]))
    patches: list[Any] = []

    def seen(patch: Any) -> Any:
        patches.append(patch)
        return patch

    made = peers.to_tar(peers.openslide_patches(job), seen, job.quality, tmp_path)
    expected = suite("stages").raw_patches(slide, slide.positions[:3])
    assert made == 3
    assert all(np.array_equal(patch, same) for patch, same in zip(patches, expected, strict=True))


@given(across=st.integers(1, 9), down=st.integers(1, 9), least=st.integers(1, 100), holes=st.sets(st.integers(0, 80)))
def test_middle_rows_are_whole_rows_and_enough(suite: Any, across: int, down: int, least: int, holes: set[int]) -> None:
    grid = [(256 * x, 256 * y) for y in range(down) for x in range(across) if y * across + x not in holes]
    if not grid:
        return
    positions = np.array(grid, dtype=np.int64)
    some = suite("surveyed").middle_rows(positions, least)
    assert len(some) >= min(least, len(positions))
    rows = set(some[:, 1].tolist())
    assert np.array_equal(some, positions[np.isin(positions[:, 1], list(rows))])


def test_a_document_is_one_line_that_can_be_read_again(
    suite: Any, found: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = suite("report")
    made = report.document("chain", *found)
    report.write(made, to=tmp_path / "new" / "chain.json", last_line=True)
    printed = capsys.readouterr().out
    assert json.loads(printed) == json.loads((tmp_path / "new" / "chain.json").read_text()) == made
    assert printed.count("\n") == 1


def test_bars_of_the_chart_are_as_long_as_their_figures(suite: Any) -> None:
    figures = {
        "floor_decode_ms": 0.2,
        "floor_encode_ms": 0.2,
        "floor_ms": 0.4,
        "step_measure_ms": 0.05,
        "step_normalise_ms": 0.1,
        "step_normalise_fit_patch_ms": 0.5,
        "chain_slide_fit_ms": 0.6,
        "chain_patch_fit_ms": 1.0,
        "hs2p_ms": 0.8,
        "tiatoolbox_ms": "absent",
    }
    ratios = {"chain_over_floor_slide_fit": 1.5, "chain_over_floor_patch_fit": 2.5}
    chart = suite("chart")
    drawn = ET.fromstring(chart.chart(figures, ratios))
    widths = [float(bar.get("width", 0)) for bar in drawn.iter() if bar.get("class") == "tool"]
    assert np.allclose(np.array(widths) / widths[0], np.array([0.4, 0.6, 1.0, 0.8]) / 0.4, rtol=0.01)
    assert [bar.ms for bar in chart.stage_bars(figures, ratios)] == pytest.approx([0.4, 0.6, 1.0])


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("peers_slides", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
