"""How far stains differ between laboratories, before and after normalisation: what a jitter of stains has to cover.

The same generated specimens in several laboratories (`sections.py`), taken apart by the stains that the jitter
changes. An amount is the mean over the tissue of one slide; its spread is that between laboratories, over the mean of
the specimen. Glass is what is not tissue. For comparison, how far patches of one real slide differ.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from colour import own_picture, specimen_of
from numpy.typing import NDArray
from report import real_slides, report
from sections import write_sections

from exaone_prep import stain
from exaone_train.colour import STAINS

Floats = NDArray[np.float64]
Rgb = NDArray[np.uint8]

NAMES = ("haematoxylin", "eosin", "rest")
WHITE = 220


def amounts(pixels: Rgb) -> Floats:
    """Optical density taken apart: (n, 3) from (n, 3)."""
    density: Floats = -np.log(np.maximum(pixels, 1) / 255)
    return density @ np.linalg.inv(np.array(STAINS))


def spread(pictures: Sequence[Sequence[Rgb]], tissues: Sequence[NDArray[np.bool_]], name: str) -> dict[str, float]:
    """Figures of the pictures of some specimens, each in all laboratories."""
    of_tissue, of_glass, levels = (np.empty((len(pictures), len(pictures[0]), 3)) for _ in range(3))
    for number, (of_labs, tissue) in enumerate(zip(pictures, tissues, strict=True)):
        for lab, picture in enumerate(of_labs):
            of_tissue[number, lab] = amounts(picture[tissue]).mean(axis=0)
            of_glass[number, lab] = np.median(amounts(picture[~tissue]), axis=0)
            levels[number, lab] = picture[tissue].mean(axis=0)
    gain = of_tissue / of_tissue.mean(axis=1, keepdims=True)
    figures = {}
    for number, of_stain in enumerate(NAMES):
        one = gain[..., number]
        figures[f"{name}_{of_stain}_gain_sd"] = float(one.std(axis=1, ddof=1).mean())
        figures[f"{name}_{of_stain}_gain_min"], figures[f"{name}_{of_stain}_gain_max"] = (
            float(one.min()),
            float(one.max()),
        )
        figures[f"{name}_{of_stain}_glass_sd"] = float(of_glass[..., number].std(axis=1, ddof=1).mean())
    for number, channel in enumerate(("red", "green", "blue")):
        figures[f"{name}_{channel}_levels_sd"] = float(levels[..., number].std(axis=1, ddof=1).mean())
    return figures


def real_figures() -> dict[str, float | str]:
    """Of each real slide, normalised: the deviation of the amount of haematoxylin between patches, over its mean."""
    slides = real_slides()
    if not slides:
        return {"real_slides": "absent"}
    figures: dict[str, float | str] = {}
    for name, patches in slides.items():
        fit = stain.fit(np.concatenate(patches))
        after = stain.normalize(np.stack(patches), fit=fit).patches
        found = [amounts(patch[patch.mean(axis=-1) < WHITE])[:, 0].mean() for patch in after]
        figures[f"real_{name}_haematoxylin_between_patches"] = float(np.std(found) / np.mean(found))
    return figures


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    parser.add_argument("--specimens", type=int, default=4)
    parser.add_argument("--labs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    scanned: list[list[Rgb]] = []
    normalized: list[list[Rgb]] = []
    tissues: list[NDArray[np.bool_]] = []
    with tempfile.TemporaryDirectory() as folder:
        for sections in write_sections(
            Path(folder),
            specimens=arguments.specimens,
            labs=arguments.labs,
            seed=arguments.seed,
            width_px=2048,
            height_px=1536,
        ):
            specimen = specimen_of(sections)
            pairs = zip(specimen.scanned, specimen.fits, strict=True)
            scanned.append(specimen.scanned)
            normalized.append([own_picture(picture, fit, "slide") for picture, fit in pairs])
            tissues.append(specimen.tissue)
    figures: dict[str, Any] = {"specimens": arguments.specimens, "labs": arguments.labs}
    figures |= spread(scanned, tissues, "scanned") | spread(normalized, tissues, "normalized") | real_figures()
    report("stain_spread", figures, {}, as_json=arguments.json)


if __name__ == "__main__":
    main()
