"""What a corpus costs on 1 to 1,000 workers: cores, storage, requests and money from measured rates. Pure functions.

A worker is a machine, or a part of one, that builds one group at a time with some cores, as a Dask worker does. Rates
are those of `docs/performance.md`; what a site has and pays is for the reader to fill in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exaone_prep.build import ATTEMPTS
from exaone_prep.cost import Prices, cost_of
from exaone_prep.store_requests import StoreRequests, frame_requests, group_requests


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What is to be built; by default EXAONEPath 1.0's numbers, with slides of a size that its paper does not tell.

    Attributes:
        slide_bytes: Mean of a slide's file.
        patch_bytes: Mean of an image in a shard, with its JSON and the padding of the tar.
        index_row_bytes: Of the index, per sample.
        slide_spread: Standard deviation of the logarithm of a slide's patches.
    """

    slides: int = 34_795
    patches: int = 285_153_903
    slides_per_group: int = 64
    samples_per_shard: int = 10_000
    slide_bytes: float = 1.0e9
    patch_bytes: float = 21_000.0
    index_row_bytes: float = 16.7
    slide_spread: float = 0.6

    @property
    def groups(self) -> int:
        """The unit of work, of retry and of commit."""
        return -(-self.slides // self.slides_per_group)

    @property
    def shards(self) -> int:
        """About as many as there will be."""
        return -(-self.patches // self.samples_per_shard)

    def patches_of_groups(self, seed: int = 0) -> NDArray[np.float64]:
        """float64 (groups,): patches of each group, drawn by the spread of slides; they add up to all."""
        weights = np.random.default_rng(seed).lognormal(0.0, self.slide_spread, self.slides)
        groups = np.array([part.sum() for part in np.array_split(weights, self.groups)])
        drawn: NDArray[np.float64] = groups / groups.sum() * self.patches
        return drawn


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Measured on one core.

    Attributes:
        chain_ms: CPU time of a patch, normalisation included.
        normalise_ms: Of it, what a GPU can take over.
        survey_s: CPU time per slide before it is cut.
        start_s: Of a group on a worker: imports of its processes, once per group.
        parallel: Share of a core's speed that is left when all cores of a worker cut slides.
    """

    chain_ms: float
    normalise_ms: float
    survey_s: float = 0.21
    start_s: float = 3.2
    parallel: float = 0.93

    @property
    def gpu_share(self) -> float:
        """The most that a GPU can take from the cores."""
        return self.normalise_ms / self.chain_ms

    @property
    def gpu_speedup(self) -> float:
        """With a GPU that costs no time at all."""
        return 1 / (1 - self.gpu_share)

    def on_gpu(self) -> Rates:
        """With that GPU."""
        return replace(self, chain_ms=self.chain_ms - self.normalise_ms, normalise_ms=0.0)


MEASURED: Final = {
    ("20x", "slide"): Rates(chain_ms=0.64, normalise_ms=0.099),
    ("40x to 20x", "slide"): Rates(chain_ms=1.00, normalise_ms=0.105),
    ("real, 20x", "slide"): Rates(chain_ms=1.05, normalise_ms=0.141),
    ("20x", "patch"): Rates(chain_ms=1.12, normalise_ms=0.492),
    ("40x to 20x", "patch"): Rates(chain_ms=1.41, normalise_ms=0.488),
    ("real, 20x", "patch"): Rates(chain_ms=1.52, normalise_ms=0.601),
}
"""By kind of slide and `stain.fit`, from `docs/performance.md`."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """What the corpus is built on.

    Attributes:
        cores: Of each worker.
        worker_bytes_s: What one worker can read and write per second.
        store_bytes_s: What the store or file server gives all of them together.
    """

    workers: int
    cores: int = 8
    worker_bytes_s: float = 1.25e9
    store_bytes_s: float = 12.5e9


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What goes wrong.

    Attributes:
        spread: Standard deviation of the logarithm of a group's time, for equal work.
        straggling: Share of attempts that take `straggler` times as long.
        failing: Share of attempts that fail, each at a random moment of its time.
    """

    spread: float = 0.08
    straggling: float = 0.01
    straggler: float = 3.0
    failing: float = 0.01


NO_TROUBLE: Final = Trouble(spread=0.0, straggling=0.0, failing=0.0)


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a build went.

    Attributes:
        wall_s: From the first group to the last.
        busy_s: Of all workers together, failed attempts included; waiting for the shared store is not in it.
        wasted_s: Of these, failed attempts.
        lost: Groups that failed `ATTEMPTS` times.
    """

    wall_s: float
    busy_s: float
    wasted_s: float
    lost: int

    def busy_share(self, workers: int) -> float:
        """Of the time that workers are there for."""
        return self.busy_s / (self.wall_s * workers)


def group_bytes(corpus: Corpus, patches: NDArray[np.float64]) -> NDArray[np.float64]:
    """What goes over the network for each group: slides in, shards out and back to be compared, index out."""
    slides = corpus.slides / corpus.groups * corpus.slide_bytes
    moved: NDArray[np.float64] = slides + patches * (2 * corpus.patch_bytes + corpus.index_row_bytes)
    return moved


def group_seconds(corpus: Corpus, rates: Rates, site: Site, patches: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 (groups,): time of each group by itself; cores and network work at once, the slower one counts."""
    cores = patches * rates.chain_ms / 1e3 + corpus.slides / corpus.groups * rates.survey_s
    computing = cores / (site.cores * rates.parallel) + rates.start_s
    seconds: NDArray[np.float64] = np.maximum(computing, group_bytes(corpus, patches) / site.worker_bytes_s)
    return seconds


def build(corpus: Corpus, rates: Rates, site: Site, trouble: Trouble, seed: int = 0) -> Course:
    """A whole build: the groups on their workers, and no faster than the store can move the bytes of all attempts."""
    patches = corpus.patches_of_groups()
    run = course(group_seconds(corpus, rates, site, patches), site.workers, trouble, seed)
    again = run.busy_s / (run.busy_s - run.wasted_s)
    moving_s = float(group_bytes(corpus, patches).sum()) * again / site.store_bytes_s
    return replace(run, wall_s=max(run.wall_s, moving_s))


def course(seconds: Sequence[float] | NDArray[np.float64], workers: int, trouble: Trouble, seed: int = 0) -> Course:
    """Groups on workers as the driver hands them out: in order, each to the worker that is free first.

    What failed is tried again when all others have ended, as `exaone_prep.build.run` does.

    Args:
        seconds: Of each group without trouble.
        workers: How many there are.
        trouble: What goes wrong.
        seed: Of chance.
    """
    random = np.random.default_rng(seed)
    waiting = np.asarray(seconds, dtype=np.float64)
    now = busy_s = wasted_s = 0.0
    for _ in range(ATTEMPTS):
        taken = waiting * random.lognormal(0.0, trouble.spread, len(waiting))
        taken[random.random(len(waiting)) < trouble.straggling] *= trouble.straggler
        failed = random.random(len(waiting)) < trouble.failing
        taken[failed] *= random.random(int(failed.sum()))
        now += makespan(taken, workers)
        busy_s += float(taken.sum())
        wasted_s += float(taken[failed].sum())
        waiting = waiting[failed]
    return Course(wall_s=now, busy_s=busy_s, wasted_s=wasted_s, lost=len(waiting))


def makespan(seconds: NDArray[np.float64], workers: int) -> float:
    """When the last of some jobs ends that are taken in order by whoever is free."""
    free = [0.0] * workers
    heapify(free)
    for taken in seconds.tolist():
        heappush(free, heappop(free) + taken)
    return max(free)


def requests(corpus: Corpus, seconds: float = 0.0) -> StoreRequests:
    """Of a build whose slides and shards lie in a store, and whose groups take so many seconds each."""
    shards = -(-corpus.shards // corpus.groups)
    group = group_requests(
        shards=shards,
        shard_bytes=round(corpus.patches * corpus.patch_bytes / (shards * corpus.groups)),
        staged=[corpus.slide_bytes] * corpus.slides_per_group,
        seconds=seconds,
    )
    return group * corpus.groups + frame_requests(groups=corpus.groups, remote_slides=corpus.slides)


def money(corpus: Corpus, site: Site, run: Course, prices: Prices, *, months: float = 1.0) -> float:
    """What a build costs, and keeping its shards: workers are paid until the last one ends."""
    cost = cost_of(
        prices,
        requests=requests(corpus, run.busy_s / corpus.groups),
        staged_bytes=round(corpus.slides * corpus.slide_bytes),
        shard_bytes=round(corpus.patches * corpus.patch_bytes),
        cpu_hours=run.wall_s / 3600 * site.workers * site.cores,
    )
    return cost.once + months * cost.per_month
