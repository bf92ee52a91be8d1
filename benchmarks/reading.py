"""CPU time of reading patches: through OpenSlide, straight from the tiles, and from a slide of twice the resolution.

The floor is decoding each tile under a planned patch once. Times are of this process, in ms per patch; ratios are of
one run.
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
from inputs import LARGE_PX, repeated_phantom
from numpy.typing import NDArray
from report import cpu_ms, report

from exaone_prep.grid import patch_grid
from exaone_prep.patches import PatchReader
from exaone_prep.pixels import PixelSource, choose_pixels, open_tiles
from exaone_prep.resample import reduce_area
from exaone_prep.slides import LevelChoice, SlideReader, choose_level, open_slide
from exaone_prep.slides.jpeg_tile import complete
from exaone_prep.slides.tile_index import index_tiles
from exaone_prep.slides.tile_reader import TileReader

SIZE_PX = 256
READER = PixelSource()
Figures = dict[str, float | int | str | None]


def choice_of(reader: SlideReader, reduction: int) -> LevelChoice:
    """Level 0, as if its pixels were so much finer than those of the patches."""
    return choose_level(reader.info.levels[:1], 0.5 / reduction, target_mpp=0.5, tolerance=0.05, size_px=SIZE_PX)


def grid_of(reader: SlideReader, choice: LevelChoice, most_rows: int | None = None) -> NDArray[np.int64]:
    """Every patch of the level, or of its middle rows."""
    level = reader.info.levels[0]
    positions = patch_grid(
        level_width_px=level.width_px,
        level_height_px=level.height_px,
        bounds_px=(0, 0, level.width_px, level.height_px),
        read_size_px=choice.read_size_px,
        stride_px=choice.read_size_px,
    )
    if most_rows is None:
        return positions
    rows = np.unique(positions[:, 1])
    first = max(0, (len(rows) - most_rows) // 2)
    return positions[np.isin(positions[:, 1], rows[first : first + most_rows])]


def pass_over(slide: Path, reduction: int, source: PixelSource, most_rows: int | None) -> Callable[[], int]:
    """One pass over the patches with new readers, as a build does it; gives the number of patches."""

    def work() -> int:
        reader = open_slide(slide, ["openslide"])
        choice = choice_of(reader, reduction)
        positions = grid_of(reader, choice, most_rows)
        tiles = open_tiles(reader, slide, choice, source)
        try:
            patches = PatchReader(reader, choice, SIZE_PX, tiles)
            patches.expect(positions)
            for x, y in positions.tolist():
                patches.read(x, y)
        finally:
            reader.close()
            if tiles is not None:
                tiles.close()
        return len(positions)

    return work


def decode_tiles(slide: Path, reduction: int, scale: int, most_rows: int | None) -> Callable[[], int]:
    """Decode each tile under a patch once, from memory into one buffer: the floor. Gives the number of tiles."""
    reader = open_slide(slide, ["openslide"])
    choice = choice_of(reader, reduction)
    index = index_tiles(slide, reader.info, 0)
    if index is None:
        raise SystemExit(f"{slide.name} has no tiles that can be decoded directly")
    width, height, side = index.tile_width_px, index.tile_height_px, choice.read_size_px
    needed: set[int] = set()
    for x, y in grid_of(reader, choice, most_rows).tolist():
        for row in range(y // height, (y + side - 1) // height + 1):
            first, last = x // width, (x + side - 1) // width
            needed.update(range(row * index.across + first, row * index.across + last + 1))
    reader.close()
    with slide.open("rb") as stream:
        tiles = []
        for number in sorted(needed):
            stream.seek(int(index.offsets[number]))
            tiles.append(complete(stream.read(int(index.sizes[number])), index.head, width, height))
    smaller = {"min_width": width // scale, "min_height": height // scale, "min_factor": scale} if scale > 1 else {}

    def work() -> int:
        for tile in tiles:
            simplejpeg.decode_jpeg(tile, colorspace="RGB", fastdct=False, fastupsample=False, **smaller)
        return len(tiles)

    return work


def difference(slide: Path, reduction: int, most_rows: int) -> tuple[float, float]:
    """Mean difference in grey levels of scaled decoding from area means, per patch: the median and the largest."""
    reader = open_slide(slide, ["openslide"])
    choice = choice_of(reader, reduction)
    index = index_tiles(slide, reader.info, 0)
    if index is None:
        raise SystemExit(f"{slide.name} has no tiles that can be decoded directly")
    whole, scaled, side = TileReader(index), TileReader(index, scale=reduction), choice.read_size_px
    means = []
    for x, y in grid_of(reader, choice, most_rows).tolist():
        area = reduce_area(whole.read(x, y, side, side), reduction).astype(np.int16)
        means.append(float(np.abs(scaled.read(x, y, side, side) - area).mean()))
    for opened in (whole, scaled, reader):
        opened.close()
    return float(np.median(means)), max(means)


def measured(slide: Path, runs: int, rows: int | None) -> tuple[Figures, Figures]:
    """Figures of one slide, all on level 0, and their ratios."""
    figures: Figures = {}
    ratios: Figures = {}
    tiles = PixelSource(pixels="tiles")
    for reduction in (1, 2):
        ways = {
            "openslide": pass_over(slide, reduction, READER, rows),
            "tiles": pass_over(slide, reduction, tiles, rows),
            "floor": decode_tiles(slide, reduction, reduction, rows),
        }
        if reduction > 1:
            ways["scaled"] = pass_over(slide, reduction, PixelSource(pixels="tiles", jpeg_reduction=reduction), rows)
        patches = ways["tiles"]()
        name = f"{SIZE_PX}px" if reduction == 1 else f"reduced_by_{reduction}"
        for way, work in ways.items():
            figures[f"{name}_{way}_ms"] = cpu_ms(work, runs=runs, warm_up=0) / patches
        figures[f"{name}_patches"], figures[f"{name}_tiles"] = patches, ways["floor"]()
        best = float(figures[f"{name}_{'tiles' if reduction == 1 else 'scaled'}_ms"] or 0)
        for way in ("openslide", *(["tiles"] if reduction > 1 else [])):
            ratios[f"{name}_{way}_over_best"] = float(figures[f"{name}_{way}_ms"] or 0) / best
        ratios[f"{name}_best_over_floor"] = best / float(figures[f"{name}_floor_ms"] or 1)
    figures["difference_median"], figures["difference_largest"] = difference(slide, 2, 4)
    return figures, ratios


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--slide", type=Path, help="a slide of JPEG tiles instead of the generated one")
    parser.add_argument("--side-px", type=int, default=LARGE_PX, help="of the generated slide")
    parser.add_argument("--rows", type=int, default=8, help="of patches in the middle of the slide; 0 reads all")
    parser.add_argument("--runs", type=int, default=3)
    words = parser.parse_args()
    slide = words.slide or repeated_phantom(words.side_px)
    figures, ratios = measured(slide, words.runs, words.rows or None)
    # Four times the rows are four times the patches: what a patch costs does not depend on how many there are.
    few, many = (pass_over(slide, 2, choose(slide), rows) for rows in (8, 32))
    if many() >= 4 * few():
        ratios["per_patch_of_four_times_as_many"] = (
            cpu_ms(many, runs=words.runs) / many() / (cpu_ms(few, runs=words.runs) / few())
        )
    figures["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stderr.write(f"{slide.name}\n")
    report("reading", figures, ratios, as_json=words.json)


def choose(slide: Path) -> PixelSource:
    """What a survey takes for patches reduced by two."""
    reader = open_slide(slide, ["openslide"])
    try:
        choice = choice_of(reader, 2)
        return choose_pixels(reader, slide, choice, grid_of(reader, choice), "jpeg")
    finally:
        reader.close()


if __name__ == "__main__":
    main()
