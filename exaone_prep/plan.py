"""The plan of a group: which planned sample goes into which shard, and in which order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class GroupPlan:
    """Planned samples of a group in packing order.

    Attributes:
        slide: int32 (N,), number of the slide within the group.
        sample: int32 (N,), number of the sample within its slide, in raster order.
        bounds: int64 (shards + 1,), shard s holds the places `bounds[s]:bounds[s + 1]`.
    """

    slide: NDArray[np.int32]
    sample: NDArray[np.int32]
    bounds: NDArray[np.int64]

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self.bounds) - 1


def save_plan(plan: GroupPlan, file: Path) -> None:
    """Leave a plan for the jobs that pack it: made once, not once per shard."""
    np.save(file, np.stack([plan.slide, plan.sample], axis=1))


def load_places(file: Path, first: int, end: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Slides and samples at some places of a plan that was saved; int32 (end − first,) each."""
    places: NDArray[np.int32] = np.load(file, mmap_mode="r")[first:end]
    return np.ascontiguousarray(places[:, 0]), np.ascontiguousarray(places[:, 1])


def plan_group(slides: Sequence[tuple[str, int]], *, samples_per_shard: int, seed: int) -> GroupPlan:
    """Mix the planned samples of a group's slides and cut them into shards of equal size (±1).

    The order is that of a keyed 64-bit hash of (slide id, sample number): it needs no generator whose stream could
    change with a library's version, and a slide's samples keep their relative order whatever the other slides are.

    Args:
        slides: Slide id and number of planned samples of each slide.
        samples_per_shard: Largest number of planned samples in a shard.
        seed: Of the manifest.
    """
    counts = np.array([count for _, count in slides], dtype=np.int64)
    total = int(counts.sum())
    slide = np.repeat(np.arange(len(slides), dtype=np.int32), counts)
    starts = np.cumsum(counts) - counts
    sample = (np.arange(total, dtype=np.int64) - np.repeat(starts, counts)).astype(np.int32)
    keys = np.array([_slide_key(slide_id, seed) for slide_id, _ in slides], dtype=np.uint64)
    order = np.lexsort((sample, slide, _scramble(np.repeat(keys, counts) ^ _scramble(sample.astype(np.uint64)))))
    shards = -(-total // samples_per_shard)
    bounds = np.array([total * number // shards for number in range(shards + 1)] if shards else [0], dtype=np.int64)
    return GroupPlan(slide=slide[order], sample=sample[order], bounds=bounds)


def _slide_key(slide_id: str, seed: int) -> int:
    key = hashlib.blake2b(slide_id.encode(), digest_size=8, key=seed.to_bytes(8, "little"), person=b"plan")
    return int.from_bytes(key.digest(), "little")


def _scramble(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): every input bit reaches every output bit."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
