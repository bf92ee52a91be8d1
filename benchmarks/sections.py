"""The same tissue stained and scanned by several laboratories: generated slides that differ in nothing else.

As in a ring trial each specimen goes round: layout and cells are the same in every laboratory; stains, thickness of
the section, scanner, noise and JPEG are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exaone_prep.phantom.cells import Cells, populate
from exaone_prep.phantom.corpus import PURE_EOSIN, PURE_HAEMATOXYLIN
from exaone_prep.phantom.layout import TISSUES, lay_out
from exaone_prep.phantom.noise import generator, textures
from exaone_prep.phantom.nuclei import library
from exaone_prep.phantom.optics import Scanner, respond, scanner_of, stains_of, true_direction
from exaone_prep.phantom.paint import Scene, paint
from exaone_prep.phantom.pyramid import Pyramid, write_pyramid
from exaone_prep.phantom.tiff import Subsampling

MPP = 0.5


@dataclass(frozen=True, kw_only=True)
class Section:
    """One specimen as one laboratory shows it.

    Attributes:
        path: The slide.
        specimen: Number of the piece of tissue.
        lab: Number of the laboratory.
        haematoxylin: Unit vector of the mean OD of pure haematoxylin after the scanner.
        eosin: The same for eosin.
        cells: Where its nuclei are.
    """

    path: Path
    specimen: int
    lab: int
    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    cells: Cells

    def nuclei(self, x_px: int, y_px: int, size_px: int) -> int:
        """How many nuclei have their centre in a square of level 0."""
        return len(self.cells.nuclei.between(y_px, y_px + size_px, x_px, x_px + size_px))


def write_sections(
    folder: Path,
    *,
    specimens: int,
    labs: int,
    seed: int = 0,
    width_px: int = 3072,
    height_px: int = 2304,
    subsampling: Subsampling = "420",
    change: Callable[[Scanner], Scanner] = lambda scanner: scanner,
) -> Iterator[list[Section]]:
    """Write the slides of one specimen after the other, as `specimen-<s>/lab-<l>.tiff` at 0.5 µm/px.

    Args:
        folder: Receives them.
        specimens: Pieces of tissue; they go round over the classes of tissue.
        labs: Laboratories.
        seed: Of everything random.
        width_px: Of every slide.
        height_px: Of every slide.
        subsampling: Of chroma.
        change: Makes another scanner of each laboratory's own.

    Yields:
        The sections of one specimen, one per laboratory.
    """
    surfaces, sprites = textures(seed, MPP), library(seed, MPP)
    for specimen in range(specimens):
        key = seed, 7, specimen
        tissue = TISSUES[specimen % len(TISSUES)]
        layout = lay_out(key, width_px=width_px, height_px=height_px, mpp=MPP, tissue=tissue, pens=0, unsharp=False)
        cells = populate(layout, sprites, key)
        found = []
        for lab in range(labs):
            rng = generator(*key, lab)
            # The spread within a laboratory that the generated corpora have as well.
            thickness, more_haematoxylin, more_eosin = (float(value) for value in rng.random(3))
            thickness = 0.9 + 0.2 * thickness
            common, scanner = stains_of(lab, seed), change(scanner_of(lab, seed))
            stains = replace(
                common,
                haematoxylin_scale=common.haematoxylin_scale * thickness * (0.93 + 0.14 * more_haematoxylin),
                eosin_scale=common.eosin_scale * thickness * (0.93 + 0.14 * more_eosin),
            )
            scene = Scene(
                layout=layout,
                cells=cells,
                textures=surfaces,
                library=sprites,
                stains=stains,
                scanner=scanner,
                offset=(317 * specimen % 1024, 613 * specimen % 1024),
            )
            pyramid = Pyramid(
                width_px=width_px,
                height_px=height_px,
                tile_px=256,
                levels=4,
                factor=2,
                subsampling=subsampling,
                quality=scanner.jpeg_quality,
                mpp=MPP,
                bigtiff=False,
            )
            path = folder / f"specimen-{specimen}" / f"lab-{lab}.tiff"
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, pyramid, scene)
            amounts = (
                [amount * stains.haematoxylin_scale for amount in PURE_HAEMATOXYLIN],
                [amount * stains.eosin_scale for amount in PURE_EOSIN],
            )
            found.append(
                Section(
                    path=path,
                    specimen=specimen,
                    lab=lab,
                    haematoxylin=true_direction(stains.haematoxylin, amounts[0], scanner),
                    eosin=true_direction(stains.eosin, amounts[1], scanner),
                    cells=cells,
                )
            )
        yield found


def true_without_offset(lab: int, seed: int, haematoxylin_scale: float, eosin_scale: float) -> list[list[float]]:
    """Mean OD of pure haematoxylin and eosin where OD is −ln(I / 255), as TIAToolbox has it, not −ln((I + 1) / 240).

    Args:
        lab: Number of the laboratory.
        seed: Of the corpus.
        haematoxylin_scale: Of the slide.
        eosin_scale: The same for eosin.
    """
    stains, scanner = stains_of(lab, seed), scanner_of(lab, seed)
    found = []
    for vector, amounts, scale in (
        (stains.haematoxylin, PURE_HAEMATOXYLIN, haematoxylin_scale),
        (stains.eosin, PURE_EOSIN, eosin_scale),
    ):
        scaled = np.array(amounts, dtype=np.float32) * np.float32(scale)
        levels = respond([scaled * np.float32(part) for part in vector], scanner)
        found.append([float(-np.log(level / 255).mean()) for level in levels])
    return found


def _write(path: Path, pyramid: Pyramid, scene: Scene) -> None:
    def strip(top: int, bottom: int) -> NDArray[np.uint8]:
        blocks = [
            paint(scene, top, left, bottom - top, min(512, pyramid.width_px - left))
            for left in range(0, pyramid.width_px, 512)
        ]
        return np.concatenate(blocks, axis=1)

    write_pyramid(path, pyramid, strip)
