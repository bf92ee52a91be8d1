"""The trainer's stream: reading and decoding, beside plain decoding, webdataset, and lightly's transform.

Everything runs on one core, one after the other in each round, on the same images: a small data set of generated
tissue, built once and kept in `build/benchmarks`, whose shards are in the page cache. Figures are medians over the
rounds, ratios medians of each round's ratio.

Wall clock needs a quiet core: what else runs there takes more from one thread than from several. CPU times hold on any.

- plain: simplejpeg (libjpeg-turbo) decodes the same bytes out of memory into one buffer
- stream: `exaone_train.stream`, from the shards to batches
- webdataset: its reader, its shuffle buffer, its Pillow decoder (`rgb8`) and its batches, from the shards to arrays
- dino_transform: a worker's part of a step with lightly: Pillow decodes, `DINOTransform` makes the ten crops, torch
  collates them

CPU time is that of all threads of the process. The stream makes no crops: those are made on the training device.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from inputs import CACHE, repeated_phantom
from PIL import Image
from report import report

from exaone_train.config import DataConfig
from exaone_train.reader import ShardReader
from exaone_train.shardset import ShardSet, open_shards
from exaone_train.stream import Stream

SLIDES, SIDE_PX, BASE_PX = 6, 8192, 2048
# Few streams, so that most windows are whole ones, as in an epoch of any real data set.
DATA = DataConfig(batch_size=128, streams=4, window=64, decode_threads=1)
_WARM_UP_STEPS, _TRANSFORMED = 100, 64
Work = Callable[[], int]


def data_set() -> Path:
    """Four generated slides in shards of 256 samples, built once."""
    folder = CACHE / "stream-shards"
    if not (folder / "build.json").exists():
        slides = [str(repeated_phantom(SIDE_PX, number=number, base_px=BASE_PX)) for number in range(SLIDES)]
        command = [sys.executable, "-m", "exaone_prep.cli", "build", "--out", str(folder), "--set", "splits={}"]
        command += ["--set", "shards.samples_per_shard=500"]
        subprocess.run([*command, *(word for slide in slides for word in ("--slides", slide))], check=True)
    return folder


def encoded(shards: ShardSet) -> list[bytes]:
    """All images, as they are in the shards."""
    reader, images = ShardReader(shards, indexes=1), []
    for number, shard in enumerate(shards.shards):
        samples = reader.read(np.full(shard.samples, number), np.arange(shard.samples))
        images += [bytes(sample.image) for sample in samples]
    return images


def plain(images: list[bytes], size_px: int) -> Work:
    """Decode from memory into one buffer."""
    pixels = np.empty((size_px, size_px, 3), dtype=np.uint8)

    def work() -> int:
        for image in images:
            simplejpeg.decode_jpeg(image, "RGB", buffer=pixels, strict=True)
        return len(images)

    return work


def taken(batches: Iterable[object], steps: int) -> Work:
    """Take some batches."""

    def work() -> int:
        for _ in islice(batches, steps):
            pass
        return steps * DATA.batch_size

    return work


def measured(work: Work) -> tuple[float, float]:
    """Images per second, and CPU time in ms per image."""
    wall, cpu = time.perf_counter(), time.process_time()
    images = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return images / wall, 1000 * cpu / images


def webdataset_batches(shards: ShardSet) -> Iterator[object]:
    """Webdataset's reader and Pillow decoder, over and over."""
    import webdataset

    urls = [shard.tar for shard in shards.shards]
    while True:
        samples = webdataset.WebDataset(urls, shardshuffle=len(urls)).shuffle(1000).decode("rgb8")
        yield from samples.to_tuple("jpg", "__key__").batched(DATA.batch_size, partial=False)


def with_dino_transform(images: list[bytes]) -> Work:
    """What workers do for a batch with lightly."""
    from lightly.transforms.dino_transform import DINOTransform
    from torch.utils.data import default_collate

    transform = DINOTransform(n_local_views=8)

    def work() -> int:
        views = []
        for image in images:
            with Image.open(io.BytesIO(image)) as opened:
                views.append(transform(opened.convert("RGB")))
        default_collate(views)
        return len(images)

    return work


def figures_of(shards: ShardSet, *, rounds: int, images_per_round: int) -> tuple[dict[str, float], dict[str, float]]:
    """All of it, in rounds; figures and ratios."""
    images = encoded(shards)
    some = (images * (1 + images_per_round // len(images)))[:images_per_round]
    steps = images_per_round // DATA.batch_size
    theirs = webdataset_batches(shards)
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        found.setdefault("plain", []).append(measured(plain(some, shards.patch_size_px)))
        with closing(Stream(shards, DATA, seed=0)) as stream:
            # Until its memory is what it stays; as many images are under way before as after what is measured.
            taken(stream, _WARM_UP_STEPS)()
            found.setdefault("stream", []).append(measured(taken(stream, steps)))
        found.setdefault("webdataset", []).append(measured(taken(theirs, steps)))
        found.setdefault("dino_transform", []).append(measured(with_dino_transform(some[:_TRANSFORMED])))
    figures = {"images": float(len(images)), "kb_per_image": sum(map(len, images)) / len(images) / 1000}
    for name, values in found.items():
        figures[f"{name}_images_per_s"] = statistics.median(speed for speed, _ in values)
        figures[f"{name}_cpu_ms"] = statistics.median(cpu for _, cpu in values)

    def ratio(one: str, other: str, what: int) -> float:
        return statistics.median(a[what] / b[what] for a, b in zip(found[one], found[other], strict=True))

    return figures, {
        "stream_over_plain": ratio("stream", "plain", 0),
        "stream_over_webdataset": ratio("stream", "webdataset", 0),
        "cpu_plain_over_stream": ratio("plain", "stream", 1),
        "cpu_webdataset_over_stream": ratio("webdataset", "stream", 1),
        "cpu_dino_transform_over_stream": ratio("dino_transform", "stream", 1),
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=1024, help="per round, of which lightly's transform gets 64")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])  # the first one serves the devices
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shards = open_shards([str(data_set())], "train")
        figures, ratios = figures_of(shards, rounds=arguments.rounds, images_per_round=arguments.images)
    report("stream", figures, ratios, as_json=arguments.json)


if __name__ == "__main__":
    main()
