"""What multi-crop costs an image, beside lightly's transform on the same images; and how near its pixels are to Pillow.

One core: `MultiCrop` and `DINOTransform` in turn, CPU time of the process. Both make 2 crops of 224 px and 8 of 96 px
of an image of 256 px, by the same scales; lightly's mirrors left and right alone, ours also upside down and turned.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from report import real_patches, report
from stain import generated_patches

from exaone_train import augment, chance, colour
from exaone_train.augment import MultiCrop
from exaone_train.config import CropConfig
from exaone_train.resample import column_table, resample

Rgb = NDArray[np.uint8]

PARTS: dict[str, tuple[ModuleType, str]] = {
    "table": (augment, "column_table"),
    "resample": (augment, "resample"),
    "stain": (colour, "stain"),
    "grey": (colour, "to_grey"),
    "blur": (colour, "blur"),
    "solarize": (colour, "solarize"),
    "draw": (augment, "draw"),
}
GPU_BATCH = 128


def cpu_ms(work: Callable[[], object]) -> float:
    """CPU time of this process, in ms."""
    start = time.process_time_ns()
    work()
    return (time.process_time_ns() - start) / 1e6


def crops_of(preset: str) -> MultiCrop:
    """The default crops."""
    return MultiCrop(CropConfig.model_validate({"preset": preset}), seed=0, batch_size=1 << 20)


def lightly_transform() -> Callable[[Image.Image], object]:
    """The same crops by lightly, image by image."""
    from lightly.transforms.dino_transform import DINOTransform

    crops = CropConfig()
    made: Callable[[Image.Image], object] = DINOTransform(
        global_crop_size=crops.global_size_px,
        global_crop_scale=crops.global_scale,
        local_crop_size=crops.local_size_px,
        local_crop_scale=crops.local_scale,
        n_local_views=crops.local_crops,
    )
    return made


def beside_lightly(images: Rgb, runs: int) -> tuple[dict[str, float], dict[str, float]]:
    """CPU ms per image of each preset and of lightly, by turns, and each preset's ratio."""
    pictures, batch = [Image.fromarray(image) for image in images], torch.from_numpy(images)
    transform, presets = lightly_transform(), {preset: crops_of(preset) for preset in chance.PRESETS}
    times: dict[str, list[float]] = {name: [] for name in ("lightly", *presets)}
    for step in range(runs + 1):
        times["lightly"].append(cpu_ms(lambda: [transform(picture) for picture in pictures]))
        for preset, crops in presets.items():
            times[preset].append(cpu_ms(partial(crops, batch, step=step)))
    # The first run warms up.
    found = {name: statistics.median(values[1:]) / len(images) for name, values in times.items()}
    ratios = {f"{preset}_over_lightly": found[preset] / found["lightly"] for preset in presets}
    return {f"{name}_ms": value for name, value in found.items()}, ratios


@contextmanager
def watched(spent: dict[str, float]) -> Iterator[None]:
    """Adds the CPU ms of each part, as long as it lasts."""

    def timed(name: str, work: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: Any, **named: Any) -> object:
            start = time.process_time_ns()
            made = work(*arguments, **named)
            spent[name] = spent.get(name, 0) + (time.process_time_ns() - start) / 1e6
            return made

        return run

    before = {name: getattr(module, attribute) for name, (module, attribute) in PARTS.items()}
    jitters = augment.JITTERS
    for name, (module, attribute) in PARTS.items():
        setattr(module, attribute, timed(name, before[name]))
    augment.JITTERS = tuple(timed(jitter.__name__, jitter) for jitter in jitters)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        augment.JITTERS = jitters  # type: ignore[misc]
        for name, (module, attribute) in PARTS.items():
            setattr(module, attribute, before[name])


def part_figures(images: Rgb, runs: int) -> dict[str, float]:
    """CPU ms per image of the parts of each preset; the rest is moving crops and calling PyTorch."""
    figures: dict[str, float] = {}
    for preset in chance.PRESETS:
        crops, batch, spent, whole = crops_of(preset), torch.from_numpy(images), dict[str, float](), 0.0
        with watched(spent):
            for step in range(runs):
                whole += cpu_ms(partial(crops, batch, step=step))
        spent["rest"] = whole - sum(spent.values())
        figures |= {f"{preset}_{name}_ms": value / runs / len(images) for name, value in spent.items()}
    return figures


def pillow_figures(images: Rgb) -> dict[str, float]:
    """Grey levels between crops and Pillow's, before colour changes: the largest, and the share that differs."""
    views = chance.views_of(CropConfig())
    side_px, count = images.shape[1], len(images)
    figures: dict[str, float] = {}
    plans = chance.draw(views, side_px, seed=0, step=0, first=0, count=count)
    for name, view, plan in zip(("global", "local"), views, plans, strict=True):
        which = np.arange(len(plan.boxes)) % count
        crops = resample(
            column_table(torch.from_numpy(images)),
            torch.from_numpy(which),
            torch.from_numpy(plan.boxes).float(),
            torch.zeros(len(which), 2),
            size_px=view.size_px,
            largest_px=view.largest_px(side_px),
        )
        ours = np.rint((255 * crops).permute(0, 2, 3, 1).numpy())
        pillows: list[Rgb] = []
        for number, (top, left, height, width) in zip(which, plan.boxes.astype(int).tolist(), strict=True):
            cut = Image.fromarray(images[number]).crop((left, top, left + width, top + height))
            pillows.append(np.asarray(cut.resize((view.size_px, view.size_px), Image.Resampling.BICUBIC)))
        levels = np.abs(ours - np.stack(pillows))
        figures |= {
            f"pillow_{name}_max_levels": float(levels.max()),
            f"pillow_{name}_share": float((levels > 0).mean()),
        }
    return figures


def gpu_figures(images: Rgb, runs: int) -> dict[str, float | str]:
    """Wall ms per image on a card, and the memory that a batch takes there."""
    batch = torch.from_numpy(np.resize(images, (GPU_BATCH, *images.shape[1:]))).cuda()
    figures: dict[str, float | str] = {"card": torch.cuda.get_device_name(), "batch": GPU_BATCH}
    for preset in chance.PRESETS:
        crops, times = crops_of(preset), []
        for step in range(runs + 3):
            torch.cuda.synchronize()
            start = time.perf_counter()
            crops(batch, step=step)
            torch.cuda.synchronize()
            times.append(1000 * (time.perf_counter() - start) / GPU_BATCH)
        figures[f"{preset}_ms"] = statistics.median(times[3:])
        figures[f"{preset}_peak_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return figures


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    parser.add_argument(
        "--device", choices=("cpu", "gpu"), default="cpu", help="gpu: what a card does, without lightly"
    )
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--runs", type=int, default=9)
    arguments = parser.parse_args()
    real = real_patches(arguments.images)
    images = generated_patches(arguments.images) if real is None else real
    figures: dict[str, Any] = {"input": "generated" if real is None else "real", "images": len(images)}
    ratios: dict[str, float] = {}
    if arguments.device == "gpu":
        figures |= gpu_figures(images, arguments.runs)
    else:
        torch.set_num_threads(1)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        times, ratios = beside_lightly(images, arguments.runs)
        figures |= times | part_figures(images, max(1, arguments.runs // 3)) | pillow_figures(images)
    report("augment", figures, ratios, as_json=arguments.json)


if __name__ == "__main__":
    main()
