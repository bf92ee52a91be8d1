"""The way from slides to a report, step by step; what is there already is not done again."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from exaone_train.collapse.table import FeatureTable
from reproduction import document
from reproduction.datasets import SPLITS, build, index, write_manifest
from reproduction.design import ARMS, LABS, LEVERS, MACENKO, NONE, PILOT, Arm, Look, Places, Size, plain
from reproduction.features import held_out, trained, untrained
from reproduction.findings import QUESTIONS, UNTRAINED, Findings, look_at
from reproduction.pilot import detectable, write_spread
from reproduction.real import read_real_patches
from reproduction.report import Circumstances
from reproduction.slides import read_truth, write_slides
from reproduction.training import Job, train

_PACKAGES = ("exaone-prep", "numpy", "torch", "timm", "lightly", "scikit-learn", "simplejpeg")
_CROSSED: tuple[Look, ...] = (
    (NONE.name, MACENKO.shown),
    (MACENKO.name, NONE.shown),
    (UNTRAINED, NONE.shown),
    (UNTRAINED, MACENKO.shown),
)


def reproduce(size: Size, out: Path, folder: Path, *, workers: int, levers: bool) -> None:
    """All of it, and the report.

    Args:
        size: How much.
        out: Folder to work in; what is there already is not done again.
        folder: For the report.
        workers: Processes at a time.
        levers: Whether the levers are turned, too.

    Raises:
        ReproductionError: A data set cannot be built, data sets do not hold the same patches, or a run failed.
    """
    places, say, fresh = Places(out.resolve()), _clock(), not out.exists()
    begun = time.monotonic()
    places.root.mkdir(parents=True, exist_ok=True)
    write_slides(places.slides, size, workers)
    write_manifest(places, size)
    build(places, size, [arm.data for arm in ARMS], workers)
    slides = len(size.held_out_rounds) * LABS
    say(f"data sets of the same patches are built; {slides} slides are held out")
    # A pilot has none before it.
    least = {} if size == PILOT else {one: detectable(one, slides, len(size.seeds)) for one in QUESTIONS}
    for question, by_key in least.items():
        told = ", ".join(f"{key} {value:.3f}" for key, value in by_key.items())
        say(f"smallest differences told apart, of the question {question}: {told}")
    train(places, _jobs(ARMS, size.seeds), size, workers, say)
    features = _features(places, ARMS)
    findings = look_at((*(arm.look for arm in ARMS), *_CROSSED), size.seeds, features)
    say("measured")
    if fresh:
        places.took.write_text(f"{(time.monotonic() - begun) / 60:.0f}", encoding="utf-8")
    about = _circumstances(places, size, ARMS)
    maps = {arm.title: features(arm.look, size.seeds[0]) for arm in ARMS}
    real = _on_real_patches(places, size)
    document.write_report(folder, findings, real, about, detectable=least, maps=maps, places=places)
    if size == PILOT:
        write_spread(findings, size)
    if levers:
        every, seeds = (*ARMS, *LEVERS), size.seeds[: size.lever_seeds]
        build(places, size, list(dict.fromkeys(arm.data for arm in every)), workers)
        train(places, _jobs(LEVERS, seeds), size, workers, say)
        turned = look_at([arm.look for arm in LEVERS], seeds, _features(places, LEVERS))
        both = findings.first(len(seeds)).beside(turned)
        about = _circumstances(places, replace(size, seeds=seeds), every)
        document.write_levers(folder, both, (NONE, *LEVERS), about)
    say(f"report: {folder}")


def _jobs(arms: Sequence[Arm], seeds: Sequence[int]) -> list[Job]:
    """All runs; the arms of one seed stand together, so that whatever slows a machine down meets all arms."""
    return [Job(arm, seed) for seed in seeds for arm in arms]


def _features(places: Places, arms: Sequence[Arm]) -> Callable[[Look, int], FeatureTable]:
    by_name, truth, folder = {arm.name: arm for arm in arms}, read_truth(places.slides), places.root / "features"
    folder.mkdir(exist_ok=True)

    def of(look: Look, seed: int) -> FeatureTable:
        by, shown = look
        encoder = untrained(places, shown, seed) if by == UNTRAINED else trained(places, by_name[by], seed)
        return held_out(places, encoder, shown, truth, folder / f"{plain(by)}-{seed}-on-{shown}.parquet")

    return of


def _on_real_patches(places: Places, size: Size) -> Findings | None:
    patches, by_name = read_real_patches(), {arm.name: arm for arm in ARMS}
    if patches is None:
        return None

    def table_of(look: Look, seed: int) -> FeatureTable:
        by, shown = look
        return patches.table(trained(places, by_name[by], seed), shown)

    return look_at([arm.look for arm in ARMS], size.seeds, table_of)


def _circumstances(places: Places, size: Size, arms: Sequence[Arm]) -> Circumstances:
    names = dict.fromkeys(arm.data for arm in arms)
    builds = {name: json.loads((places.data(name) / "build.json").read_text(encoding="utf-8")) for name in names}
    return Circumstances(
        size=size,
        minutes=int(places.took.read_text(encoding="utf-8")) if places.took.exists() else None,
        slides=size.slides,
        patches=sum(index(places, NONE.data, split).num_rows for split in SPLITS),
        digests={name: str(build["digest"]) for name, build in builds.items()},
        machine=_machine(),
        versions={name: version(name) for name in _PACKAGES},
    )


def _machine() -> str:
    told = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", told.read_text(encoding="utf-8")) if told.is_file() else None
    return f"{os.cpu_count()} cores, {model[1] if model else platform.machine()}, Python {platform.python_version()}"


def _clock() -> Callable[[str], None]:
    begun = time.monotonic()
    return lambda words: print(f"[{(time.monotonic() - begun) / 60:5.1f} min] {words}", flush=True)
