"""The stream of batches: the same for any ranks and threads and after any resume; damage is told or passed over."""

from __future__ import annotations

import gc
import io
import logging
import random
import re
import shutil
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from exaone_train.config import DataConfig
from exaone_train.errors import ShardError
from exaone_train.memory import Memory
from exaone_train.order import Order
from exaone_train.shardset import open_shards
from exaone_train.stream import Batch, Stream, held_out
from tests.shardsets import by_tarfile, place_of, write_data_set
from tests.smallslides import build_small, manifest_of, small_slides
from tests.store import Errors, Store, by_method

BATCH = 12
STEPS = 8
"""Of an epoch of the data set below: 100 samples, of which 4 are left out."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five shards of 20 samples, in two groups of four slides."""
    return write_data_set(tmp_path_factory.mktemp("noise"))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def stream(*folders: Path | str, start_step: int = 0, rank: int = 0, world_size: int = 1, **data: Any) -> Stream:
    config = DataConfig(**{"batch_size": BATCH, "streams": 4, "window": 5, "decode_threads": 2, **data})
    shards = open_shards([str(folder) for folder in folders], "train")
    return Stream(shards, config, seed=7, rank=rank, world_size=world_size, start_step=start_step)


def batches(steps: int, *folders: Path | str, **how: Any) -> list[Batch]:
    with closing(stream(*folders, **how)) as batches:
        return list(islice(batches, steps))


def keys(found: list[Batch]) -> list[list[str]]:
    return [batch.keys for batch in found]


def pixels(batch: Batch) -> dict[str, NDArray[np.uint8]]:
    return dict(zip(batch.keys, batch.images.numpy(), strict=True))


def assert_images(found: list[Batch], expected: dict[str, NDArray[np.uint8]]) -> None:
    for batch in found:
        for key, image in pixels(batch).items():
            np.testing.assert_array_equal(image, expected[key], err_msg=key)


def test_images_are_pillows_and_come_with_their_keys_and_slides(folder: Path) -> None:
    found = batches(3 * STEPS, folder)
    assert_images(found, by_tarfile(folder))
    assert [batch.step for batch in found] == list(range(3 * STEPS))
    for batch in found:
        assert batch.images.shape == (BATCH, 32, 32, 3)
        assert batch.slide_ids == [key.rsplit("-", 2)[0] for key in batch.keys]
        assert batch.substituted == 0


def test_a_build_is_streamed(tmp_path: Path) -> None:
    small_slides(tmp_path / "slides", 2)
    shards = {"samples_per_shard": 6, "slides_per_group": 2}
    build_small(manifest_of(tmp_path / "slides", shards=shards), tmp_path / "dataset")
    expected = by_tarfile(tmp_path / "dataset")
    with closing(stream(tmp_path / "dataset", batch_size=4)) as found:
        epoch = list(islice(found, found.steps_per_epoch))
    assert_images(epoch, expected)
    assert len({key for batch in epoch for key in batch.keys}) == 4 * (len(expected) // 4) > 8


def test_each_sample_comes_once_in_an_epoch_and_the_log_says_which_do_not(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "exaone_train"):
        found = [key for batch in batches(3 * STEPS, folder) for key in batch.keys]
    everything = set(by_tarfile(folder))
    left_out = []
    for epoch in range(3):
        seen = found[epoch * STEPS * BATCH : (epoch + 1) * STEPS * BATCH]
        assert len(set(seen)) == len(seen)
        left_out.append(everything - set(seen))
        said = caplog.messages[epoch]
        assert said.startswith(f"Epoch {epoch} leaves out 4 samples, fewer than one batch: ")
        named = [(int(first), int(last)) for first, last in re.findall(r"shard-\d{6}-\d{3}\.tar (\d+) to (\d+)", said)]
        assert sum(last - first + 1 for first, last in named) == len(left_out[-1]) == 4
    assert not left_out[0] & left_out[1]
    assert not left_out[1] & left_out[2]


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("threads", [1, 3])
def test_ranks_and_threads_only_share_the_work(folder: Path, world_size: int, threads: int) -> None:
    alone = batches(2 * STEPS, folder, decode_threads=5, prefetch=1)
    parts = [
        batches(2 * STEPS, folder, rank=rank, world_size=world_size, decode_threads=threads, prefetch=4)
        for rank in range(world_size)
    ]
    together = [[key for part in parts for key in part[step].keys] for step in range(2 * STEPS)]
    assert together == keys(alone)
    images = np.concatenate([part[5].images.numpy() for part in parts])
    np.testing.assert_array_equal(images, alone[5].images.numpy())


def test_a_stream_that_begins_at_any_step_goes_on_as_if_it_had_never_ended(folder: Path) -> None:
    whole = batches(4 * STEPS, folder)
    for start_step in random.Random(0).sample(range(4 * STEPS - 2), 8):
        resumed = batches(3, folder, start_step=start_step, rank=1, world_size=2)
        for batch, same in zip(resumed, whole[start_step:], strict=False):
            assert (batch.step, batch.keys) == (same.step, same.keys[BATCH // 2 :])
            np.testing.assert_array_equal(batch.images.numpy(), same.images.numpy()[BATCH // 2 :])


def test_a_far_step_needs_no_replay(folder: Path) -> None:
    (batch,) = batches(1, folder, start_step=10**12)
    assert_images([batch], by_tarfile(folder))


def test_fewer_shards_than_streams_and_threads_are_enough(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path, [[25]])
    found = batches(4, folder, streams=12, decode_threads=9, window=64)
    assert len({key for batch in found[:2] for key in batch.keys}) == 24
    assert_images(found, by_tarfile(folder))


def test_shards_of_one_sample_are_enough(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path, [[1] * 13, [1] * 12])
    found = batches(4, folder)
    assert len({key for batch in found[:2] for key in batch.keys}) == 24
    assert_images(found, by_tarfile(folder))


def test_several_data_sets_are_mixed(folder: Path, tmp_path: Path) -> None:
    other = write_data_set(tmp_path, [[20, 20]], name="other")
    found = batches(11, folder, other)
    assert keys(found) == keys(batches(11, other, folder))
    assert_images(found, by_tarfile(folder, other))
    assert len({key for batch in found for key in batch.keys}) == 11 * BATCH
    assert sum(len({key[:5] for key in batch.keys}) == 2 for batch in found) > 5


def test_png_is_decoded_too(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path, image_format="png")
    assert_images(batches(STEPS, folder), by_tarfile(folder))


def test_images_stay_while_somebody_holds_them(folder: Path) -> None:
    with closing(stream(folder)) as found:
        held = [batch.images[3:5] for batch in islice(found, 6)]
        copies = [images.clone() for images in held]
        for _ in islice(found, 30):
            pass
    assert all(bool((images == same).all()) for images, same in zip(held, copies, strict=True))


def test_memory_is_used_again_when_nobody_holds_it() -> None:
    memory = Memory()
    first = memory.take(1000)
    place = first.ctypes.data
    part: Any = first.reshape(10, 100)[3:, 5:]
    del first
    assert memory.take(1000).ctypes.data != place
    part = part.data[2:]
    assert memory.take(1000).ctypes.data != place
    del part
    assert memory.take(900).ctypes.data == place


@pytest.mark.parametrize("window", [1, 3, 64])
def test_a_window_is_read_once(folder: Path, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = Order.window

    def seen(self: Order, window: int, attempt: int = 0) -> Any:
        read.append(window)
        return original(self, window, attempt)

    monkeypatch.setattr(Order, "window", seen)
    with closing(stream(folder, window=window)) as found:
        assert len(list(islice(found, 3 * STEPS))) == 3 * STEPS
    assert len(read) == len(set(read)) > 3 * STEPS * BATCH / (window + 1)


def test_closing_ends_the_threads(folder: Path) -> None:
    before = set(threading.enumerate())
    with closing(stream(folder)) as found:
        next(found)
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before


def test_no_shards_of_a_split_are_a_sentence(folder: Path) -> None:
    with pytest.raises(ShardError, match=f"^There are no shards of the split 'test' in {folder}.$"):
        Stream(open_shards([str(folder)], "test"), DataConfig(), seed=0)


def test_ranks_that_cannot_share_a_batch_are_a_sentence(folder: Path) -> None:
    with pytest.raises(ShardError, match=r"^A batch of 12 images cannot be shared equally by 5 ranks\.$"):
        stream(folder, world_size=5)


# Damage. Each function damages the sample of a key and returns how many samples are damaged by it.


def flip_bytes(folder: Path, key: str) -> int:
    tar, offset, size = place_of(folder, key)
    data = bytearray(tar.read_bytes())
    middle = offset + size // 2
    data[middle : middle + 40] = b"\xff\xd9" * 20  # the end of an image
    tar.write_bytes(data)
    return 1


def cut_off(folder: Path, key: str) -> int:
    tar, offset, _ = place_of(folder, key)
    after = sum(
        place_of(folder, other)[:2] >= (tar, offset)
        for other in by_tarfile(folder)
        if place_of(folder, other)[0] == tar
    )
    tar.write_bytes(tar.read_bytes()[: offset + 100])
    return after


def remove(folder: Path, key: str) -> int:
    place_of(folder, key)[0].unlink()
    return 20


def text_instead(folder: Path, key: str) -> int:
    place_of(folder, key)[0].write_text("Not a tar.\n" * 5000)
    return 20


def another_shard(folder: Path, key: str) -> int:
    tar = place_of(folder, key)[0]
    others = [path for path in sorted(tar.parent.glob("*.tar")) if path != tar]
    shutil.copy(others[0], tar)
    return 20


def another_size(folder: Path, key: str) -> int:
    """Shards of images of another size, whose index is right."""
    write_data_set(folder, size_px=40)
    manifest = folder / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("size_px: 40", "size_px: 32"))
    return 100


DAMAGE = [flip_bytes, cut_off, remove, text_instead, another_shard]


@pytest.mark.parametrize("damage", [*DAMAGE, another_size])
def test_damage_ends_the_run_with_a_sentence_that_names_the_shard_and_the_sample(copy: Path, damage: Any) -> None:
    key = batches(1, copy)[0].keys[5]
    tar = place_of(copy, key)[0]
    damage(copy, key)
    with pytest.raises(ShardError) as refusal:
        batches(STEPS, copy)
    said = str(refusal.value)
    assert said.endswith(".")
    assert "\n" not in said
    assert "shard-" in said if damage is another_size else str(tar) in said
    if damage is flip_bytes:
        assert key in said
    else:
        assert re.search(r"noise-\d-\d-\d+-0|is missing", said)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_that_is_passed_over_is_counted_and_changes_nothing_else(
    copy: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    whole = batches(2 * STEPS, copy)
    expected = by_tarfile(copy)
    key = whole[0].keys[5]
    tar = place_of(copy, key)[0]
    lost = damage(copy, key)
    found = batches(2 * STEPS, copy, on_damage="skip")
    replaced = 0
    for batch, before in zip(found, whole, strict=True):
        others = sum(now != then for now, then in zip(batch.keys, before.keys, strict=True))
        assert batch.substituted == others
        replaced += others
    assert 2 * lost - 8 <= replaced <= 2 * lost
    assert replaced > 0
    assert_images(found, expected)
    assert len([text for text in caplog.messages if str(tar) in text]) == 1


@pytest.mark.parametrize("damage", [flip_bytes, remove])
def test_what_stands_in_follows_from_the_damage_alone(copy: Path, damage: Any) -> None:
    damage(copy, batches(1, copy)[0].keys[5])
    alone = batches(STEPS, copy, on_damage="skip", decode_threads=1)
    parts = [batches(STEPS, copy, on_damage="skip", rank=rank, world_size=3, decode_threads=4) for rank in range(3)]
    assert [[key for part in parts for key in part[step].keys] for step in range(STEPS)] == keys(alone)
    assert [sum(part[step].substituted for part in parts) for step in range(STEPS)] == [
        batch.substituted for batch in alone
    ]
    assert keys(batches(2, copy, on_damage="skip", start_step=3)) == keys(alone)[3:5]


def test_a_sample_alone_in_its_window_is_stood_in_for_too(copy: Path) -> None:
    key = batches(1, copy, window=1)[0].keys[5]
    flip_bytes(copy, key)
    (batch,) = batches(1, copy, window=1, on_damage="skip")
    assert batch.keys[5] != key
    assert batch.substituted == 1


def test_where_everything_is_damaged_nothing_is_passed_over(copy: Path) -> None:
    for tar in copy.glob("shards/*/*.tar"):
        tar.unlink()
    with pytest.raises(
        ShardError, match=r"^Too much is damaged: nothing whole was found to stand in for noise-\d-\d-\d+-0\.$"
    ):
        batches(1, copy, on_damage="skip")


@pytest.mark.parametrize("on_damage", ["fail", "skip"])
def test_an_index_that_is_missing_or_another_ones_ends_the_run(copy: Path, on_damage: str) -> None:
    one, other = sorted(copy.glob("index/*/*.parquet"))
    shutil.copy(one, other)
    with pytest.raises(ShardError, match=rf"^The index {other} does not fit the shard {copy}/shards/\S*\.tar\.$"):
        batches(STEPS, copy, on_damage=on_damage)
    other.unlink()
    with pytest.raises(ShardError, match=f"^The index {other} is missing.$"):
        batches(STEPS, copy, on_damage=on_damage)
    other.write_text("no Parquet")
    with pytest.raises(ShardError, match=f"^{other} cannot be read: ArrowInvalid: .*\\.$"):
        batches(STEPS, copy, on_damage=on_damage)


# An object store.


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with Store() as store:
        yield store


def test_a_store_is_streamed_from_by_few_requests_and_its_passing_faults_are_waited_out(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exaone_train.store.WAITS_S", (0.01, 0.01, 0.01, 0.01))
    client = store.client()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            client.upload_file(str(path), store.bucket, f"noise/{path.relative_to(folder)}")
    url = store.url("noise")
    expected = batches(2 * STEPS, folder, window=20)
    with store.counting() as requests:
        found = batches(2 * STEPS, url, window=20)
    assert keys(found) == keys(expected)
    assert_images(found, by_tarfile(folder))
    ranged = [request for request in requests if request.key.endswith(".tar")]
    assert len(ranged) < 2 * STEPS * BATCH / 4
    with store.failing(Errors(times=4, matching=r"GET .*\.(tar|parquet)")):
        assert keys(batches(2 * STEPS, url, window=20)) == keys(expected)
    assert set(by_method(requests)) <= {"GET", "HEAD"}

    tar = next(key for key in store.keys("noise/shards") if key.endswith(".tar"))
    client.put_object(Bucket=store.bucket, Key=tar, Body=b"cut off")
    found = batches(2 * STEPS, url, on_damage="skip")
    assert sum(batch.substituted for batch in found) > 20
    assert_images(found, by_tarfile(folder))
    client.delete_object(Bucket=store.bucket, Key=tar)
    with pytest.raises(ShardError, match=r"^The shard s3://\S*\.tar is missing\.$"):
        batches(2 * STEPS, url)


def test_what_cannot_be_read_is_not_passed_over_as_damage(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exaone_train.store.WAITS_S", (0.01,))
    tar = place_of(copy, batches(1, copy)[0].keys[5])[0]
    tar.unlink()
    tar.mkdir()
    with pytest.raises(ShardError, match=f"^{tar} cannot be read: IsADirectoryError: .*\\.$"):
        batches(STEPS, copy, on_damage="skip")


# The held-out sample.


def test_the_held_out_sample_has_several_patches_of_many_slides_and_is_always_the_same(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path, [[600, 600], [600, 600], [600]], split="val", slides_per_group=50)
    shards = open_shards([str(folder)], "val")
    batch = held_out(shards, 1200)
    assert batch is not None
    assert len(set(batch.keys)) == len(batch.keys) == 1200
    slides, patches = np.unique(batch.slide_ids, return_counts=True)
    assert len(slides) == 150
    assert patches.min() >= 3
    again = held_out(shards, 1200)
    assert again is not None
    assert again.keys == batch.keys
    assert_images([batch], by_tarfile(folder))


def test_a_small_split_is_held_out_whole(folder: Path) -> None:
    batch = held_out(open_shards([str(folder)], "train"), 5000)
    assert batch is not None
    assert sorted(batch.keys) == sorted(by_tarfile(folder))


def test_without_samples_there_is_no_held_out_sample(folder: Path) -> None:
    assert held_out(open_shards([str(folder)], "val"), 100) is None


def test_damage_among_held_out_samples_is_told_or_passed_over(copy: Path) -> None:
    shards = open_shards([str(copy)], "train")
    whole = held_out(shards, 100)
    assert whole is not None
    flip_bytes(copy, whole.keys[-1])
    with pytest.raises(ShardError, match=whole.keys[-1]):
        held_out(shards, 100)
    batch = held_out(shards, 100, on_damage="skip")
    assert batch is not None
    assert batch.keys == [*whole.keys[:-1], whole.keys[0]]
    assert batch.substituted == 1


def test_the_benchmark_measures_the_images_of_the_shards(
    suite: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = suite("stream")
    shards = open_shards([str(folder)], "train")
    images = [np.asarray(Image.open(io.BytesIO(image))) for image in benchmark.encoded(shards)]
    expected = sorted(image.tobytes() for image in by_tarfile(folder).values())
    assert sorted(image.tobytes() for image in images) == expected
    monkeypatch.setattr(benchmark, "DATA", DataConfig(batch_size=BATCH, streams=4, window=5, decode_threads=1))
    monkeypatch.setattr(benchmark, "_TRANSFORMED", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # webdataset's and lightly's
        figures, ratios = benchmark.figures_of(shards, rounds=1, images_per_round=2 * BATCH)
        gc.collect()
    assert figures["images"] == 100
    assert figures["dino_transform_cpu_ms"] > figures["plain_cpu_ms"] > 0
    assert all(ratio > 0 for ratio in ratios.values())
