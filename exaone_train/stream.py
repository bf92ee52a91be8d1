"""Batches of decoded samples, without end, from any step on.

Two pools of threads work ahead: one fetches windows of encoded samples, the other decodes them into the next batches.
Neither decides anything: what is in a batch follows from `exaone_train.order` alone. libjpeg-turbo decodes without
Python's lock, so threads of this process are enough, and nothing is copied between processes.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch

from exaone_train.config import DataConfig
from exaone_train.decode import Decoded, Decoder, Pixels
from exaone_train.errors import ShardError
from exaone_train.memory import Memory
from exaone_train.order import Order
from exaone_train.reader import Sample, ShardReader
from exaone_train.shardset import ShardSet

READ_THREADS: Final = 8
"""They wait for the disk or the store, not for the processor."""
_ATTEMPTS: Final = 100
"""Samples elsewhere that are tried where all of a window are damaged."""
_HELD_OUT_PER_SHARD: Final = 512
"""About eight patches of each slide of a group of the usual 64."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """A rank's part of a batch.

    Attributes:
        images: uint8 (b, size, size, 3), RGB. Its memory is used again once nobody holds it.
        keys: Of the samples, in the order of the images.
        slide_ids: Of their slides.
        step: Of the run.
        substituted: How many stand in for damaged ones.
    """

    images: torch.Tensor
    keys: list[str]
    slide_ids: list[str]
    step: int
    substituted: int


class Stream(Iterator[Batch]):
    """Iterates over the batches of a run.

    In memory are: two windows of each stream that this rank's part of a batch is taken from (2 × `data.window` × about
    17 KB each; 0.6 GB for all of 256 streams of 64, shared by the ranks), the index of the shard that each stream is in
    (24 bytes per sample of the shard), and `data.prefetch` + 2 decoded parts of a batch.
    """

    def __init__(
        self, shards: ShardSet, data: DataConfig, *, seed: int, rank: int = 0, world_size: int = 1, start_step: int = 0
    ) -> None:
        """Prepare; nothing is read before the first batch is asked for.

        Args:
            shards: To train on.
            data: Batches and threads.
            seed: Of the order.
            rank: Whose part of each batch this is: consecutive positions.
            world_size: Ranks.
            start_step: Step of the run that comes first.

        Raises:
            ShardError: There are too few samples, or the ranks cannot have equal parts.
        """
        if not shards.shards:
            raise ShardError(f"There are no shards of the split {shards.split!r} in {', '.join(shards.places)}.")
        if data.batch_size % world_size:
            raise ShardError(f"A batch of {data.batch_size:,} images cannot be shared equally by {world_size} ranks.")
        counts = [shard.samples for shard in shards.shards]
        self._order = Order(counts, batch_size=data.batch_size, streams=data.streams, window=data.window, seed=seed)
        self._shards, self._data, self._step = shards, data, start_step
        part = data.batch_size // world_size
        self._part, self._chunk = slice(rank * part, (rank + 1) * part), -(-part // (2 * data.decode_threads))
        self._reader = ShardReader(shards, indexes=self._order.streams // world_size + READ_THREADS)
        self._decoder = Decoder(data.on_damage)
        self._windows: dict[int, Future[list[Sample]]] = {}
        self._ahead: deque[tuple[int, Pixels, list[Future[Decoded]]]] = deque()
        self._memory = Memory()
        self._pools = [ThreadPoolExecutor(threads) for threads in (READ_THREADS, data.decode_threads)]

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self._order.steps_per_epoch

    def close(self) -> None:
        """End the threads; no batch can be had any more."""
        for wait in (False, True):
            for pool in self._pools:
                pool.shutdown(wait, cancel_futures=True)

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            ShardError: A store cannot be read; a sample is damaged and `data.on_damage` is `fail`, or too many are.
        """
        self._work_ahead(1)
        step, pixels, parts = self._ahead.popleft()
        self._work_ahead(self._data.prefetch)
        if self._part.start == 0 and step % self.steps_per_epoch == 0:
            self._say_what_is_left_out(step // self.steps_per_epoch)
        return _batch(pixels, [one for part in parts for one in part.result()], step)

    def _work_ahead(self, batches: int) -> None:
        while len(self._ahead) < batches:
            found = self._order.places(*divmod(self._step, self.steps_per_epoch))
            windows, places = (numbers[self._part].tolist() for numbers in found)
            used = dict.fromkeys(windows)
            # Those of this batch first, then the ones that its streams need next.
            self._windows = {
                window: self._windows.get(window) or self._pools[0].submit(self._fetch, window)
                for window in dict.fromkeys([*used, *map(self._order.after, used)])
            }
            shape = (len(places), self._shards.patch_size_px, self._shards.patch_size_px, 3)
            pixels = self._memory.take(math.prod(shape)).reshape(shape)
            parts = []
            for at in range(0, len(places), self._chunk):
                some = slice(at, at + self._chunk)
                what = self._windows, windows[some], places[some], pixels[some]
                parts.append(self._pools[1].submit(self._decode, *what))
            self._ahead.append((self._step, pixels, parts))
            self._step += 1

    def _fetch(self, window: int) -> list[Sample]:
        return self._reader.read(*self._order.window(window))

    def _decode(
        self, fetched: Mapping[int, Future[list[Sample]]], windows: Sequence[int], places: Sequence[int], pixels: Pixels
    ) -> Decoded:
        known = {window: fetched[window].result() for window in dict.fromkeys(windows)}
        samples = [known[window][place] for window, place in zip(windows, places, strict=True)]

        def others(number: int) -> Iterator[Sample]:
            """The rest of the window, then samples elsewhere."""
            window, place = windows[number], places[number]
            yield from known[window][place + 1 :] + known[window][:place]
            for attempt in range(1, _ATTEMPTS + 1):
                shards, rows = self._order.window(window, attempt)
                yield from self._reader.read(shards[place : place + 1], rows[place : place + 1])

        return self._decoder.decode(samples, pixels, others)

    def _say_what_is_left_out(self, epoch: int) -> None:
        shards, rows = self._order.remainder(epoch)
        runs = [(self._shards.shards[shard].tar, rows[shards == shard]) for shard in np.unique(shards)]
        named = ", ".join(f"{tar} {some[0]:,} to {some[-1]:,}" for tar, some in runs) or "none"
        log.info("Epoch %d leaves out %d samples, fewer than one batch: %s.", epoch, len(rows), named)


def held_out(shards: ShardSet, count: int, *, on_damage: Literal["fail", "skip"] = "fail") -> Batch | None:
    """A fixed sample of a split: the first samples of shards of different groups, about eight of each slide in them.

    Shards are mixed, so that neighbours in them are a random sample of a group's slides.

    Args:
        shards: Of the split.
        count: Images, at most.
        on_damage: As in the configuration of data.

    Returns:
        As step 0; None if the split has no sample.

    Raises:
        ShardError: A store cannot be read; a sample is damaged and `on_damage` is `fail`, or all are.
    """
    each = max(_HELD_OUT_PER_SHARD, -(-count // max(1, len(shards.shards))))
    # The first shards of all groups, then the second ones.
    listed = sorted(range(len(shards.shards)), key=lambda shard: shards.shards[shard].row_group)
    places = [(shard, row) for shard in listed for row in range(min(each, shards.shards[shard].samples))][:count]
    if not places:
        return None
    shard, row = np.array(places).T
    samples = ShardReader(shards, indexes=1).read(shard, row)
    pixels = np.empty((len(places), shards.patch_size_px, shards.patch_size_px, 3), dtype=np.uint8)
    return _batch(pixels, Decoder(on_damage).decode(samples, pixels, lambda at: samples[at + 1 :] + samples[:at]), 0)


def _batch(pixels: Pixels, decoded: Decoded, step: int) -> Batch:
    keys, slide_ids, stand_in = map(list, zip(*decoded, strict=True))
    return Batch(torch.from_numpy(pixels), keys, slide_ids, step, sum(stand_in))
