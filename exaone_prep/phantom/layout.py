"""Where what lies on a slide: coarse maps of tissue, compartments, fibres and artefacts (about 4 µm per cell)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exaone_prep.phantom.noise import Field, cloud, generator, ranked, soft, unit_vector

CELL_UM = 4.0
FAR_UM = np.float32(-1000.0)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a class of tissue is made of: shares of the tissue area, taken one after the other, the rest is stroma.

    Attributes:
        gland: Regions with glands.
        nest: Solid sheets of large epithelial cells.
        lymph: Lymphoid tissue.
        fat: Fat cells.
        muscle: Smooth muscle.
        loose: 0-1, how loose the stroma is.
        gland_um: Smallest and largest radius of glands.
    """

    gland: float = 0.0
    nest: float = 0.0
    lymph: float = 0.0
    fat: float = 0.0
    muscle: float = 0.0
    loose: float = 0.5
    gland_um: tuple[float, float] = (32.0, 80.0)


RECIPES: dict[str, Recipe] = {
    "glandular": Recipe(gland=0.62, nest=0.05, lymph=0.12, fat=0.05, muscle=0.2, loose=0.45),
    "solid": Recipe(gland=0.03, nest=0.6, lymph=0.18, fat=0.03, muscle=0.05, loose=0.5),
    "fibrous": Recipe(gland=0.12, nest=0.08, lymph=0.06, fat=0.12, muscle=0.3, loose=0.7, gland_um=(20.0, 45.0)),
    "lymphoid": Recipe(gland=0.03, nest=0.12, lymph=0.6, fat=0.12, muscle=0.05, loose=0.5),
    "adipose": Recipe(gland=0.15, nest=0.06, lymph=0.06, fat=0.5, muscle=0.05, loose=0.6, gland_um=(20.0, 45.0)),
}
TISSUES: tuple[str, ...] = tuple(RECIPES)
COMPARTMENTS: tuple[str, ...] = ("gland", "nest", "lymph", "fat", "muscle", "stroma")
"""What a place on the tissue belongs to; `gland` is the region of glands, with the stroma between them."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Coarse maps of one slide; every field is float32, rows × columns of `step_px` × `step_px` pixels each.

    Attributes:
        width_px: Of level 0.
        height_px: Of level 0.
        mpp: µm per pixel of level 0.
        step_px: Side of a cell of the maps.
        compartment: uint8; 0 is glass, 1 the first of `COMPARTMENTS`, and so on.
        tissue: 0-1, softly falling over the outline.
        along: Position along the fibres in level-0 pixels.
        across: Position across the fibres in level-0 pixels.
        loose: 0-1, looseness of the stroma.
        tone: About 1, eosin's unevenness.
        cellular: 0-1, how cellular the stroma is.
        inflamed: 0-1, lymphocytes outside lymphoid tissue.
        gland_um: Depth below the outline of the nearest gland, negative outside.
        wall_um: Thickness of the epithelium of glands.
        vessel_um: Depth inside the lumen of the nearest vessel, negative outside.
        bloody: 0-1, how full vessels are.
        nest: 0-1, solid epithelium.
        lymph: 0-1, lymphoid tissue.
        follicle: 0-1, germinal centres in it.
        fat: 0-1, fat cells.
        muscle: 0-1, smooth muscle.
        dust: 0-1, specks on the glass.
        pens: Strokes (0-1), one map per ink.
        unsharp: 0-1, out of focus.
        shares: Share of the slide's area per compartment, and `tissue`, the sum of all.
    """

    width_px: int
    height_px: int
    mpp: float
    step_px: int
    compartment: NDArray[np.uint8]
    tissue: Field
    along: Field
    across: Field
    loose: Field
    tone: Field
    cellular: Field
    inflamed: Field
    gland_um: Field
    wall_um: Field
    vessel_um: Field
    bloody: Field
    nest: Field
    lymph: Field
    follicle: Field
    fat: Field
    muscle: Field
    dust: Field
    pens: tuple[Field, ...]
    unsharp: Field | None
    shares: dict[str, float]


def cell_px(mpp: float) -> int:
    """Side of a cell of the maps in level-0 pixels."""
    return max(round(CELL_UM / mpp), 1)


def lay_out(
    key: tuple[int, ...], *, width_px: int, height_px: int, mpp: float, tissue: str, pens: int, unsharp: bool
) -> Layout:
    """Draw the maps of one slide.

    Args:
        key: Seeds; equal keys give equal slides.
        width_px: Of level 0.
        height_px: Of level 0.
        mpp: µm per pixel of level 0.
        tissue: One of `TISSUES`.
        pens: How many inks there are strokes of.
        unsharp: Whether a part is out of focus.
    """
    step_px = cell_px(mpp)
    cell_um = step_px * mpp
    shape = (-(-height_px // step_px) + 1, -(-width_px // step_px) + 1)
    recipe = RECIPES[tissue]
    rng = generator(*key, 10)

    def clouds(wavelength_um: float, octaves: int = 2) -> Field:
        return cloud(rng, shape, wavelength_um / cell_um, octaves)

    covered = _outline(rng, shape, cell_um)
    compartments = _compartments(rng, shape, cell_um, covered, recipe)
    along, across = _fibres(rng, shape, cell_um, step_px)

    warp = clouds(90), clouds(90)
    free = covered & (compartments["lymph"] | compartments["stroma"] | compartments["muscle"] | compartments["fat"])
    gland_um = _ellipses(rng, compartments["gland"], cell_um, warp, recipe.gland_um, 0.93, 0.45)
    vessel_um = _ellipses(rng, free, cell_um, warp, (9.0, 38.0), 0.22, 0.4, spacing_um=170.0)
    vessel_um = np.minimum(vessel_um, -12 - gland_um)

    nest = compartments["nest"] & (_septa(rng, shape, cell_um) > 0.2)
    lymph = compartments["lymph"] & ~nest
    compartment = np.zeros(shape, np.uint8)
    for number, name in enumerate(COMPARTMENTS, 1):
        compartment[compartments[name]] = number
    total = covered.size
    shares = {name: int((compartments[name] & covered).sum()) / total for name in COMPARTMENTS}
    return Layout(
        width_px=width_px,
        height_px=height_px,
        mpp=mpp,
        step_px=step_px,
        compartment=compartment,
        tissue=soft(covered.astype(np.float32), 5),
        along=along,
        across=across,
        loose=np.clip(recipe.loose + 0.55 * clouds(350), 0, 1).astype(np.float32),
        tone=1 + np.float32(0.22) * clouds(500),
        cellular=np.clip(0.5 + 0.6 * clouds(260), 0.08, 1).astype(np.float32),
        inflamed=np.clip(1.6 * clouds(200) - 0.35, 0.01, 1).astype(np.float32),
        gland_um=gland_um,
        wall_um=np.float32(19.0) + np.float32(7.0) * clouds(220),
        vessel_um=vessel_um,
        bloody=np.clip(0.4 + 1.2 * clouds(300), 0, 1).astype(np.float32),
        nest=soft(nest.astype(np.float32), 3),
        lymph=soft(lymph.astype(np.float32), 5),
        follicle=np.clip((clouds(420, 1) - np.float32(0.25)) * 5, 0, 1),
        fat=soft(compartments["fat"].astype(np.float32), 3),
        muscle=soft(compartments["muscle"].astype(np.float32), 7),
        dust=_dust(rng, shape),
        pens=tuple(_strokes(rng, shape, cell_um) for _ in range(pens)),
        unsharp=np.clip(3 * clouds(1500, 1) - np.float32(0.3), 0, 1) if unsharp else None,
        shares={"tissue": sum(shares.values()), **shares},
    )


def _outline(rng: np.random.Generator, shape: tuple[int, int], cell_um: float) -> NDArray[np.bool_]:
    """Ragged pieces of tissue with holes; they cover between 30 and 58 % of the slide."""
    height, width = shape
    rows = np.arange(height, dtype=np.float32)[:, None] / np.float32(height)
    columns = np.arange(width, dtype=np.float32)[None] / np.float32(width)
    pieces = int(rng.integers(1, 4))
    envelope = np.full(shape, -9, np.float32)
    for piece in range(pieces):
        centre = 0.5 + 0.16 * (float(rng.random()) - 0.5), (piece + 0.5 + 0.3 * (float(rng.random()) - 0.5)) / pieces
        high, wide = 0.36 + 0.08 * float(rng.random()), (0.32 + 0.1 * float(rng.random())) / pieces
        tilt = np.float32(float(rng.random()) - 0.5)
        down = (rows - np.float32(centre[0])) / np.float32(high)
        right = (columns - np.float32(centre[1])) / np.float32(wide) + tilt * down
        envelope = np.maximum(envelope, 1 - np.sqrt(down * down + right * right))
    side = min(shape)
    ragged = envelope + np.float32(0.38) * cloud(rng, shape, side / 2.2, 3)
    ragged += np.float32(0.26) * cloud(rng, shape, 520 / cell_um, 4)
    border = np.minimum(np.minimum(rows, 1 - rows), np.minimum(columns, 1 - columns))
    border = border + np.float32(0.02) * cloud(rng, shape, side / 4, 3)
    ragged -= np.clip((np.float32(0.07) - border) * 16, 0, 3)
    share = 0.34 + 0.22 * float(rng.random())
    holes = ranked(cloud(rng, shape, side / 5, 3)) < np.float32(0.03 + 0.04 * float(rng.random()))
    return (ranked(ragged) > np.float32(1 - share)) & ~holes


def _compartments(
    rng: np.random.Generator, shape: tuple[int, int], cell_um: float, covered: NDArray[np.bool_], recipe: Recipe
) -> dict[str, NDArray[np.bool_]]:
    """Cut the tissue into compartments that follow each other in smooth regions of about a millimetre."""
    rest = covered.copy()
    found: dict[str, NDArray[np.bool_]] = {}
    shares = (recipe.nest, recipe.gland, recipe.lymph, recipe.fat, recipe.muscle)
    wavelengths_um = (900.0, 1100.0, 700.0, 900.0, 800.0)
    for name, share, wavelength_um in zip(
        ("nest", "gland", "lymph", "fat", "muscle"), shares, wavelengths_um, strict=True
    ):
        field = cloud(rng, shape, wavelength_um / cell_um, 3)
        chosen = np.zeros(shape, np.bool_)
        chosen[rest] = ranked(field[rest]) >= np.float32(1 - share)
        found[name] = chosen
        rest &= ~chosen
    found["stroma"] = rest
    return found


def _septa(rng: np.random.Generator, shape: tuple[int, int], cell_um: float) -> Field:
    """Near 0 along thin winding lines, higher between: septa between nests of cells."""
    field = cloud(rng, shape, 340 / cell_um, 2)
    return np.abs(field) * np.float32(2.2)


def _fibres(rng: np.random.Generator, shape: tuple[int, int], cell_um: float, step_px: int) -> tuple[Field, Field]:
    """Coordinates along and across the fibres: a turned grid, bent by smooth noise."""
    cosine, sine = unit_vector(float(rng.random()))
    rows = np.arange(shape[0], dtype=np.float32)[:, None] * np.float32(step_px)
    columns = np.arange(shape[1], dtype=np.float32)[None] * np.float32(step_px)
    reach_px = np.float32(190.0 / cell_um * step_px)
    along = columns * np.float32(cosine) + rows * np.float32(sine)
    across = rows * np.float32(cosine) - columns * np.float32(sine)
    along = along + reach_px * cloud(rng, shape, 700 / cell_um, 2)
    across = across + reach_px * cloud(rng, shape, 520 / cell_um, 2)
    across += np.float32(13.0 / cell_um * step_px) * cloud(rng, shape, 75 / cell_um, 2)
    origin_px = np.float32(1 << 15)
    return along + origin_px, across + origin_px


def _ellipses(
    rng: np.random.Generator,
    where: NDArray[np.bool_],
    cell_um: float,
    warp: tuple[Field, Field],
    radius_um: tuple[float, float],
    keep: float,
    squash: float,
    spacing_um: float | None = None,
) -> Field:
    """Depth in µm below the outlines of scattered, bent ellipses that have their centre in `where`."""
    depth = np.full(where.shape, FAR_UM, np.float32)
    if not where.any():
        return depth
    spacing = (spacing_um or (radius_um[0] + radius_um[1]) * 1.02) / cell_um
    bend = np.float32(13.0 / cell_um)
    for centre_row in np.arange(spacing / 2, where.shape[0], spacing):
        for centre_column in np.arange(spacing / 2, where.shape[1], spacing):
            row = float(centre_row) + spacing * 0.6 * (float(rng.random()) - 0.5)
            column = float(centre_column) + spacing * 0.6 * (float(rng.random()) - 0.5)
            size, shape, turn, luck = (float(value) for value in rng.random(4))
            inside = 0 <= row < where.shape[0] and 0 <= column < where.shape[1]
            if luck > keep or not inside or not where[int(row), int(column)]:
                continue
            radius = (radius_um[0] + (radius_um[1] - radius_um[0]) * size * size) / cell_um
            flat = 1 - squash * shape
            reach = int(radius / flat * 1.3 + 26 / cell_um) + 2
            top, left = max(int(row) - reach, 0), max(int(column) - reach, 0)
            window = np.s_[top : int(row) + reach + 1, left : int(column) + reach + 1]
            part = depth[window]
            down = np.arange(top, top + part.shape[0], dtype=np.float32)[:, None] - np.float32(row)
            right = np.arange(left, left + part.shape[1], dtype=np.float32)[None] - np.float32(column)
            down = down + bend * warp[0][window]
            right = right + bend * warp[1][window]
            cosine, sine = unit_vector(turn)
            long = (right * np.float32(cosine) + down * np.float32(sine)) * np.float32(flat)
            short = (down * np.float32(cosine) - right * np.float32(sine)) / np.float32(0.5 + 0.5 * flat)
            here = (np.float32(radius) - np.sqrt(long * long + short * short)) * np.float32(cell_um)
            np.maximum(part, here, out=part)
    return depth


def _dust(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    luck = rng.random(shape, np.float32)
    large, small = luck < np.float32(0.00001), luck > np.float32(1 - 0.00006)
    specks = soft(large.astype(np.float32), 5) * 30 + soft(small.astype(np.float32), 2) * 5
    return np.clip(specks, 0, 1, out=specks)


def _strokes(rng: np.random.Generator, shape: tuple[int, int], cell_um: float) -> Field:
    """Two or three strokes of a felt pen, 150-300 µm wide, across glass and tissue."""
    mark = np.zeros(shape, np.float32)
    rows = np.arange(shape[0], dtype=np.float32)[:, None]
    columns = np.arange(shape[1], dtype=np.float32)[None]
    wobble = cloud(rng, shape, 600 / cell_um, 2) * np.float32(60 / cell_um)
    for _ in range(int(rng.integers(2, 4))):
        start = float(rng.random()) * shape[0], float(rng.random()) * shape[1]
        cosine, sine = unit_vector(float(rng.random()))
        length = (0.25 + 0.35 * float(rng.random())) * min(shape)
        half_width = (75 + 75 * float(rng.random())) / cell_um
        along = (columns - np.float32(start[1])) * np.float32(cosine) + (rows - np.float32(start[0])) * np.float32(sine)
        beside = (rows - np.float32(start[0])) * np.float32(cosine) - (columns - np.float32(start[1])) * np.float32(
            sine
        )
        beyond = along - np.clip(along, 0, np.float32(length))
        distance = np.sqrt(beyond * beyond + (beside + wobble) ** 2)
        mark = np.maximum(mark, np.clip((np.float32(half_width) - distance) * np.float32(0.35), 0, 1))
    return mark
