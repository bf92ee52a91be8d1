"""A whole corpus of generated slides: laboratories, patients, scanners, artefacts, and the truth about them."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from exaone_prep.errors import ManifestError
from exaone_prep.phantom.cells import populate
from exaone_prep.phantom.layout import COMPARTMENTS, TISSUES, cell_px, lay_out
from exaone_prep.phantom.noise import generator, textures
from exaone_prep.phantom.nuclei import library
from exaone_prep.phantom.optics import Stains, scanner_of, stains_of, true_direction
from exaone_prep.phantom.paint import INKS, Scene, paint
from exaone_prep.phantom.pyramid import Pyramid, write_pyramid
from exaone_prep.phantom.tiff import Subsampling

_BLOCK_PX = 512
PURE_HAEMATOXYLIN = (0.9, 1.1, 1.3, 1.5, 1.7)
PURE_EOSIN = (0.4, 0.5, 0.6, 0.7, 0.8)
"""Amounts in typical pixels of one stain alone; the truth is the direction of what a scanner makes of them."""


@dataclass(frozen=True, kw_only=True)
class PhantomSettings:
    """What to generate. Equal settings give equal bytes.

    Attributes:
        slides: Number of slides; they go round over the laboratories, and in each over the classes of tissue.
        labs: Number of laboratories, each with its own stains and scanner.
        seed: Of everything random.
        width_px: Of level 0.
        height_px: Of level 0.
        mpp: µm per pixel of level 0; 0.5 is 20×, 0.25 is 40×.
        tile_px: Side of the compressed tiles, a multiple of 16 from 128 to 1024.
        subsampling: Of chroma.
        levels: Pyramid levels, level 0 included.
        level_factor: 2 or 4.
        slides_per_patient: Slides that share a patient.
        pen_fraction: Share of the slides with strokes of a felt pen.
        blur_fraction: Share of the slides that are partly out of focus.
        missing_mpp_fraction: Share of the slides without resolution tags.
        truncated_fraction: Share of the slides that are cut off, as after a broken copy.
        bigtiff: Offsets of 64 bits.
    """

    slides: int = 6
    labs: int = 3
    seed: int = 0
    width_px: int = 6144
    height_px: int = 4608
    mpp: float = 0.5
    tile_px: int = 256
    subsampling: Subsampling = "420"
    levels: int = 4
    level_factor: int = 2
    slides_per_patient: int = 2
    pen_fraction: float = 0.2
    blur_fraction: float = 0.2
    missing_mpp_fraction: float = 0.0
    truncated_fraction: float = 0.0
    bigtiff: bool = False

    def __post_init__(self) -> None:
        fractions = (self.pen_fraction, self.blur_fraction, self.missing_mpp_fraction, self.truncated_fraction)
        rules = (
            (self.slides >= 1 and self.labs >= 1, "needs at least one slide and one laboratory"),
            (self.seed >= 0, "needs a seed that is not negative"),
            (min(self.width_px, self.height_px) >= 256, "needs slides of at least 256 × 256 pixels"),
            (0.1 <= self.mpp <= 2, "needs between 0.1 and 2 µm per pixel"),
            (self.tile_px % 16 == 0 and 128 <= self.tile_px <= 1024, "needs tiles of a multiple of 16 px, 128 to 1024"),
            (self.subsampling in ("420", "422", "444"), "knows the chroma subsamplings 420, 422 and 444"),
            (self.levels >= 1 and self.level_factor in (2, 4), "needs at least one level, and a factor of 2 or 4"),
            (self.slides_per_patient >= 1, "needs at least one slide per patient"),
            (all(0 <= fraction <= 1 for fraction in fractions), "takes shares of slides between 0 and 1"),
        )
        for kept, sentence in rules:
            if not kept:
                raise ManifestError(f"The slide generator {sentence}.")


@dataclass(frozen=True, kw_only=True)
class PhantomSlide:
    """One generated slide and the truth about it.

    Attributes:
        slide: Path of the file, relative to the corpus, with forward slashes.
        patient_id: Whose slide it is.
        lab: Which laboratory stained it.
        scanner: Which scanner recorded it.
        tissue: Class of tissue.
        mpp: True µm per pixel of level 0, whether or not the file says so.
        pen: Whether there are strokes of a pen.
        blurred: Whether a part is out of focus.
        missing_mpp: Whether the file has no resolution tags.
        truncated: Whether the file is cut off.
        haematoxylin: Unit vector of the mean OD of pixels of pure haematoxylin after the scanner (red, green, blue).
        eosin: The same for eosin.
        haematoxylin_scale: Concentration of haematoxylin against the common standard.
        eosin_scale: The same for eosin.
        shares: Share of the slide's area per compartment; `tissue` is all of them together.
    """

    slide: str
    patient_id: str
    lab: str
    scanner: str
    tissue: str
    mpp: float
    pen: bool
    blurred: bool
    missing_mpp: bool
    truncated: bool
    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    haematoxylin_scale: float
    eosin_scale: float
    shares: dict[str, float]


def write_phantoms(
    out: Path,
    settings: PhantomSettings,
    *,
    workers: int = 1,
    on_slide: Callable[[PhantomSlide], None] | None = None,
) -> list[PhantomSlide]:
    """Generate slides with known truth, and a manifest that is ready to build them.

    Writes `lab-<k>/<slide>.tiff`, `data_manifest.yaml` (one cohort per laboratory), `slides.csv`, `truth.json`, which
    comes last, and `truth/<slide>.png`: what lies where, a pixel for each `truth.json`'s `cell_px` × `cell_px` pixels
    of level 0, 0 for glass and 1 for the first of its `compartments`.

    Args:
        out: Folder to write to; it is made, and files of the same names in it are replaced.
        settings: What to generate.
        workers: Processes that paint; the files are the same for any number.
        on_slide: Told about each slide once it is written, in order.

    Returns:
        The slides, in order.

    Raises:
        ManifestError: Where the folder cannot be written.
    """
    try:
        (out / "truth").mkdir(parents=True, exist_ok=True)
        found = []
        with _painters(workers) as in_order:
            for slide in in_order(partial(_write_slide, out, settings), range(settings.slides)):
                found.append(slide)
                if on_slide is not None:
                    on_slide(slide)
        _write_tables(out, settings, found)
    except OSError as error:
        raise ManifestError(f"The generated slides cannot be written to {out}: {error.strerror or error}.") from error
    return found


def _marked(settings: PhantomSettings, number: int, purpose: int, fraction: float) -> bool:
    """Whether a slide is one of the seeded share with an artefact."""
    count = int(fraction * settings.slides + 0.5)
    return number in generator(settings.seed, 5, purpose).permutation(settings.slides)[:count].tolist()


@contextmanager
def _painters(workers: int) -> Iterator[Callable[..., Iterator[PhantomSlide]]]:
    """A `map` over as many processes."""
    if workers == 1:
        yield map
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool.map


def _write_slide(out: Path, settings: PhantomSettings, number: int) -> PhantomSlide:
    surfaces, sprites = textures(settings.seed, settings.mpp), library(settings.seed, settings.mpp)
    lab, within = number % settings.labs, number // settings.labs
    tissue = TISSUES[(within + lab) % len(TISSUES)]
    patient = f"lab{lab}-p{within // settings.slides_per_patient:04d}"
    relative = f"lab-{lab}/{patient}-s{within % settings.slides_per_patient:02d}.tiff"
    pen = _marked(settings, number, 0, settings.pen_fraction)
    blurred = _marked(settings, number, 1, settings.blur_fraction)
    missing_mpp = _marked(settings, number, 2, settings.missing_mpp_fraction)
    truncated = _marked(settings, number, 3, settings.truncated_fraction)

    key = settings.seed, 6, number
    rng = generator(*key)
    scanner, common = scanner_of(lab, settings.seed), stains_of(lab, settings.seed)
    thickness = 0.9 + 0.2 * float(rng.random())
    stains = Stains(
        haematoxylin=common.haematoxylin,
        eosin=common.eosin,
        haematoxylin_scale=common.haematoxylin_scale * thickness * (0.93 + 0.14 * float(rng.random())),
        eosin_scale=common.eosin_scale * thickness * (0.93 + 0.14 * float(rng.random())),
    )
    layout = lay_out(
        key,
        width_px=settings.width_px,
        height_px=settings.height_px,
        mpp=settings.mpp,
        tissue=tissue,
        pens=1 + number % len(INKS) if pen else 0,
        unsharp=blurred,
    )
    scene = Scene(
        layout=layout,
        cells=populate(layout, sprites, key),
        textures=surfaces,
        library=sprites,
        stains=stains,
        scanner=scanner,
        offset=(int(rng.integers(0, 1024)), int(rng.integers(0, 1024))),
    )
    path = out / relative
    path.parent.mkdir(exist_ok=True)
    pyramid = Pyramid(
        width_px=settings.width_px,
        height_px=settings.height_px,
        tile_px=settings.tile_px,
        levels=settings.levels,
        factor=settings.level_factor,
        subsampling=settings.subsampling,
        quality=scanner.jpeg_quality,
        mpp=None if missing_mpp else settings.mpp,
        bigtiff=settings.bigtiff,
    )
    write_pyramid(path, pyramid, lambda top, bottom: _strip(scene, top, bottom))
    Image.fromarray(layout.compartment).save(out / "truth" / f"{path.stem}.png")
    if truncated:
        os.truncate(path, path.stat().st_size * 3 // 5)
    return PhantomSlide(
        slide=relative,
        patient_id=patient,
        lab=f"lab-{lab}",
        scanner=scanner.name,
        tissue=tissue,
        mpp=settings.mpp,
        pen=pen,
        blurred=blurred,
        missing_mpp=missing_mpp,
        truncated=truncated,
        haematoxylin=true_direction(
            stains.haematoxylin, [c * stains.haematoxylin_scale for c in PURE_HAEMATOXYLIN], scanner
        ),
        eosin=true_direction(stains.eosin, [c * stains.eosin_scale for c in PURE_EOSIN], scanner),
        haematoxylin_scale=stains.haematoxylin_scale,
        eosin_scale=stains.eosin_scale,
        shares=layout.shares,
    )


def _strip(scene: Scene, top: int, bottom: int) -> NDArray[np.uint8]:
    """Pixels of whole rows, painted in blocks that fit a processor's cache."""
    width = scene.layout.width_px
    rows = np.empty((bottom - top, width, 3), np.uint8)
    for left in range(0, width, _BLOCK_PX):
        right = min(left + _BLOCK_PX, width)
        rows[:, left:right] = paint(scene, top, left, bottom - top, right - left)
    return rows


def _write_tables(out: Path, settings: PhantomSettings, slides: list[PhantomSlide]) -> None:
    labs = sorted({slide.lab for slide in slides}, key=lambda lab: (len(lab), lab))
    manifest = {
        "name": "phantom",
        "cohorts": [{"name": lab, "slides": [f"{lab}/*.tiff"], "patient_regex": r"lab\d+-p\d+"} for lab in labs],
        "shards": {"samples_per_shard": 500},
        "seed": settings.seed,
    }
    text = yaml.safe_dump(manifest, sort_keys=False)
    (out / "data_manifest.yaml").write_text(text, encoding="utf-8")
    with (out / "slides.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["slide", "patient_id", "lab", "scanner", "tissue"])
        table.writerows([slide.slide, slide.patient_id, slide.lab, slide.scanner, slide.tissue] for slide in slides)
    truth = {
        "settings": asdict(settings),
        "cell_px": cell_px(settings.mpp),
        "compartments": COMPARTMENTS,
        "slides": [_rounded(asdict(slide)) for slide in slides],
    }
    (out / "truth.json").write_text(json.dumps(truth, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _rounded(value: object) -> object:
    """Numbers to six decimals, so that the last bits of a logarithm never show."""
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(part) for part in value]
    return round(value, 6) if isinstance(value, float) and math.isfinite(value) else value
