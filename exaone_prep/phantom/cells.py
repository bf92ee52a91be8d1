"""Which nucleus lies where: every cell of a slide, decided before the first pixel is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exaone_prep.phantom.layout import Layout
from exaone_prep.phantom.noise import Field, bilinear_at, generator, unit_vector
from exaone_prep.phantom.nuclei import DIRECTIONS, Kind, Library

NEST_UM = 11.3
"""Distance of the cells of solid epithelium."""
FAT_UM = 62.0
"""Distance of fat cells."""


@dataclass(frozen=True, kw_only=True)
class Stamps:
    """Sprites on a slide, sorted by row: three int32 arrays of one length (level-0 pixels; number of the sprite)."""

    rows: NDArray[np.int32]
    columns: NDArray[np.int32]
    sprites: NDArray[np.int32]

    def between(self, top: int, bottom: int, left: int, right: int) -> NDArray[np.int32]:
        """Rows, columns and sprites (n×3) with their centre in the given pixels."""
        first, last = np.searchsorted(self.rows, [top, bottom])
        columns = self.columns[first:last]
        here = (columns >= left) & (columns < right)
        return np.stack([self.rows[first:last][here], columns[here], self.sprites[first:last][here]], axis=1)


@dataclass(frozen=True, kw_only=True)
class Lattice:
    """Jittered points, one per square of `spacing_px`: float32, rows × columns × (row, column) in level-0 pixels."""

    spacing_px: float
    points: Field


@dataclass(frozen=True, kw_only=True)
class Cells:
    """All cells of a slide.

    Attributes:
        nuclei: Stamps of nuclei.
        blood: Stamps of red cells.
        epithelium: Centres of the cells of solid epithelium.
        adipocytes: Centres of fat cells.
    """

    nuclei: Stamps
    blood: Stamps
    epithelium: Lattice
    adipocytes: Lattice


def populate(layout: Layout, library: Library, key: tuple[int, ...]) -> Cells:
    """Scatter the cells over a slide.

    Args:
        layout: The slide's maps.
        library: The sprites.
        key: Seeds; equal keys give equal cells.
    """
    epithelium = _lattice(layout, key, 20, NEST_UM, 0.72)
    adipocytes = _lattice(layout, key, 21, FAT_UM, 0.7)
    dense = _Sampler(layout, library, key, 22, _points(_lattice(layout, key, 23, 6.3, 0.8)))
    sparse = _Sampler(layout, library, key, 24, _points(_lattice(layout, key, 25, 11.5, 0.95)))
    large = _Sampler(layout, library, key, 26, _points(epithelium))
    red = _Sampler(layout, library, key, 27, _points(_lattice(layout, key, 28, 5.6, 0.8)))

    depth, wall = dense.at(layout.gland_um), dense.at(layout.wall_um)
    in_gland = depth > -1
    stratified = np.clip((wall - 15) * 1.1, 3.5, 9)
    vessel = dense.at(layout.vessel_um)
    in_lymph = (dense.at(layout.lymph) > 0.5) & (depth < -4) & (vessel < -3) & (dense.at(layout.nest) < 0.3)
    follicle = dense.at(layout.follicle)
    small = in_lymph & (dense.luck < 0.72 + 0.25 * dense.at(layout.cellular) - 0.5 * follicle)
    columnar = (depth > 3.2) & (depth < 4.2 + stratified) & (dense.luck < 0.9)
    endothelial = (vessel > -3.2) & (vessel < 0.4) & (dense.luck < 0.4)
    stray = ~in_lymph & (depth < -1) & (vessel < -1) & (dense.at(layout.fat) < 0.2)
    stray &= dense.luck < 0.32 * dense.at(layout.inflamed)

    solid = (large.at(layout.nest) > 0.55) & (large.at(layout.gland_um) < 0) & (large.luck < 0.88)
    centre = (large.at(layout.follicle) > 0.3) & (large.at(layout.lymph) > 0.6) & (large.luck < 0.55)
    centre &= large.at(layout.gland_um) < -5

    spindly = (sparse.at(layout.gland_um) < -2.5) & (sparse.at(layout.nest) < 0.3) & (sparse.at(layout.vessel_um) < -4)
    spindly &= (sparse.at(layout.lymph) < 0.5) & (sparse.at(layout.fat) < 0.4)
    spindly &= sparse.luck < np.maximum(0.62 * sparse.at(layout.cellular), 0.5 * sparse.at(layout.muscle))

    in_vessel = (red.at(layout.vessel_um) > 3.2) & (red.luck < 1.05 * red.at(layout.bloody))
    in_vessel &= (red.at(layout.gland_um) < 0) & (red.at(layout.bloody) > 0.25)

    fibre, radial, ring = (layout.across, True), (layout.gland_um, False), (layout.vessel_um, True)
    nuclei = (
        dense.stamps(small | stray, "lymphocyte"),
        dense.stamps(columnar & in_gland, "columnar", *radial),
        dense.stamps(endothelial, "spindle", *ring),
        large.stamps(solid, "plump"),
        large.stamps(centre & ~solid, "plump"),
        sparse.stamps(spindly, "spindle", *fibre),
    )
    return Cells(
        nuclei=_sorted(nuclei),
        blood=_sorted((red.stamps(in_vessel, "erythrocyte"),)),
        epithelium=epithelium,
        adipocytes=adipocytes,
    )


def _lattice(layout: Layout, key: tuple[int, ...], purpose: int, spacing_um: float, jitter: float) -> Lattice:
    spacing_px = spacing_um / layout.mpp
    shape = int(layout.height_px / spacing_px) + 3, int(layout.width_px / spacing_px) + 3
    points = generator(*key, purpose).random((*shape, 2), np.float32) * np.float32(jitter)
    points += np.float32(0.5 - jitter / 2 - 1)
    points[1::2, :, 1] += np.float32(0.5)
    points[..., 0] += np.arange(shape[0], dtype=np.float32)[:, None]
    points[..., 1] += np.arange(shape[1], dtype=np.float32)[None]
    return Lattice(spacing_px=spacing_px, points=points * np.float32(spacing_px))


def _points(lattice: Lattice) -> Field:
    return lattice.points.reshape(-1, 2)


class _Sampler:
    """Candidates for cells that lie on tissue, and the maps' values at them."""

    def __init__(self, layout: Layout, library: Library, key: tuple[int, ...], purpose: int, points: Field) -> None:
        self._library = library
        self._rng = generator(*key, purpose)
        cells = (points.astype(np.float64) + 0.5) / layout.step_px - 0.5
        on_tissue = bilinear_at(layout.tissue, cells[:, 0], cells[:, 1]) > 0.55
        self.points = points[on_tissue]
        self._cells = cells[on_tissue]
        self.luck = self._rng.random(len(self.points), np.float32)

    def at(self, field: Field) -> Field:
        return bilinear_at(field, self._cells[:, 0], self._cells[:, 1])

    def stamps(
        self, chosen: NDArray[np.bool_], kind: Kind, field: Field | None = None, along_contour: bool = False
    ) -> NDArray[np.int32]:
        """Rows, columns and sprites (n×3) of the chosen; long axis up the field, along its contour, or anyhow."""
        points = self.points[chosen]
        variants = self._rng.integers(0, self._library.variants[kind], len(points))
        directions = self._rng.integers(0, DIRECTIONS, len(points))
        if field is not None:
            rows, columns = self._cells[chosen, 0], self._cells[chosen, 1]
            down = bilinear_at(field, rows + 1, columns) - bilinear_at(field, rows - 1, columns)
            right = bilinear_at(field, rows, columns + 1) - bilinear_at(field, rows, columns - 1)
            if along_contour:
                down, right = right, -down
            best = np.full(len(points), -1, np.float32)
            for direction in range(DIRECTIONS):
                cosine, sine = unit_vector(direction / DIRECTIONS / 2)
                likeness = np.abs(right * np.float32(cosine) + down * np.float32(sine))
                directions = np.where(likeness > best, direction, directions)
                best = np.maximum(best, likeness)
            directions = (directions + self._rng.integers(-1, 2, len(points))) % DIRECTIONS
        sprites = self._library.first[kind] + variants * DIRECTIONS + directions
        return np.stack([points[:, 0].astype(np.int64), points[:, 1].astype(np.int64), sprites], axis=1).astype(
            np.int32
        )


def _sorted(parts: tuple[NDArray[np.int32], ...]) -> Stamps:
    together = np.concatenate(parts)
    together = together[np.argsort(together[:, 0], kind="stable")]
    return Stamps(
        rows=np.ascontiguousarray(together[:, 0]),
        columns=np.ascontiguousarray(together[:, 1]),
        sprites=np.ascontiguousarray(together[:, 2]),
    )
