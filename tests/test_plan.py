"""The plan of a group: a permutation of all planned samples, cut evenly, decided by slide ids and seed alone."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exaone_prep.plan import GroupPlan, load_places, plan_group, save_plan

Slides = list[tuple[str, int]]

slide_ids = st.text("abcdefXYZ0189-_", min_size=1, max_size=12)
groups = st.dictionaries(slide_ids, st.integers(0, 70), max_size=9).map(lambda counts: list(counts.items()))
seeds = st.integers(0, 2**63 - 1)
shard_sizes = st.integers(1, 60)


def order(slides: Slides, plan: GroupPlan) -> list[tuple[str, int]]:
    """Slide id and sample number of every place."""
    return [(slides[slide][0], sample) for slide, sample in zip(plan.slide.tolist(), plan.sample.tolist(), strict=True)]


@given(groups, shard_sizes, seeds)
def test_every_planned_sample_has_exactly_one_place(slides: Slides, samples_per_shard: int, seed: int) -> None:
    plan = plan_group(slides, samples_per_shard=samples_per_shard, seed=seed)
    assert sorted(order(slides, plan)) == sorted((name, i) for name, count in slides for i in range(count))
    assert plan.slide.dtype == np.int32
    assert plan.sample.dtype == np.int32


@settings(deadline=None)
@given(groups, shard_sizes, seeds)
def test_a_saved_plan_gives_each_shard_its_places(
    tmp_path_factory: pytest.TempPathFactory, slides: Slides, samples_per_shard: int, seed: int
) -> None:
    plan = plan_group(slides, samples_per_shard=samples_per_shard, seed=seed)
    file = tmp_path_factory.mktemp("plan") / "plan.npy"
    save_plan(plan, file)
    for first, end in pairwise(plan.bounds.tolist()):
        slide, sample = load_places(file, first, end)
        np.testing.assert_array_equal(slide, plan.slide[first:end])
        np.testing.assert_array_equal(sample, plan.sample[first:end])


@given(groups, shard_sizes, seeds)
def test_shards_are_as_few_as_the_limit_allows_and_equal_to_one_sample(
    slides: Slides, samples_per_shard: int, seed: int
) -> None:
    plan = plan_group(slides, samples_per_shard=samples_per_shard, seed=seed)
    total = sum(count for _, count in slides)
    sizes = np.diff(plan.bounds).tolist()
    assert plan.shards == len(sizes) == (total + samples_per_shard - 1) // samples_per_shard
    assert plan.bounds[0] == 0
    assert plan.bounds[-1] == total
    assert all(0 < size <= samples_per_shard for size in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1


@given(groups, shard_sizes, seeds, st.randoms(use_true_random=False))
def test_the_order_in_which_slides_are_given_decides_nothing(
    slides: Slides, samples_per_shard: int, seed: int, random: Random
) -> None:
    shuffled = list(slides)
    random.shuffle(shuffled)
    one = plan_group(slides, samples_per_shard=samples_per_shard, seed=seed)
    other = plan_group(shuffled, samples_per_shard=samples_per_shard, seed=seed)
    assert order(slides, one) == order(shuffled, other)
    assert one.bounds.tolist() == other.bounds.tolist()


@given(groups, shard_sizes, shard_sizes, seeds)
def test_the_size_of_shards_moves_no_sample(slides: Slides, one: int, other: int, seed: int) -> None:
    first = plan_group(slides, samples_per_shard=one, seed=seed)
    second = plan_group(slides, samples_per_shard=other, seed=seed)
    assert order(slides, first) == order(slides, second)


@given(groups, groups, seeds)
def test_a_slide_keeps_the_relative_order_of_its_samples_whatever_the_other_slides_are(
    slides: Slides, others: Slides, seed: int
) -> None:
    for name, count in slides:
        group = [(name, count), *((f"other {other}", number) for other, number in others)]
        alone = plan_group([(name, count)], samples_per_shard=10, seed=seed)
        among = order(group, plan_group(group, samples_per_shard=10, seed=seed))
        assert [sample for slide, sample in among if slide == name] == alone.sample.tolist()


@given(seeds, seeds)
def test_another_seed_is_another_plan_and_the_same_seed_the_same(one: int, other: int) -> None:
    slides = [("a", 40), ("b", 30)]
    first = order(slides, plan_group(slides, samples_per_shard=10, seed=one))
    assert order(slides, plan_group(slides, samples_per_shard=10, seed=one)) == first
    second = order(slides, plan_group(slides, samples_per_shard=10, seed=other))
    assert (second == first) == (one == other)


def test_slides_that_differ_in_name_only_are_ordered_differently() -> None:
    plans = [plan_group([(name, 50)], samples_per_shard=10, seed=0).sample.tolist() for name in ("a", "b", "c")]
    assert plans[0] != plans[1] != plans[2] != plans[0]


def split_mix(value: int) -> int:
    """SplitMix64 of Steele, Lea and Flood in plain integers."""
    mask = 2**64 - 1
    value = (value + 0x9E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


@given(groups, seeds)
def test_the_order_is_that_of_the_documented_hash(slides: Slides, seed: int) -> None:
    def key(name: str, sample: int) -> int:
        digest = hashlib.blake2b(name.encode(), digest_size=8, key=seed.to_bytes(8, "little"), person=b"plan").digest()
        return split_mix(int.from_bytes(digest, "little") ^ split_mix(sample))

    expected = sorted((key(name, i), name, i) for name, count in slides for i in range(count))
    plan = plan_group(slides, samples_per_shard=7, seed=seed)
    assert order(slides, plan) == [(name, i) for _, name, i in expected]


def test_a_plan_stays_what_it_was_in_earlier_versions() -> None:
    """A data set is built over months; a plan that moved between versions would tear its groups apart."""
    slides = [("slide-00", 5), ("slide-01", 4), ("slide-02", 3)]
    plan = plan_group(slides, samples_per_shard=5, seed=0)
    assert (plan.slide.tolist(), plan.sample.tolist(), plan.bounds.tolist()) == (
        [0, 0, 0, 0, 0, 2, 2, 1, 2, 1, 1, 1],
        [3, 2, 0, 4, 1, 0, 1, 0, 2, 3, 1, 2],
        [0, 4, 8, 12],
    )


def test_a_group_without_samples_has_no_shards() -> None:
    for slides in ([], [("a", 0), ("b", 0)]):
        plan = plan_group(slides, samples_per_shard=10, seed=3)
        assert (plan.shards, len(plan.slide), len(plan.sample)) == (0, 0, 0)
