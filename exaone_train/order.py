"""Which sample is where in which batch: a pure function of the seed, the epoch and the shard list.

An epoch is a line of samples: the shards in a keyed order, each in its own, turned by a keyed number of samples, but
for the few that fill no batch. The line is cut into equal *streams*; a batch takes as many samples from each, in the
order of the streams. Within a stream each *window* of consecutive samples is shuffled. So any batch of any epoch can be
named at once, a stream reads one shard after the other, and whoever takes a part of every batch reads few streams.
Windows are numbered through all streams and epochs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from exaone_train.errors import ShardError

Numbers = NDArray[np.int64]


class Order:
    """The order of samples.

    Attributes:
        samples: Of all shards.
        batch_size: Over all ranks.
        steps_per_epoch: Whole batches that they make.
        left_out: Samples that fill no batch: fewer than one batch, and others in the next epoch.
        streams: Number of streams, which divides the batch.
    """

    def __init__(self, counts: Sequence[int], *, batch_size: int, streams: int, window: int, seed: int) -> None:
        """Prepare.

        Args:
            counts: Samples of each shard.
            batch_size: Over all ranks.
            streams: At most so many.
            window: Samples of one.
            seed: Of everything.

        Raises:
            ShardError: There are too few samples for a batch.
        """
        self._starts = np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.int64))])
        self.samples, self.batch_size = int(self._starts[-1]), batch_size
        self.steps_per_epoch, self.left_out = divmod(self.samples, batch_size)
        if not self.steps_per_epoch:
            raise ShardError(
                f"{self.samples:,} samples are fewer than one batch: lower data.batch_size ({batch_size:,})."
            )
        self.streams = max(number for number in range(1, min(streams, batch_size) + 1) if batch_size % number == 0)
        self._each = batch_size // self.streams
        self._length = self._each * self.steps_per_epoch
        # Windows of different streams end at different steps, so that reading is spread evenly.
        self._phases = np.arange(self.streams, dtype=np.int64) * window // self.streams
        self._windows = (self._length - 1 + int(self._phases[-1])) // window + 1
        self._window, self._seed = window, seed
        self._line = lru_cache(maxsize=4)(self._lay_out)

    def places(self, epoch: int, step: int) -> tuple[Numbers, Numbers]:
        """Where the samples of a batch are: number of the window, and place in it; int64 (batch_size,) each."""
        streams, samples = np.divmod(np.arange(self.batch_size), self._each)
        phases = self._phases[streams]
        numbers, places = np.divmod(samples + step * self._each + phases, self._window)
        return (epoch * self.streams + streams) * self._windows + numbers, places - np.where(numbers, 0, phases)

    def after(self, window: int) -> int:
        """Number of the window that follows in its stream, if need be in the next epoch."""
        stream, number = divmod(window, self._windows)
        last = (self._length - 1 + int(self._phases[stream % self.streams])) // self._window
        return window + 1 if number < last else (stream + self.streams) * self._windows

    def window(self, window: int, attempt: int = 0) -> tuple[Numbers, Numbers]:
        """Shard and row of the samples of a window, shuffled; int64 (n,) each.

        Args:
            window: Its number.
            attempt: Above 0: as many somewhere else in the epoch, to stand in for damaged ones.
        """
        rest, number = divmod(window, self._windows)
        epoch, stream = divmod(rest, self.streams)
        first = number * self._window - int(self._phases[stream])
        begin, end = max(0, first), min(self._length, first + self._window)
        at = self._key(epoch, stream, number, attempt) if attempt else stream * self._length + begin
        line, length = self._line(epoch), self._length * self.streams
        shuffled = _permutation(end - begin, self._key(epoch, stream, number))
        positions = (at % length + line.turn + shuffled) % length
        piece = np.searchsorted(line.places, positions, side="right") - 1
        return self._shards_and_rows(line.begins[piece] + positions - line.places[piece])

    def remainder(self, epoch: int) -> tuple[Numbers, Numbers]:
        """Shard and row of the samples that an epoch leaves out: consecutive ones, which follow those of the last."""
        return self._shards_and_rows((self._first_left_out(epoch) + np.arange(self.left_out)) % self.samples)

    def _lay_out(self, epoch: int) -> _Line:
        first, left_out = self._first_left_out(epoch), self.left_out
        bounds = np.union1d(self._starts, [first, (first + left_out) % self.samples])
        begins, lengths = bounds[:-1], np.diff(bounds)
        kept = np.flatnonzero((begins - first) % self.samples >= left_out)
        kept = kept[_permutation(len(kept), self._key(epoch))]
        places = np.cumsum(lengths[kept]) - lengths[kept]
        return _Line(begins[kept], places, self._key(epoch, 0) % (self.samples - left_out))

    def _first_left_out(self, epoch: int) -> int:
        # Two epochs after each other share none, and in the long run every sample is left out as often as any other.
        return (self._key() + epoch * self.left_out) % self.samples

    def _shards_and_rows(self, numbers: Numbers) -> tuple[Numbers, Numbers]:
        shards = np.searchsorted(self._starts, numbers, side="right") - 1
        return shards, numbers - self._starts[shards]

    def _key(self, *parts: int) -> int:
        text = " ".join(map(str, (self._seed, *parts)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, person=b"order").digest(), "little")


class _Line(NamedTuple):
    """Pieces of shards in the order of an epoch: where each begins among all samples, and where in the line."""

    begins: Numbers
    places: Numbers
    turn: int


def _permutation(count: int, key: int) -> Numbers:
    """Numbers below `count` in the order of a keyed hash: no stream of a generator that a library may change."""
    order: Numbers = np.argsort(_scramble(np.uint64(key) ^ _scramble(np.arange(count, dtype=np.uint64))), kind="stable")
    return order


def _scramble(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): every input bit reaches every output bit."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
