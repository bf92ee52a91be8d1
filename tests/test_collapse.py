"""Measures of collapse recover what features were made of, and equal implementations of others."""

from __future__ import annotations

import json
import logging
import tracemalloc
import warnings
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from croma import RI
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, silhouette_samples
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from exaone_train.collapse.clustering import _adjusted_rand, _tables, clustering_score
from exaone_train.collapse.confounder import group_probe, neighbour_ratio, robustness_index, same_group_knn
from exaone_train.collapse.folds import strips, whole_groups
from exaone_train.collapse.interval import Share, draws, limits
from exaone_train.collapse.measure import MEASURES, measure
from exaone_train.collapse.measured import AbsentError
from exaone_train.collapse.scene import Options, Scene
from exaone_train.collapse.slide import knn_gap, same_slide_knn, silhouette_slide, silhouettes, slide_probe
from exaone_train.collapse.table import FeatureTable
from exaone_train.errors import FeatureError
from exaone_train.neighbours import Neighbours, nearest, unit, vote
from tests.features import around, random_table, table

SLIDES, EACH = 8, 12
SLIDE = np.repeat(np.arange(SLIDES), EACH)
"""Eight slides of twelve patches."""


def quick(**changes: int) -> Options:
    """Options with few resamples and clusterings."""
    quickly = Options(resamples=200, clustering_trials=1, clustering_most=4, clustering_pairs=1)
    return replace(quickly, **changes)


def scene(one: FeatureTable, **changes: int) -> Scene:
    return Scene(table=one, options=quick(**changes))


# --- known answers ---


def test_features_that_cluster_by_slide_alone_have_every_neighbour_on_their_slide() -> None:
    collapsed = scene(table(around(SLIDE), SLIDE), k=EACH - 1)
    share = same_slide_knn(collapsed)
    assert (share.value, *share.interval) == (1, 1, 1)
    assert share.chance == pytest.approx((EACH - 1) / (SLIDES * EACH - 1))
    assert silhouette_slide(collapsed).value > 0.99
    assert slide_probe(collapsed).value == 1


def test_features_that_know_nothing_of_slides_stand_at_chance() -> None:
    random = np.random.default_rng(0)
    none = scene(table(random.standard_normal((1200, 16)).astype(np.float32), np.repeat(np.arange(8), 150)), k=10)
    share = same_slide_knn(none)
    low, high = share.interval
    assert share.chance is not None
    assert low < share.chance < high
    assert share.value == pytest.approx(share.chance, abs=0.02)
    assert silhouette_slide(none).value < 0
    assert slide_probe(none).value == pytest.approx(1 / 8, abs=0.05)


@given(own=st.integers(1, 6), together=st.integers(2, 4))
@settings(max_examples=15, deadline=None)
def test_clusters_shared_by_slides_have_the_share_that_can_be_counted(own: int, together: int) -> None:
    """Each cluster holds `own` patches of each of `together` slides; with k = all others of it, own − 1 match."""
    slide = np.repeat(np.arange(6 * together), own)
    cluster = np.arange(len(slide)) // (own * together)
    k = own * together - 1
    share = same_slide_knn(scene(table(around(cluster), slide), k=k))
    assert share.value == pytest.approx((own - 1) / k)


def test_a_mixture_of_slide_and_tissue_has_the_mean_of_both_shares() -> None:
    """A third of each slide's patches are in a cluster of their own, the others in one cluster of all slides."""
    slide = np.repeat(np.arange(SLIDES), 90)
    alone = np.arange(len(slide)) % 3 == 0
    share = same_slide_knn(scene(table(around(np.where(alone, slide, SLIDES)), slide), k=29))
    expected = (1 / 3) * 1 + (2 / 3) * (60 - 1) / (60 * SLIDES - 1)
    assert share.value == pytest.approx(expected, abs=0.01)


def test_a_slide_smaller_than_the_neighbourhood_lowers_the_ceiling() -> None:
    slide = np.repeat([0, 1], [3, 9])
    share = same_slide_knn(scene(table(around(slide), slide), k=4))
    assert share.details["ceiling"] == pytest.approx((3 * 2 + 9 * 4) / (12 * 4))
    assert share.value == pytest.approx(share.details["ceiling"])


def test_the_gap_is_one_where_slides_tell_tissue_apart_in_ways_of_their_own() -> None:
    """Each slide has two clusters, and its neighbour in another slide is always the other class."""
    label = np.arange(len(SLIDE)) % 2
    swapped = (label + SLIDE) % 2
    features = around(SLIDE // 2 * 2 + swapped) + 0.1 * around(SLIDE + 16)
    gap = knn_gap(scene(table(features, SLIDE, label=label)))
    assert gap.details["within"] == 1
    assert gap.details["across"] == 0
    assert gap.value == 1


def test_the_gap_is_nought_where_tissue_looks_alike_on_all_slides() -> None:
    label = np.arange(len(SLIDE)) % 2
    gap = knn_gap(scene(table(around(label), SLIDE, label=label)))
    assert (gap.details["within"], gap.details["across"], gap.value) == (1, 1, 0)


def test_slides_of_one_class_say_nothing_of_the_gap() -> None:
    with pytest.raises(AbsentError, match="no slide has two classes"):
        knn_gap(scene(table(around(SLIDE), SLIDE, label=SLIDE % 2)))


@pytest.mark.parametrize(("by_tissue", "index", "score"), [(True, 1.0, 1.0), (False, 0.0, -1.0)])
def test_indices_tell_tissue_from_centre(by_tissue: bool, index: float, score: float) -> None:
    label, centre = np.arange(len(SLIDE)) % 2, SLIDE % 2
    made = scene(table(around(label if by_tissue else centre), SLIDE, label=label, centre=centre), ratio_k=20)
    assert robustness_index(made, "centre").value == index
    assert clustering_score(made, "centre").value == pytest.approx(score, abs=0.02)
    ratio = neighbour_ratio(made, "centre").value
    assert ratio > 1.5 if by_tissue else ratio < 0.75
    share = same_group_knn(made, "centre")
    assert share.chance == pytest.approx((SLIDES // 2 - 1) / (SLIDES - 1))
    assert share.value == 1 if not by_tissue else share.value == pytest.approx(share.chance, abs=0.15)
    probe = group_probe(made, "centre").value
    assert probe == 1 if not by_tissue else probe < 0.75


def test_half_and_half_neighbours_have_an_index_of_one_half() -> None:
    """Four clusters in a square: of a patch's class and other centre, and the reverse, at the same distance."""
    label, centre = np.arange(len(SLIDE)) % 2, SLIDE % 2
    features = around(label) + around(2 + centre, seed=1)
    k = len(SLIDE) - EACH
    index = robustness_index(scene(table(features, SLIDE, label=label, centre=centre), index_k=k), "centre")
    own, others = (SLIDES // 2 - 1) * EACH // 2, SLIDES // 2 * EACH // 2
    assert index.value == pytest.approx(others / (others + own))


# --- other implementations ---


@pytest.mark.parametrize("block_bytes", [1, 10_000, 2**26])
@pytest.mark.parametrize("other_slides", [False, True])
def test_neighbours_are_those_of_scikit_learn_whatever_the_blocks(block_bytes: int, other_slides: bool) -> None:
    one = random_table()
    features, slide = unit(one.features), np.unique(one.slide_id, return_inverse=True)[1]
    group = slide if other_slides else None
    found = nearest(
        features, features, 7, query_group=group, reference_group=group, themselves=True, block_bytes=block_bytes
    )
    exact = NearestNeighbors(n_neighbors=len(one) - 1, metric="cosine").fit(one.features)
    order = exact.kneighbors(return_distance=False)
    for row in range(len(one)):
        wanted = [other for other in order[row] if not other_slides or slide[other] != slide[row]]
        assert found.index[row].tolist() == wanted[:7]


def test_of_equally_near_neighbours_the_first_come_first() -> None:
    same = unit(np.ones((6, 3), dtype=np.float32))
    assert nearest(same, same, 3, themselves=True).index.tolist()[0] == [1, 2, 3]
    assert nearest(same, same, 3, themselves=True).index.tolist()[5] == [0, 1, 2]


def test_neighbours_are_found_once_for_all_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(*words: Any, **more: Any) -> Neighbours:
        asked.append(more.get("query_group") is not None)
        return nearest(*words, **more)

    monkeypatch.setattr("exaone_train.collapse.scene.nearest", counted)
    measure([random_table()], quick())
    assert sorted(asked) == [False, True]


def test_memory_is_bounded_by_the_block_and_not_by_pairs() -> None:
    features = unit(np.random.default_rng(0).standard_normal((4_000, 8)))
    tracemalloc.start()
    try:
        nearest(features, features, 5, themselves=True, block_bytes=200_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000 * 5 * 12 * 2 + 8 * 200_000 < 4_000 * 4_000 * 4 / 20


def test_a_patch_without_other_slides_has_no_neighbours() -> None:
    one = unit(np.eye(3, dtype=np.float32))
    group = np.zeros(3, dtype=np.int64)
    found = nearest(one, one, 2, query_group=group, reference_group=group)
    assert not found.found.any()
    assert vote(found, group, 1).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("kind", ["slide_id", "centre", "label"])
def test_silhouettes_equal_those_of_scikit_learn(kind: str) -> None:
    one = random_table()
    group = np.unique(getattr(one, kind), return_inverse=True)[1]
    group[0] = group.max() + 1  # a group of one
    expected = silhouette_samples(one.features.astype(np.float64), group, metric="cosine")
    assert silhouettes(unit(one.features), group) == pytest.approx(expected, abs=1e-5)


def test_the_same_slide_share_equals_a_count_patch_by_patch() -> None:
    one = random_table(seed=3)
    features = one.features / np.linalg.norm(one.features, axis=1, keepdims=True)
    shares = []
    for row in range(len(one)):
        nearest_first = sorted(
            (other for other in range(len(one)) if other != row),
            key=lambda other: -float(features[row] @ features[other]),
        )
        shares.append(np.mean([one.slide_id[other] == one.slide_id[row] for other in nearest_first[:10]]))
    assert same_slide_knn(scene(one)).value == pytest.approx(np.mean(shares))


def test_the_gap_equals_scikit_learns_classifiers() -> None:
    one = random_table(seed=4)
    features = unit(one.features)
    within, across = [], []
    for slide in np.unique(one.slide_id):
        own = np.flatnonzero(one.slide_id == slide)
        others = np.flatnonzero(one.slide_id != slide)
        right = 0
        for row in own:
            rest = own[own != row]
            known = KNeighborsClassifier(5).fit(features[rest], one.label[rest])  # type: ignore[index]
            right += known.predict(features[[row]])[0] == one.label[row]  # type: ignore[index]
        within.append(right / len(own))
        known = KNeighborsClassifier(5).fit(features[others], one.label[others])  # type: ignore[index]
        across.append(known.score(features[own], one.label[own]))  # type: ignore[index]
    gap = knn_gap(scene(one))
    assert gap.details["within"] == pytest.approx(np.mean(within))
    assert gap.details["across"] == pytest.approx(np.mean(across))


@pytest.mark.parametrize("seed", range(4))
def test_the_robustness_index_and_its_k_equal_cromas(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    one = random_table(seed=seed, patches=300, slides=20)
    manifest = pd.DataFrame(
        {
            "sample_id": [f"s{row}" for row in range(len(one))],
            "image_path": [f"{row}.png" for row in range(len(one))],
            "label": one.label,
            "center": one.centre,
            "group_id": one.slide_id,
        }
    )
    candidates = [1, 3, 5, 7, 9, *range(11, 202, 10)]
    with warnings.catch_warnings(), caplog.at_level(logging.CRITICAL):
        warnings.simplefilter("ignore", RuntimeWarning)  # says how many patches have telling neighbours
        theirs = RI.compute(one.features, manifest, confounder_column="center", k_candidates=candidates)
        curve = RI.compute_curve(one.features, manifest, confounder_column="center", k_values=[5, 51])
    ours = robustness_index(scene(one), "centre")
    assert ours.details["support"] == pytest.approx(theirs.support)
    assert ours.details["k"] == theirs.k
    assert ours.value == pytest.approx(theirs.value)
    for k, value in curve.items():
        assert robustness_index(scene(one, index_k=k), "centre").value == pytest.approx(value)


def test_de_jongs_ratio_equals_a_count_patch_by_patch() -> None:
    one = random_table(seed=5)
    features = unit(one.features).astype(np.float64)
    assert one.label is not None
    assert one.centre is not None
    same_class = same_centre = 0
    for row in range(len(one)):
        others = np.flatnonzero(one.slide_id != one.slide_id[row])
        near = others[np.argsort(-(features[others] @ features[row]))][:50]
        same_class += int((one.label[near] == one.label[row]).sum())
        same_centre += int((one.centre[near] == one.centre[row]).sum())
    assert neighbour_ratio(scene(one), "centre").value == pytest.approx(same_class / same_centre)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_the_adjusted_rand_index_of_drawn_slides_equals_scikit_learns_on_repeated_patches(seed: int) -> None:
    random = np.random.default_rng(seed)
    slide, cluster, other = random.integers(0, 5, 60), random.integers(0, 4, 60), random.integers(0, 2, 60)
    weights = draws(5, 3, seed)
    got = _adjusted_rand(_tables(cluster, other == 1, slide, 5), weights)
    for row, counts in enumerate(weights):
        repeated = np.repeat(np.arange(60), counts[slide].astype(int))
        assert got[row] == pytest.approx(adjusted_rand_score(other[repeated], cluster[repeated]))


# --- intervals ---


def test_an_interval_over_slides_is_that_of_the_mean_of_slides() -> None:
    """With equal slides the drawn values are means of slide means: their spread is known."""
    random = np.random.default_rng(0)
    means = random.normal(0.5, 0.1, 40)
    share = Share(above=means * 10, below=np.full(40, 10.0))
    low, high = limits(share.drawn(draws(40, 4_000, 0)))
    error = means.std() / np.sqrt(40)
    assert share.value == pytest.approx(means.mean())
    assert (high - low) == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_what_one_slide_alone_tells_has_no_interval() -> None:
    label = np.where(SLIDE == 0, np.arange(len(SLIDE)) % 2, 0)
    gap = knn_gap(scene(table(around(SLIDE), SLIDE, label=label)))
    assert gap.details["slides"] == 1
    assert np.isnan(gap.interval).all()


def test_95_of_100_intervals_hold_the_truth() -> None:
    held = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        slides = random.normal(0.0, 1.0, 30)
        low, high = limits(Share(above=slides, below=np.ones(30)).drawn(draws(30, 400, seed)))
        held += low <= 0 <= high
    assert 0.88 < held / 200 <= 0.99


def test_an_encoder_beside_itself_differs_by_nothing() -> None:
    one = random_table()
    report = measure(
        [one, random_table(name="again")],
        quick(),
    )
    again = report.encoders[1]
    assert report.paired
    for key in again.measures:
        assert report.difference(key, again) == (0, 0, 0), key


# --- folds ---


def test_strips_are_contiguous_along_the_longer_side() -> None:
    random = np.random.default_rng(0)
    slide = np.repeat([0, 1], 50)
    place = random.uniform(0, [100, 1000], (100, 2))
    fold = strips(slide, place, 5, 0)
    for one in (0, 1):
        along = place[slide == one, 1]
        order = fold[slide == one][np.argsort(along)]
        assert order.tolist() == sorted(order.tolist())
        assert set(Counter(order.tolist()).values()) == {10}


def test_slides_smaller_than_the_folds_are_left_out() -> None:
    slide = np.repeat([0, 1], [4, 6])
    assert strips(slide, None, 5, 0).tolist()[:4] == [-1] * 4
    assert set(strips(slide, None, 5, 0)[4:].tolist()) == {0, 1, 2, 3, 4}


def test_a_slide_told_by_its_neighbourhoods_is_told_less_by_strips_than_by_chance() -> None:
    """Features follow the place alone, so that what is learned of one strip says little of the next."""
    random = np.random.default_rng(0)
    place = random.uniform(0, 1000, (400, 2))
    slide = np.repeat(np.arange(4), 100)
    waves = random.normal(0, 0.02, (4, 2, 24))
    features = np.stack([np.cos(place[row] @ waves[slide[row]]) for row in range(400)]).astype(np.float32)
    near = slide_probe(scene(table(features, slide))).value
    apart = slide_probe(scene(table(features, slide, place=place))).value
    assert apart < near


def test_whole_groups_stay_together_and_every_centre_is_in_every_fold() -> None:
    group = np.repeat(np.arange(20), 3)
    stratum = group % 2
    fold = whole_groups(group, stratum, 5, 0)
    for one in range(20):
        assert len(set(fold[group == one].tolist())) == 1
    for part in range(5):
        assert set(stratum[fold == part].tolist()) == {0, 1}


# --- reports ---


def test_a_report_has_every_measure_or_the_reason_why_not() -> None:
    report = measure([random_table()], quick()).to_json()
    one = report["encoders"]["encoder"]
    assert set(one["measures"]) | set(one["absent"]) == set(MEASURES)
    assert "same_slide_knn" in one["measures"]
    for key, written in one["measures"].items():
        assert written["low"] <= written["value"] + 1e-9, key
        assert written["value"] <= written["high"] + 1e-9, key
    json.dumps(report, allow_nan=False)


def test_without_centres_and_labels_their_measures_are_absent_with_a_reason() -> None:
    report = measure([table(around(SLIDE), SLIDE)], Options(resamples=10))
    assert set(report.encoders[0].measures) == {"same_slide_knn", "slide_probe", "silhouette_slide"}
    assert report.encoders[0].absent["robustness_index_centre"] == "patches have no `label`, or all the same"
    assert "`centre`" in report.encoders[0].absent["same_centre_knn"]


def test_the_same_seed_gives_the_same_report() -> None:
    options = quick(patches=100)
    assert measure([random_table()], options).to_json() == measure([random_table()], options).to_json()


def test_a_subsample_is_the_same_for_every_encoder() -> None:
    report = measure(
        [random_table(), random_table(name="other")],
        quick(patches=60),
    )
    assert report.paired
    assert {encoder.patches for encoder in report.encoders} == {60}


def test_two_encoders_of_one_name_are_refused() -> None:
    with pytest.raises(FeatureError, match=r"have the same name: encoder, encoder; give others"):
        measure([random_table(), random_table()], Options())


def test_two_patches_are_too_few() -> None:
    with pytest.raises(FeatureError, match="at least three"):
        measure([random_table(patches=2)], Options())
