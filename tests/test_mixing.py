"""Many slides in every shard: as by chance, measured on plans of several seeds and on a built data set."""

from __future__ import annotations

from itertools import pairwise, permutations
from pathlib import Path
from statistics import fmean, pvariance

import numpy as np
import pyarrow.parquet as pq
import pytest

from exaone_prep.dataset import Dataset
from exaone_prep.ledger import read_ledger
from exaone_prep.plan import plan_group
from tests.mixing import Collection, assert_mixed, histogram_p_values, neighbour_moments, neighbour_sigmas
from tests.smallslides import build_small, manifest_of, small_slides


def uneven_slides(number: int, *, mean: int) -> list[tuple[str, int]]:
    """Biopsies and resections: from next to nothing to many times the median."""
    sizes = np.random.default_rng(number).lognormal(0, 1, number)
    return [(f"slide-{i:03d}", 1 + int(size * mean)) for i, size in enumerate(sizes)]


def planned(slides: list[tuple[str, int]], *, samples_per_shard: int, seed: int) -> Collection:
    plan = plan_group(slides, samples_per_shard=samples_per_shard, seed=seed)
    return np.split(plan.slide.astype(np.int64), plan.bounds[1:-1])


def test_plans_mix_all_slides_of_a_group_as_by_chance() -> None:
    slides = uneven_slides(64, mean=150)
    assert_mixed([planned(slides, samples_per_shard=400, seed=seed) for seed in range(8)])


@pytest.mark.soak
def test_plans_of_the_real_size_mix_all_slides_as_by_chance() -> None:
    """64 slides of 8,195 patches on average, 10,000 samples per shard; 100 seeds, over 5,000 shards."""
    slides = uneven_slides(64, mean=5000)
    assert_mixed([planned(slides, samples_per_shard=10_000, seed=seed) for seed in range(100)], least_shards=5000)


def one_slide_per_shard(seed: int) -> Collection:
    return [np.full(300, slide, dtype=np.int64) for slide in np.random.default_rng(seed).permutation(30)]


def dealt_out_in_turn(seed: int) -> Collection:
    return [np.tile(np.random.default_rng(seed).permutation(20), 10) for _ in range(30)]


def mixed_within_halves(seed: int) -> Collection:
    first = planned([(f"a{i}", 200) for i in range(10)], samples_per_shard=200, seed=seed)
    second = planned([(f"b{i}", 200) for i in range(10)], samples_per_shard=200, seed=seed)
    return [*first, *(shard + 10 for shard in second)]


def one_shard_in_ten_unmixed(seed: int) -> Collection:
    shards = list(planned([(f"s{i}", 200) for i in range(20)], samples_per_shard=200, seed=seed))
    return [np.full(200, i, dtype=np.int64) if i % 10 == 0 else shard for i, shard in enumerate(shards)]


@pytest.mark.parametrize(
    "unmixed", [one_slide_per_shard, dealt_out_in_turn, mixed_within_halves, one_shard_in_ten_unmixed]
)
def test_what_is_not_mixed_fails(unmixed: object) -> None:
    assert callable(unmixed)
    collections = [unmixed(seed) for seed in range(10)]
    with pytest.raises(AssertionError, match="KS p"):
        assert_mixed(collections)


def test_runs_of_one_slide_inside_well_filled_shards_fail() -> None:
    """Histograms see nothing of the order within a shard."""
    slides = [(f"s{i}", 200) for i in range(20)]
    sorted_shards = [[np.sort(s) for s in planned(slides, samples_per_shard=200, seed=seed)] for seed in range(10)]
    with pytest.raises(AssertionError, match="neighbours"):
        assert_mixed(sorted_shards)


@pytest.mark.parametrize("counts", [[4], [2, 2], [1, 1, 1, 1], [3, 2, 2], [4, 1, 2]])
def test_the_moments_of_neighbours_are_those_of_all_permutations(counts: list[int]) -> None:
    things = [slide for slide, count in enumerate(counts) for _ in range(count)]
    equal = [sum(a == b for a, b in pairwise(order)) for order in permutations(things)]
    mean, variance = neighbour_moments(counts)
    assert float(mean) == pytest.approx(fmean(equal))
    assert float(variance) == pytest.approx(pvariance(equal))


def test_a_random_order_gives_uniform_p_values_and_small_sigmas() -> None:
    """The measure itself, without any plan: NumPy's shuffles."""
    random = np.random.default_rng(1)
    things = np.repeat(np.arange(30), random.integers(3, 300, 30))
    shuffled = [np.array_split(random.permutation(things), 20) for _ in range(15)]
    assert_mixed(shuffled)
    assert np.mean([p for shards in shuffled for p in histogram_p_values(shards)]) == pytest.approx(0.5, abs=0.07)
    assert abs(neighbour_sigmas(shuffled)) < 3


def built(tmp_path: Path, name: str, *, samples_per_shard: int, slides_per_group: int) -> Dataset:
    shards = {"samples_per_shard": samples_per_shard, "slides_per_group": slides_per_group}
    settings = {"patch": {"size_px": 32, "stride_px": 32}, "quality": {"min_sharpness": 0}, "shards": shards}
    return build_small(manifest_of(tmp_path / "slides", **settings), tmp_path / name, workers=2)


def shards_of(dataset: Dataset) -> Collection:
    """What lies in the shards of a data set, as the index says it."""
    numbers = {row.slide_id: number for number, row in enumerate(dataset.catalog.rows)}
    shards: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    for record in read_ledger(dataset.storage):
        assert dataset.storage.local is not None
        file = pq.ParquetFile(dataset.storage.local / f"index/{record.split}/group-{record.group:06d}.parquet")
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, columns=["slide_id"]).column("slide_id").to_pylist()
            shards.append(np.array([numbers[slide_id] for slide_id in ids], dtype=np.int64))
    return shards


def test_a_built_data_set_is_mixed_and_one_with_a_slide_per_shard_is_not(tmp_path: Path) -> None:
    small_slides(tmp_path / "slides", 4)
    mixed = built(tmp_path, "mixed", samples_per_shard=30, slides_per_group=4)
    assert_mixed([shards_of(mixed)], least_shards=80)
    unmixed = built(tmp_path, "unmixed", samples_per_shard=30, slides_per_group=1)
    with pytest.raises(AssertionError, match="KS p"):
        assert_mixed([shards_of(unmixed)], least_shards=80)
