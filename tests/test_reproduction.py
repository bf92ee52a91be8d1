"""The paper's claim in miniature: the same patches in both arms, statistics that keep their word, any finding."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from exaone_prep.catalog import split_of
from exaone_prep.phantom import PhantomSettings, write_phantoms
from exaone_prep.phantom.layout import TISSUES
from exaone_train.collapse.measured import Measured
from exaone_train.collapse.scene import Options
from exaone_train.collapse.table import FeatureTable
from exaone_train.config_file import load_config
from exaone_train.devices import Fabric
from exaone_train.dino import Learner
from reproduction import report
from reproduction.contrast import Spread, difference, estimate
from reproduction.datasets import SPLITS, build, ensure_planned, ensure_same_patches, index, write_manifest
from reproduction.design import (
    ARMS,
    CONFIG,
    DATA_SETS,
    HELD_OUT,
    LABS,
    LEVERS,
    MACENKO,
    MAIN,
    NONE,
    PILOT,
    QUICK,
    ROOT,
    Places,
    ReproductionError,
    Size,
)
from reproduction.features import fresh_weights, labelled
from reproduction.findings import PRIMARY, QUESTIONS, UNTRAINED, Findings
from reproduction.pilot import detectable
from reproduction.real import read_real_patches
from reproduction.slides import Truth, read_truth, write_slides
from reproduction.tissue import SLIDES_HELD_OUT, tissue_probes
from tests.realdata import needs_real_data

SLIDES = 20
"""Of constructed findings."""
Looks = dict[tuple[str, str], list[dict[str, Measured]]]


def test_the_data_sets_of_both_arms_differ_in_one_setting_and_hold_the_same_patches_in_the_same_order(
    tmp_path: Path,
) -> None:
    places = Places(tmp_path)
    settings = PhantomSettings(
        slides=3 * LABS, labs=LABS, width_px=1024, height_px=1024, levels=3, slides_per_patient=1
    )
    write_phantoms(places.slides, replace(settings, pen_fraction=0, blur_fraction=0))
    size = replace(QUICK, rounds=3, held_out=0.5, held_out_rounds=(2,))
    write_manifest(places, size)
    build(places, size, [arm.data for arm in ARMS], workers=2)
    one, two = (yaml.safe_load((places.data(arm.data) / "manifest.yaml").read_text()) for arm in ARMS)
    assert one["stain"].pop("method") == "none"
    assert two["stain"].pop("method") == "macenko"
    assert one == two
    for split in SPLITS:
        rows = [index(places, arm.data, split).select(["slide_id", "x", "y", "shard"]).to_pylist() for arm in ARMS]
        assert rows[0] == rows[1]
        assert rows[0]
    held_out, trained_on = (set(index(places, "none", split)["slide_id"].to_pylist()) for split in ("val", "train"))
    assert (len(held_out), len(trained_on)) == (LABS, 2 * LABS), (
        "a round has a slide of every laboratory, all in one split"
    )
    assert {name[:4] for name in held_out} == {f"lab{lab}" for lab in range(LABS)}
    with pytest.raises(ReproductionError, match="not the 6 of the design"):
        ensure_planned(places, replace(size, held_out_rounds=(1,)), "none")
    with pytest.raises(ReproductionError, match="slides of other settings"):
        write_slides(places.slides, size, 1)


def _indexed(places: Places, name: str, rows: Sequence[tuple[str, int]]) -> None:
    for split in SPLITS:
        folder = places.data(name) / "index" / split
        folder.mkdir(parents=True)
        slides, x = (list(values) for values in zip(*rows, strict=True))
        columns = {"slide_id": slides, "x": x, "y": x, "shard": ["shard-000000-000.tar"] * len(rows)}
        pq.write_table(pa.table(columns), folder / "group-000000.parquet")


def test_data_sets_of_other_patches_or_in_another_order_are_not_compared(tmp_path: Path) -> None:
    places = Places(tmp_path)
    _indexed(places, "none", [("a", 0), ("b", 0), ("b", 3)])
    _indexed(places, "macenko", [("a", 0), ("b", 0), ("b", 4)])
    _indexed(places, "patch", [("a", 0), ("b", 3), ("b", 0)])
    _indexed(places, "unmixed", [("b", 0), ("b", 3), ("a", 0)])
    with pytest.raises(ReproductionError, match="1 are in the first alone and 1 in the second alone"):
        ensure_same_patches(places, ["none", "macenko"])
    with pytest.raises(ReproductionError, match="in another order"):
        ensure_same_patches(places, ["none", "patch"])
    ensure_same_patches(places, ["none", "unmixed"])


def test_every_laboratory_has_each_kind_of_tissue_once_among_the_held_out_slides() -> None:
    for size in (MAIN, PILOT, QUICK):
        rounds = [one for one in range(size.rounds) if _is_held_out(one, size)]
        assert tuple(rounds) == size.held_out_rounds
    assert sorted(one % len(TISSUES) for one in MAIN.held_out_rounds) == list(range(len(TISSUES)))
    assert MAIN.rounds % len(TISSUES) == 0
    assert MAIN.split_seed == next(
        seed
        for seed in range(1_000)
        if len(rounds := [one for one in range(MAIN.rounds) if _is_held_out(one, replace(MAIN, split_seed=seed))]) == 5
        and len({one % len(TISSUES) for one in rounds}) == 5
    )


def _is_held_out(one: int, size: Size) -> bool:
    return split_of(f"p{one:04d}", {HELD_OUT: size.held_out}, seed=size.split_seed) == HELD_OUT


def test_arms_share_everything_but_what_they_are_about() -> None:
    assert DATA_SETS["none"].keys() == DATA_SETS["macenko"].keys() == {"stain.method"}
    assert not NONE.train
    assert not MACENKO.train
    assert set(MAIN.seeds).isdisjoint(PILOT.seeds)
    assert len(MAIN.seeds) >= 3
    assert MAIN.corpus_seed != PILOT.corpus_seed
    assert MAIN.steps == PILOT.steps
    assert not MAIN.caveat
    assert PILOT.caveat
    assert QUICK.caveat
    for arm in LEVERS:
        load_config(CONFIG, [f"{field}={value}" for field, value in arm.train.items()])


def test_the_tissue_of_a_patch_is_what_most_of_it_belongs_to(tmp_path: Path) -> None:
    cells = np.zeros((8, 8), np.uint8)
    cells[2:6, 2:6] = 1
    cells[2:6, 5] = 2
    (tmp_path / "truth").mkdir()
    Image.fromarray(cells).save(tmp_path / "truth" / "s.png")
    truth = Truth(tmp_path, 0.5, 10, ("gland", "nest"), {"s": "lab-0"})
    assert truth.tissue("s", 20, 20, 40) == "gland"
    assert truth.tissue("s", 50, 20, 10) == "nest"
    assert truth.tissue("s", 40, 20, 20) == "gland", "of equally large parts the first"
    assert truth.tissue("s", 0, 0, 80) == "gland", "glass is no tissue"


def test_truth_is_read_as_the_generator_writes_it(tmp_path: Path) -> None:
    settings = PhantomSettings(slides=1, labs=1, width_px=512, height_px=512, levels=1)
    write_phantoms(tmp_path, settings)
    truth = read_truth(tmp_path)
    assert truth.labs == {"lab0-p0000-s00": "lab-0"}
    assert (truth.mpp, truth.cell_px) == (0.5, 8)
    assert truth.tissue("lab0-p0000-s00", 0, 0, 512) in truth.compartments


def test_the_tissue_of_a_patch_is_that_of_the_middle_which_an_encoder_sees(tmp_path: Path) -> None:
    cells = np.ones((64, 64), np.uint8)
    cells[12:25, 20:44] = 2  # rows of a patch whose middle are rows 12 to 35 and columns 20 to 43
    (tmp_path / "truth").mkdir()
    Image.fromarray(cells).save(tmp_path / "truth" / "s.png")
    truth = Truth(tmp_path, 0.5, 8, ("gland", "nest"), {"s": "lab-3"})
    table = FeatureTable(
        name="n",
        features=np.ones((2, 3), np.float32),
        slide_id=np.array(["s", "s"]),
        patient_id=np.array(["p", "p"]),
        place=np.array([[128.0, 64.0], [64.0, 128.0]]),
    )
    found = labelled(table, 48, truth)
    assert found.label is not None
    assert found.centre is not None
    assert found.label.tolist() == ["nest", "gland"]
    assert found.centre.tolist() == ["lab-3", "lab-3"]
    assert found.patient_id is None
    whole = labelled(table, 64, truth)
    assert whole.label is not None
    assert whole.label.tolist() == ["gland", "gland"]


def test_an_untrained_encoder_is_what_a_run_of_its_seed_begins_with() -> None:
    config = load_config(CONFIG, ["run.seed=7"])
    begun = Learner(config, Fabric(accelerator="cpu", devices=1)).teacher.encoder.state_dict()
    fresh = fresh_weights(config)
    assert fresh.keys() == begun.keys()
    assert all(torch.equal(fresh[name], begun[name]) for name in begun)


def _table(features: np.ndarray, lab: np.ndarray, slide: np.ndarray, tissue: np.ndarray) -> FeatureTable:
    return FeatureTable(
        name="constructed",
        features=features.astype(np.float32),
        slide_id=np.array([f"lab{a}-{b}" for a, b in zip(lab, slide, strict=True)]),
        centre=np.array([f"lab-{a}" for a in lab]),
        label=np.array([f"tissue-{a}" for a in tissue]),
    )


def test_tissue_that_looks_different_in_each_laboratory_is_told_on_new_slides_but_not_in_new_laboratories() -> None:
    random = np.random.default_rng(0)
    lab, slide, tissue = (axis.ravel() for axis in np.meshgrid(range(4), range(3), list(range(3)) * 10, indexing="ij"))
    noise = 0.05 * random.normal(size=(len(lab), 12))
    same_everywhere = np.eye(12)[tissue] + noise
    other_in_each = np.eye(12)[3 * lab + tissue] + noise
    options = Options(resamples=50)
    known = tissue_probes(_table(same_everywhere, lab, slide, tissue), options)
    assert known["tissue_labs_held_out"].value == known["tissue_slides_held_out"].value == 1
    local = tissue_probes(_table(other_in_each, lab, slide, tissue), options)
    assert local["tissue_slides_held_out"].value == 1
    assert local["tissue_labs_held_out"].value < 0.6
    assert local["tissue_labs_held_out"].chance == pytest.approx(1 / 3)


class Scene:
    """Slides that runs are looked at on, and draws of them; two arms may differ by slide, and by seed."""

    def __init__(self, random: np.random.Generator, slides: int, seeds: int, shared_by_seed: float = 0.0) -> None:
        self.random, self.slides = random, slides
        self.weights = random.multinomial(slides, np.full(slides, 1 / slides), 300) / slides
        self.by_seed = random.normal(0, shared_by_seed, seeds)

    def runs(self, effect: float, of_slides: float, of_seeds: float) -> list[Measured]:
        """An arm whose figure is `effect`, but for what slides and seeds add."""
        by_slide = self.random.normal(0, of_slides, self.slides)
        found = []
        for shared in self.by_seed:
            run = effect + shared + self.random.normal(0, of_seeds)
            found.append(Measured(value=run + float(by_slide.mean()), drawn=run + self.weights @ by_slide))
        return found


@pytest.mark.parametrize("slides", [4, 20])
@pytest.mark.parametrize(("of_slides", "of_seeds"), [(0.3, 0.0), (0.01, 0.1), (0.3, 0.1)])
def test_intervals_hold_the_truth_as_often_as_they_say(slides: int, of_slides: float, of_seeds: float) -> None:
    random = np.random.default_rng(1)
    held = 0
    for _ in range(600):
        low, high = estimate(Scene(random, slides, 4).runs(0.4, of_slides, of_seeds), slides).interval
        held += low <= 0.4 <= high
    assert 0.92 <= held / 600 <= 0.985


@pytest.mark.parametrize("of_seeds", [(0.1, 0.1), (0.1, 0.0)])
def test_no_difference_is_told_apart_as_seldom_as_it_says_though_seeds_are_shared(
    of_seeds: tuple[float, float],
) -> None:
    random = np.random.default_rng(2)
    told = 0
    for _ in range(600):
        scene = Scene(random, 20, 4, shared_by_seed=0.5)
        one, two = (scene.runs(0.4, 0.1, each) for each in of_seeds)
        told += difference(one, two, 20).told_apart
    assert 0.015 <= told / 600 <= 0.08


def test_a_difference_of_the_smallest_detectable_size_is_told_apart_four_times_of_five() -> None:
    random = np.random.default_rng(3)
    of_slides, of_seeds = 0.2, 0.05
    least = Spread(of_slides=2**0.5 * of_slides, of_seeds=2**0.5 * of_seeds).detectable(20, 4)
    told = 0
    for _ in range(600):
        scene = Scene(random, 20, 4)
        before, after = (scene.runs(effect, of_slides, of_seeds) for effect in (0.4, 0.4 + least))
        told += difference(after, before, 20).told_apart
    assert 0.74 <= told / 600 <= 0.86


def test_what_rests_on_one_slide_has_no_interval_and_is_not_told_apart() -> None:
    run = Measured(value=0.3, drawn=np.full(10, np.nan), details={"slides": 1})
    alone = estimate([run, run], 20)
    assert np.isnan(alone.interval).all()
    assert not alone.told_apart
    two = Measured(value=0.3, drawn=np.linspace(0, 1, 10), details={"slides": 2})
    assert difference([run], [two], 20).slides == 1
    assert estimate([two], 20).slides == 2


def test_more_slides_and_seeds_tell_smaller_differences_apart_than_fewer() -> None:
    least = [detectable("arms", slides, seeds)[PRIMARY] for slides, seeds in ((10, 3), (30, 3), (30, 8))]
    assert least == sorted(least, reverse=True)
    assert 0 < least[-1] < least[0]


def _findings(change: float, noise: float = 0.01, learned: float = 0.3) -> Findings:
    random = np.random.default_rng(3)
    looks: Looks = {}
    for name, shown in product((UNTRAINED, NONE.name, MACENKO.name), (NONE.shown, MACENKO.shown)):
        value = 0.4 + (change if name == MACENKO.name else 0)
        looks[name, shown] = [
            {
                PRIMARY: Measured(value=run, drawn=run + noise * random.normal(size=200), chance=0.1),
                SLIDES_HELD_OUT: Measured(value=run + (learned if name != UNTRAINED else 0), drawn=np.full(200, run)),
            }
            for run in (value + 0.001 * number for number in range(3))
        ]
    return Findings(looks, (0, 1, 2), SLIDES, 1_000)


@pytest.mark.parametrize(
    ("change", "words", "judged"),
    [
        (-0.2, ("cluster **less by slide**", "makes features cluster less on top"), "better"),
        (0.2, ("cluster **more by slide**", "makes features cluster more again"), "worse"),
        (0.0, ("cluster **neither less nor more by slide**", "is not told apart from nothing"), "not told apart"),
    ],
)
def test_the_report_says_what_was_found_whatever_it_was(change: float, words: tuple[str, str], judged: str) -> None:
    findings = _findings(change)
    said = report.headline(findings)
    assert all(one in said for one in words)
    assert "instead of 40.1%" in said
    table = report.main_table(findings, {PRIMARY: 0.03})
    assert "| 0.030 |" in table
    assert judged in table


def test_more_is_better_where_a_measure_says_so() -> None:
    more, less = (_findings(change).difference(PRIMARY, *looks) for change, looks in _both_ways())
    assert report.verdict(PRIMARY, more) == "worse"
    assert report.verdict("robustness_index_centre", more) == report.verdict("tissue_labs_held_out", more) == "better"
    assert report.verdict(PRIMARY, less) == "better"
    assert report.verdict("tissue_slides_held_out", less) == "worse"


def _both_ways() -> Sequence[tuple[float, tuple[tuple[str, str], tuple[str, str]]]]:
    looks = ((MACENKO.name, MACENKO.shown), (NONE.name, NONE.shown))
    return [(0.2, looks), (-0.2, looks)]


def test_the_report_says_whether_anything_was_learned() -> None:
    known, unknown = (report.learned(_findings(0.0, learned=change)) for change in (0.3, -0.1))
    assert "taught **both arms** something" in known
    assert "nothing can be concluded" not in known
    assert "taught **neither arm** something" in unknown
    assert "nothing can be concluded" in unknown


def test_limits_end_where_the_measure_does() -> None:
    wide = _findings(0.0, noise=0.9)
    assert "[0.000, 1.000]" in report.real_table(wide)


@needs_real_data
def test_real_patches_are_shown_as_scanned_and_normalised_by_slide() -> None:
    real = read_real_patches()
    assert real is not None
    assert real.images["none"].shape == real.images["macenko"].shape == (89, 32, 32, 3)
    slides = np.unique(real.slide_id)
    assert len(slides) == 4
    assert set(real.label) == {"normal", "tumor"}
    apart = {
        name: np.std([images[real.slide_id == slide].mean(axis=(0, 1, 2)) for slide in slides], axis=0).mean()
        for name, images in real.images.items()
    }
    assert apart["macenko"] < 0.8 * apart["none"]


@pytest.mark.soak
@pytest.mark.timeout(1_200)
def test_a_quick_reproduction_with_its_levers_ends_with_a_report_and_goes_on_where_it_was(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "reproduction", "--quick", "--levers", "--out", str(tmp_path / "work")]

    def run() -> str:
        ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    said = run()
    assert said.index("smallest differences told apart") < said.index("trained: none, seed 0")
    folder = tmp_path / "work" / "report"
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in ("README.md", "levers.md")}
    for text in texts.values():
        assert "its figures are no findings" in text
        assert "nan" not in text
    for arm in LEVERS:
        assert f"**{arm.name}**" in texts["levers.md"]
    figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    assert figures["generated"]["slides"] == 2 * LABS
    looks = figures["generated"]["measures"][PRIMARY]["looks"]
    assert looks["none on none"]["value"] > looks["macenko on macenko"]["value"], "colour alone sees to that"
    runs = sorted((tmp_path / "work" / "runs").glob("*/checkpoints/*"))
    made = {run: run.stat().st_mtime_ns for run in runs}
    run()
    assert {run: run.stat().st_mtime_ns for run in runs} == made
    again = (folder / "levers.md").read_text(encoding="utf-8")
    assert again == texts["levers.md"], "what was trained is measured again, alike"


def test_the_plan_names_the_differences_that_are_said_before_the_runs() -> None:
    plan = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
    said = {question: detectable(question, len(MAIN.held_out_rounds) * LABS, len(MAIN.seeds)) for question in QUESTIONS}
    for key in (*report.CHOSEN, SLIDES_HELD_OUT):
        assert f"| `{key}` | {said['arms'][key]:.3f} | {said['training'][key]:.3f} |" in plan
