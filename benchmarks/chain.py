"""CPU time per patch of every step from a slide to its shards, and of a whole build, over the codec floor.

The floor is what no tool can do without: each JPEG tile under a planned patch is decoded once, each kept patch is
encoded once. CPU time counts all processes and threads; waiting for disks is not in it.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg
import tifffile
from numpy.typing import NDArray
from report import cpu_ms, report

from exaone_prep import stain
from exaone_prep.codec import encode
from exaone_prep.cut import CutJob, SlideCut
from exaone_prep.dataset import Dataset, create_dataset
from exaone_prep.errors import SlideProblemError
from exaone_prep.manifest import Manifest, parse_manifest
from exaone_prep.phantom import PhantomSettings, write_phantoms
from exaone_prep.pixels import PixelSource, open_patches
from exaone_prep.quality import measure
from exaone_prep.shards.pack import PackedSlide, PackJob
from exaone_prep.slides import LevelChoice, open_slide
from exaone_prep.survey import SlideSurvey, SurveyJob, load_pictures

CACHE = Path(__file__).resolve().parents[1] / "build" / "benchmarks"
_JPEG: tuple[int, ...] = (6, 7)
_STEP_PATCHES = 256
"""Patches that the steps without a file are measured on: more change nothing."""

Patch = NDArray[np.uint8]
Figures = dict[str, float | int | str | None]


@dataclass(frozen=True, kw_only=True)
class Surveyed:
    """A slide after its survey, with what it cost."""

    path: Path
    dataset: Dataset
    survey: SlideSurvey
    choice: LevelChoice
    fit: stain.StainFit
    positions: NDArray[np.int64]
    pictures: Path
    cpu_ms: float


def phantom_slide(side_px: int) -> Path:
    """A generated slide without artefacts, made once and kept in `build/benchmarks`."""
    folder = CACHE / f"phantom-{side_px}"
    found = sorted(folder.glob("lab-0/*.tiff"))
    if not found or not (folder / "truth.json").exists():
        settings = PhantomSettings(
            slides=1, labs=1, width_px=side_px, height_px=side_px, pen_fraction=0, blur_fraction=0
        )
        write_phantoms(folder, settings)
        found = sorted(folder.glob("lab-0/*.tiff"))
    return found[0]


def manifest_of(slide: Path) -> Manifest:
    """The defaults, for one slide."""
    document = {"name": "chain", "cohorts": [{"name": "chain", "slides": [str(slide)]}], "splits": {}}
    return parse_manifest(document, {}, where="benchmark")


def survey(slide: Path, folder: Path) -> Surveyed:
    """Survey the slide in this process."""
    dataset = create_dataset(folder / "catalog", manifest_of(slide), base=folder)
    job = SurveyJob(row=dataset.catalog.rows[0], path=slide, manifest=dataset.manifest, file=folder / "pictures.npz")
    began = time.process_time_ns()
    found = job.run(lambda _: None)
    spent_ms = (time.process_time_ns() - began) / 1e6
    if found.problem is not None:
        raise found.problem
    if found.choice is None or found.fit is None:
        raise SlideProblemError("not_a_slide", "The slide has no patch to measure on.")
    return Surveyed(
        path=slide,
        dataset=dataset,
        survey=found,
        choice=found.choice,
        fit=found.fit,
        positions=load_pictures(job.file).positions,
        pictures=job.file,
        cpu_ms=spent_ms,
    )


def needed_tiles(slide: Surveyed) -> list[bytes] | None:
    """The JPEG tiles of the chosen level that planned patches touch; None where it is not made of JPEG tiles."""
    try:
        with tifffile.TiffFile(slide.path) as file:
            level = _level_size(slide)
            pages = [page for page in file.pages if isinstance(page, tifffile.TiffPage)]
            page = next((page for page in pages if (page.imagewidth, page.imagelength) == level), None)
            if page is None or not page.is_tiled or int(page.compression) not in _JPEG:
                return None
            across = -(-page.imagewidth // page.tilewidth)
            numbers: set[int] = set()
            side = slide.choice.read_size_px
            for x, y in slide.positions.tolist():
                for row in range(y // page.tilelength, (y + side - 1) // page.tilelength + 1):
                    first, last = x // page.tilewidth, (x + side - 1) // page.tilewidth
                    numbers.update(range(row * across + first, row * across + last + 1))
            tables = page.jpegtables
            tiles = []
            for number in sorted(numbers):
                file.filehandle.seek(page.dataoffsets[number])
                data = file.filehandle.read(page.databytecounts[number])
                # Shared tables go between the start of the image and its first own segment (TIFF Technical Note 2).
                tiles.append(tables[:-2] + data[2:] if tables else data)
            return tiles
    except tifffile.TiffFileError:
        return None


def _level_size(slide: Surveyed) -> tuple[int, int]:
    reader = open_slide(slide.path, slide.dataset.manifest.readers)
    try:
        level = reader.info.levels[slide.choice.level]
        return level.width_px, level.height_px
    finally:
        reader.close()


def read_patches(slide: Surveyed, count: int | None = None) -> list[Patch]:
    """Planned patches in raster order, by a new reader as in a build."""
    reader = open_slide(slide.path, slide.dataset.manifest.readers)
    try:
        size_px, source = slide.dataset.manifest.patch.size_px, slide.survey.pixels or PixelSource()
        with open_patches(reader, slide.path, slide.choice, size_px, source) as patches:
            patches.expect(slide.positions[:count])
            return [patches.read(x, y) for x, y in slide.positions[:count].tolist()]
    finally:
        reader.close()


def normalise(patches: Sequence[Patch], slide: Surveyed, *, per_patch: bool) -> list[Patch]:
    """One after the other, as a build does it on a CPU."""
    fit: Literal["patch"] | stain.StainFit = "patch" if per_patch else slide.fit
    return [stain.normalize(patch[None], fit=fit, slide_fit=slide.fit, device="cpu").patches[0] for patch in patches]


def cut_and_pack(slide: Surveyed, folder: Path) -> tuple[SlideCut, float]:
    """Cut the slide in this process, pack one shard of it; what came out, and the CPU time of packing per patch."""
    manifest = slide.dataset.manifest
    spool = folder / "slide.spool"
    cut = CutJob(
        path=slide.path,
        manifest=manifest,
        reference=slide.dataset.reference,
        choice=slide.choice,
        reader=slide.survey.reader or "",
        pixels=slide.survey.pixels or PixelSource(),
        fit=slide.fit,
        pictures=slide.pictures,
        spool=spool,
    ).run(lambda _: None)
    packed = PackedSlide(
        slide_id=slide.survey.slide_id,
        cohort="chain",
        patient_id=slide.survey.slide_id,
        planned=slide.survey.planned,
        choice=slide.choice,
        pictures=slide.pictures,
        spool=spool,
    )
    tar, index = folder / "shard.tar", folder / "index.arrow"

    def pack() -> None:
        tar.unlink(missing_ok=True)
        job = PackJob(
            slides=(packed,),
            number=0,
            name=tar.name,
            codec=manifest.codec,
            samples_per_shard=max(1, slide.survey.planned),
            seed=manifest.seed,
            tar=tar,
            index=index,
        )
        job.run(lambda _: None)

    return cut, cpu_ms(pack, runs=5) / cut.kept


def command_ms(*words: str) -> float:
    """CPU time of a command with all the processes it starts."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (used.ru_utime + used.ru_stime) * 1000

    before = spent()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return spent() - before


def build_ms(slide: Path, out: Path, fit: str) -> float:
    """CPU time of `exaone-prep build` of the slide with one worker."""
    shutil.rmtree(out, ignore_errors=True)
    settings = ("--set", f"stain.fit={fit}", "--set", "splits={}")
    return command_ms(
        *("-m", "exaone_prep.cli", "build", "--slides", str(slide), "--out", str(out), "--workers", "1", *settings)
    )


def median_of(runs: int, work: Callable[[], float]) -> float:
    """Median of several measurements."""
    return float(np.median([work() for _ in range(runs)]))


def measured(slide: Surveyed, folder: Path, runs: int) -> tuple[Figures, Figures]:
    """Figures and ratios."""
    patches = read_patches(slide)
    some = patches[:_STEP_PATCHES]
    cut, pack_ms = cut_and_pack(slide, folder)
    codec = slide.dataset.manifest.codec
    done = normalise(some, slide, per_patch=False)
    encode_ms = cpu_ms(lambda: [encode(patch, codec) for patch in done], runs=runs) / len(some)
    tiles = needed_tiles(slide)
    decode_ms = None
    if tiles:
        decode_ms = cpu_ms(
            lambda: [simplejpeg.decode_jpeg(tile, colorspace="RGB", fastdct=False) for tile in tiles], runs=runs
        )
    out = folder / "dataset"
    # `fit: slide` comes last, so that its data set is there to be verified.
    whole = {fit: median_of(runs, partial(build_ms, slide.path, out, fit)) for fit in ("patch", "slide")}
    verifying = ("-m", "exaone_prep.cli", "verify", str(out), "--workers", "1")
    verify_ms = median_of(runs, partial(command_ms, *verifying))
    verify_deep_ms = median_of(runs, partial(command_ms, *verifying, "--deep"))
    digest = str(json.loads((out / "build.json").read_text())["digest"])
    # What a builder and one worker cost before the first slide is opened.
    start_up_ms = median_of(runs, lambda: command_ms("-c", "import exaone_prep.commands.build, zarr")) + median_of(
        runs, lambda: command_ms("-c", "import exaone_prep.worker, exaone_prep.group")
    )
    kept = cut.kept
    floor = decode_ms / kept + encode_ms if decode_ms is not None else None
    figures: Figures = {
        "slide_px": f"{slide.survey.width_px}x{slide.survey.height_px}",
        "level": slide.choice.level,
        "planned": len(patches),
        "kept": kept,
        "tiles": len(tiles) if tiles else "no JPEG tiles",
        "digest": digest[:16],
        "floor_decode_ms": decode_ms / kept if decode_ms is not None else None,
        "floor_ms": floor,
        "read_ms": cpu_ms(lambda: read_patches(slide), runs=runs, warm_up=1) / len(patches),
        "measure_ms": cpu_ms(lambda: [measure(patch) for patch in some], runs=runs) / len(some),
        "normalise_fit_slide_ms": cpu_ms(lambda: normalise(some, slide, per_patch=False), runs=runs) / len(some),
        "normalise_fit_patch_ms": cpu_ms(lambda: normalise(some, slide, per_patch=True), runs=runs) / len(some),
        "encode_ms": encode_ms,
        "pack_ms": pack_ms,
        "survey_total_ms": slide.cpu_ms,
        "start_up_total_ms": start_up_ms,
        "verify_total_ms": verify_ms,
        "verify_deep_total_ms": verify_deep_ms,
    }
    ratios: Figures = {}
    for fit, total in whole.items():
        figures[f"build_fit_{fit}_total_ms"] = total
        figures[f"chain_fit_{fit}_ms"] = total / kept
        if floor is not None:
            ratios[f"chain_over_floor_{fit}_fit"] = total / kept / floor
            ratios[f"chain_without_start_up_over_floor_{fit}_fit"] = (total - start_up_ms) / kept / floor
    ratios["survey_share_of_build"] = slide.cpu_ms / whole["slide"]
    ratios["verify_share_of_build"] = verify_ms / whole["slide"]
    ratios["verify_deep_share_of_build"] = verify_deep_ms / whole["slide"]
    return figures, ratios


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    parser.add_argument("--slide", type=Path, help="a slide of one's own, instead of a generated one")
    parser.add_argument("--side-px", type=int, default=8192, help="of the generated slide, at 0.5 µm/px")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    path = arguments.slide.resolve() if arguments.slide else phantom_slide(arguments.side_px)
    with tempfile.TemporaryDirectory() as folder:
        slide = survey(path, Path(folder))
        figures, ratios = measured(slide, Path(folder), arguments.runs)
    figures["input"] = "generated" if arguments.slide is None else "own"
    report("chain", figures, ratios, as_json=arguments.json)


if __name__ == "__main__":
    main()
