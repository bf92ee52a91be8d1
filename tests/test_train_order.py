"""The order of samples: a pure function, in which every sample has its place."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from exaone_train.errors import ShardError
from exaone_train.order import Order

Pair = tuple[int, int]


@st.composite
def orders(draw: st.DrawFn) -> Order:
    """Few shards of few samples, some of none; at least one batch."""
    counts = draw(st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any))
    return Order(
        counts,
        batch_size=draw(st.integers(1, sum(counts))),
        streams=draw(st.integers(1, 20)),
        window=draw(st.integers(1, 50)),
        seed=draw(st.integers(0, 2**63 - 1)),
    )


def pairs(found: tuple[NDArray[np.int64], NDArray[np.int64]]) -> list[Pair]:
    return list(zip(found[0].tolist(), found[1].tolist(), strict=True))


def batch_of(order: Order, epoch: int, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Shard and row of each sample of a batch, as whoever reads it finds them: by its windows."""
    windows, places = order.places(epoch, step)
    found = [np.stack(order.window(window))[:, place] for window, place in zip(windows.tolist(), places, strict=True)]
    shards, rows = np.stack(found, axis=1)
    return shards, rows


def epoch_of(order: Order, epoch: int) -> list[Pair]:
    return [pair for step in range(order.steps_per_epoch) for pair in pairs(batch_of(order, epoch, step))]


@given(order=orders(), epoch=st.integers(0, 1000))
def test_an_epoch_has_each_sample_once_but_for_the_remainder(order: Order, epoch: int) -> None:
    seen, left_out = epoch_of(order, epoch), pairs(order.remainder(epoch))
    assert len(seen) == order.steps_per_epoch * order.batch_size
    assert len(left_out) < order.batch_size
    everything = seen + left_out
    assert len(everything) == len(set(everything)) == order.samples


@given(order=orders(), epoch=st.integers(0, 1000))
def test_an_epoch_leaves_out_other_samples_than_the_last(order: Order, epoch: int) -> None:
    assert not set(pairs(order.remainder(epoch))) & set(pairs(order.remainder(epoch + 1)))


@given(order=orders())
def test_in_the_long_run_every_sample_is_left_out_as_often_as_any_other(order: Order) -> None:
    epochs = order.samples // np.gcd(order.samples, order.left_out)
    left_out = [pair for epoch in range(epochs) for pair in pairs(order.remainder(epoch))]
    times = epochs * order.left_out // order.samples
    assert sorted(left_out) == sorted([pair for pair in set(left_out) for _ in range(times)])
    assert len(set(left_out)) in (0, order.samples)


@given(order=orders(), epoch=st.integers(0, 5), data=st.data())
def test_a_batch_is_found_in_its_windows(order: Order, epoch: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, order.steps_per_epoch - 1))
    windows, places = order.places(epoch, step)
    found = [
        pairs(order.window(window))[place] for window, place in zip(windows.tolist(), places.tolist(), strict=True)
    ]
    assert found == pairs(batch_of(order, epoch, step))


@given(order=orders(), epoch=st.integers(0, 5), stream=st.integers(0, 19))
def test_windows_follow_each_other_through_a_stream_and_into_the_next_epoch(
    order: Order, epoch: int, stream: int
) -> None:
    stream %= order.streams
    each = order.batch_size // order.streams
    part = slice(stream * each, (stream + 1) * each)

    def places(epoch: int) -> list[Pair]:
        """Of the stream's samples of an epoch: the same number from each batch."""
        found = [order.places(epoch, step) for step in range(order.steps_per_epoch)]
        return [pair for windows, places in found for pair in pairs((windows[part], places[part]))]

    window = places(epoch)[0][0]
    walked: list[Pair] = []
    while len(walked) < 2 * each * order.steps_per_epoch:
        walked += [(window, place) for place in range(len(order.window(window)[0]))]
        window = order.after(window)
    assert walked == places(epoch) + places(epoch + 1)


@given(order=orders(), epoch=st.integers(0, 5), position=st.integers(0, 500), attempt=st.integers(1, 9))
def test_what_stands_in_is_as_much_somewhere_in_the_same_epoch(
    order: Order, epoch: int, position: int, attempt: int
) -> None:
    window = int(order.places(epoch, 0)[0][position % order.batch_size])
    instead = pairs(order.window(window, attempt))
    assert len(instead) == len(set(instead)) == len(order.window(window)[0])
    assert not set(instead) & set(pairs(order.remainder(epoch)))
    assert instead == pairs(order.window(window, attempt))


def test_a_window_is_nearly_always_one_run_of_a_shard() -> None:
    """So that it is read at once."""
    order = Order([1000] * 40, batch_size=256, streams=16, window=50, seed=3)
    windows = np.unique([order.places(0, step)[0] for step in range(order.steps_per_epoch)]).tolist()
    runs = 0
    for window in windows:
        shards, rows = order.window(window)
        runs += 1 + int(np.count_nonzero(np.diff(np.sort(1_000_000 * shards + rows)) != 1))
    # A shard's end, the remainder's place and the end of the line may lie in a window.
    assert len(windows) <= runs <= len(windows) + 40 + 2


def test_windows_of_different_streams_end_at_different_steps() -> None:
    order = Order([100_000], batch_size=64, streams=64, window=64, seed=0)
    begun = [int(np.count_nonzero(order.places(0, step)[1] == 0)) for step in range(1, 500)]
    assert set(begun) == {1}


def test_ranks_read_streams_of_their_own_where_they_divide_them() -> None:
    order = Order([5000], batch_size=96, streams=12, window=10, seed=0)
    for ranks in (2, 3, 4, 6, 12):
        parts = np.split(order.places(0, 7)[0], ranks)
        assert sum(len(np.unique(part)) for part in parts) == len(np.unique(np.concatenate(parts))) >= 12


@pytest.mark.parametrize(
    ("batch_size", "streams", "used"),
    [(1024, 256, 256), (96, 64, 48), (7, 64, 7), (13, 5, 1), (1, 1, 1), (100, 30, 25)],
)
def test_there_are_as_many_streams_as_divide_the_batch(batch_size: int, streams: int, used: int) -> None:
    assert Order([2000], batch_size=batch_size, streams=streams, window=8, seed=0).streams == used


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    def first(seed: int, epoch: int) -> list[Pair]:
        return pairs(batch_of(Order([50] * 8, batch_size=20, streams=4, window=10, seed=seed), epoch, 0))

    found = [first(0, 0), first(1, 0), first(0, 1), first(2**63 - 1, 0)]
    assert all(not set(one) >= set(other) for one in found for other in found if one is not other)
    assert first(0, 0) == found[0]


def test_too_few_samples_for_a_batch_are_a_sentence() -> None:
    with pytest.raises(ShardError, match=r"^11 samples are fewer than one batch: lower data\.batch_size \(12\)\.$"):
        Order([5, 6], batch_size=12, streams=4, window=4, seed=0)


def scrambled(value: int) -> int:
    """SplitMix64's finaliser in Python's integers."""
    mask = 2**64 - 1
    z = (value + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def by_hand(counts: list[int], batch_size: int, streams: int, window: int, seed: int, epoch: int) -> list[list[Pair]]:
    """An epoch's batches as the module's text describes them, list by list; `streams` divides the batch."""

    def key(*parts: int) -> int:
        text = " ".join(map(str, (seed, *parts))).encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8, person=b"order").digest(), "little")

    def shuffled(things: list[Any], by: int) -> list[Any]:
        return [things[at] for at in sorted(range(len(things)), key=lambda at: scrambled(by ^ scrambled(at)))]

    samples = [(shard, row) for shard, count in enumerate(counts) for row in range(count)]
    steps, left_out = divmod(len(samples), batch_size)
    first = (key() + epoch * left_out) % len(samples)
    out = {(first + number) % len(samples) for number in range(left_out)}
    cuts = {first, (first + left_out) % len(samples)}
    pieces: list[list[Pair]] = []
    for number, sample in enumerate(samples):
        if number not in out:
            if number in cuts or number == 0 or sample[1] == 0:
                pieces.append([])
            pieces[-1].append(sample)
    line = [sample for piece in shuffled(pieces, key(epoch)) for sample in piece]
    turn = key(epoch, 0) % len(line)
    line = line[turn:] + line[:turn]
    each, length = batch_size // streams, len(line) // streams
    batches: list[list[Pair]] = [[] for _ in range(steps)]
    for stream in range(streams):
        rest, ordered, number = line[stream * length : (stream + 1) * length], [], 0
        size = window - stream * window // streams
        while rest:
            ordered += shuffled(rest[:size], key(epoch, stream, number))
            rest, size, number = rest[size:], window, number + 1
        for step in range(steps):
            batches[step] += ordered[step * each : (step + 1) * each]
    return batches


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    each=st.integers(1, 4),
    streams=st.integers(1, 6),
    window=st.integers(1, 12),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 50),
)
def test_batches_are_what_the_description_says(
    counts: list[int], each: int, streams: int, window: int, seed: int, epoch: int
) -> None:
    batch_size = each * streams
    if sum(counts) < batch_size:
        return
    order = Order(counts, batch_size=batch_size, streams=streams, window=window, seed=seed)
    expected = by_hand(counts, batch_size, order.streams, window, seed, epoch)
    assert [pairs(batch_of(order, epoch, step)) for step in range(order.steps_per_epoch)] == expected


def test_the_order_is_the_same_in_every_version() -> None:
    order = Order([7, 5, 9], batch_size=6, streams=3, window=4, seed=11)
    assert pairs(batch_of(order, 2, 1)) == [(0, 2), (0, 3), (2, 2), (1, 0), (1, 3), (0, 1)]


def distinct_slides(streams: int, window: int) -> float:
    """Distinct slides per batch of 256 over what a random draw of 256 samples has, for 100 groups of 16 slides."""
    random = np.random.default_rng(0)
    counts = [500] * 400
    # As a build does it: each group's four shards hold its slides in random order.
    slides = np.concatenate([16 * (shard // 4) + random.integers(0, 16, 500) for shard in range(400)])
    order = Order(counts, batch_size=256, streams=streams, window=window, seed=0)
    found = []
    for step in range(0, order.steps_per_epoch, 40):
        shards, rows = batch_of(order, 0, step)
        found.append(len(np.unique(slides[500 * shards + rows])))
    chance = [len(np.unique(random.choice(slides, 256, replace=False))) for _ in range(200)]
    return float(np.mean(found) / np.mean(chance))


def test_a_batch_has_nearly_as_many_slides_as_a_random_draw() -> None:
    assert distinct_slides(streams=256, window=16) == pytest.approx(1, abs=0.02)
    assert distinct_slides(streams=64, window=64) > 0.9
    # The measure tells good from bad: neighbours of few shards are of few slides.
    assert distinct_slides(streams=4, window=1024) < 0.6
