"""From maps and cells to pixels: concentrations of the two stains, what else absorbs, and the scanner's grey levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exaone_prep.phantom.cells import Cells, Lattice, Stamps
from exaone_prep.phantom.layout import Layout
from exaone_prep.phantom.noise import TEXTURE_PX, Field, Textures, bilinear
from exaone_prep.phantom.nuclei import Library
from exaone_prep.phantom.optics import Scanner, Stains, defocus, record, respond, spread

INKS: tuple[tuple[float, float, float], ...] = ((1.5, 0.42, 0.75), (1.45, 1.0, 0.3), (1.7, 1.65, 1.55))
"""OD of green, blue and black felt pens."""
_DEFOCUS_UM = 3.5
_BLOOD_OD = (0.0, 0.02, 0.07)
_DUST_OD = (0.30, 0.30, 0.32)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All that decides the pixels of one slide; the stains' scales hold this slide's thickness as well."""

    layout: Layout
    cells: Cells
    textures: Textures
    library: Library
    stains: Stains
    scanner: Scanner
    offset: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class _Window:
    """A rectangle of a slide's pixels with what several painters need of it."""

    scene: Scene
    top: int
    left: int
    height: int
    width: int

    def field(self, coarse: Field) -> Field:
        step = self.scene.layout.step_px
        rows = (np.arange(self.top, self.top + self.height) + 0.5) / step - 0.5
        columns = (np.arange(self.left, self.left + self.width) + 0.5) / step - 0.5
        return bilinear(coarse, rows, columns)

    def touches(self, coarse: Field, above: float = 0.0) -> bool:
        step = self.scene.layout.step_px
        top, left = max(self.top // step - 1, 0), max(self.left // step - 1, 0)
        bottom, right = (self.top + self.height) // step + 3, (self.left + self.width) // step + 3
        return bool((coarse[top:bottom, left:right] > above).any())

    def texture(self, texture: NDArray[np.uint8], shift: int = 0) -> Field:
        """The texture, 0-1, laid out straight."""
        rows = (np.arange(self.top, self.top + self.height) + self.scene.offset[0] + shift) & (TEXTURE_PX - 1)
        columns = (np.arange(self.left, self.left + self.width) + self.scene.offset[1] + shift) & (TEXTURE_PX - 1)
        laid: Field = texture[rows[:, None], columns].astype(np.float32)
        laid *= np.float32(1 / 255)
        return laid


def paint(scene: Scene, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
    """Pixels of a rectangle of level 0; rectangles from even rows and columns fit together without seams.

    Args:
        scene: The slide.
        top: First row.
        left: First column.
        height: Rows.
        width: Columns.

    Returns:
        uint8, height × width × 3, RGB.
    """
    layout, scanner = scene.layout, scene.scanner
    defocus_px = max(int(_DEFOCUS_UM / layout.mpp), 3)
    halo = 4 if layout.unsharp is None else 4 + 2 * defocus_px
    window = _Window(scene=scene, top=top - halo, left=left - halo, height=height + 2 * halo, width=width + 2 * halo)
    image = np.empty((height, width, 3), np.uint8)
    core = np.s_[halo:-halo, halo:-halo]
    od = _absorption(window)
    if od is None:
        levels = [np.full((height, width), glass, np.float32) for glass in scanner.glass]
    else:
        levels = [spread(level, scanner) for level in respond(od, scanner)]
        if layout.unsharp is not None and window.touches(layout.unsharp):
            amount = window.field(layout.unsharp)
            levels = [defocus(level, amount, defocus_px) for level in levels]
        levels = [level[core] for level in levels]
    for channel, level in enumerate(levels):
        offset = scene.offset[0] + top + 331 * channel, scene.offset[1] + left + 577 * channel
        image[..., channel] = record(level, scene.textures, scanner, offset)
    return image


def _absorption(window: _Window) -> list[Field] | None:
    """OD in linear light per channel, or None where there is only glass."""
    scene = window.scene
    layout = scene.layout
    marks = [(layout.dust, _DUST_OD), *zip(layout.pens, INKS, strict=False)]
    marks = [(mark, colour) for mark, colour in marks if window.touches(mark)]
    tissue = window.touches(layout.tissue)
    if not tissue and not marks:
        return None
    od = [np.zeros((window.height, window.width), np.float32) for _ in range(3)]
    if tissue:
        haematoxylin, eosin, blood = _tissue(window)
        stains = scene.stains
        haematoxylin *= np.float32(stains.haematoxylin_scale)
        eosin *= np.float32(stains.eosin_scale)
        for channel in range(3):
            od[channel] = haematoxylin * np.float32(stains.haematoxylin[channel])
            od[channel] += eosin * np.float32(stains.eosin[channel])
            if blood is not None and _BLOOD_OD[channel]:
                od[channel] += blood * np.float32(_BLOOD_OD[channel])
    for mark, colour in marks:
        strength = window.field(mark)
        strength *= np.float32(0.62) + np.float32(0.5) * window.texture(scene.textures.patchy)
        for channel in range(3):
            od[channel] += strength * np.float32(colour[channel])
    return od


def _ramp(values: Field, threshold: float | Field, steepness: float) -> Field:
    """0 well below the threshold, 1 well above, 0.5 at it."""
    result = (values - threshold) * np.float32(steepness)
    result += np.float32(0.5)
    return np.clip(result, 0, 1, out=result)


def _blend(below: Field, above: Field | float, share: Field) -> Field:
    return below + (above - below) * share


def _tissue(window: _Window) -> tuple[Field, Field, Field | None]:
    """Concentrations of haematoxylin and eosin, and the thickness of red cells."""
    scene = window.scene
    layout, textures = scene.layout, scene.textures
    grain, mottle = window.texture(textures.grain), window.texture(textures.mottle)
    fibre, bundle = _fibres(window)
    weave = np.float32(0.66) * bundle + np.float32(0.34) * fibre
    solid = _ramp(weave, np.float32(0.42) * window.field(layout.loose) - np.float32(0.03), 5)
    eosin = solid * (np.float32(0.2) + np.float32(0.32) * fibre + np.float32(0.3) * bundle + np.float32(0.06) * grain)
    haematoxylin = solid * (np.float32(0.02) + np.float32(0.06) * mottle)
    if window.touches(layout.muscle, 0.02):
        muscle = window.field(layout.muscle)
        eosin = _blend(eosin, np.float32(0.48) + np.float32(0.26) * fibre + np.float32(0.08) * grain, muscle)
        haematoxylin = _blend(haematoxylin, np.float32(0.05) + np.float32(0.07) * fibre, muscle)
    if window.touches(layout.lymph, 0.02):
        share = _ramp(window.field(layout.lymph) + np.float32(0.3) * mottle, 0.65, 4)
        net = _ramp(mottle + np.float32(0.3) * window.texture(textures.patchy, 291), 0.35, 3)
        eosin = _blend(eosin, net * (np.float32(0.16) + np.float32(0.24) * grain), share)
        haematoxylin = _blend(haematoxylin, net * (np.float32(0.12) + np.float32(0.22) * grain), share)
    if window.touches(layout.nest, 0.02):
        haematoxylin, eosin = _epithelium(window, haematoxylin, eosin, grain, mottle)
    if window.touches(layout.fat, 0.02):
        edge, _ = _worley(window, scene.cells.adipocytes)
        share = _ramp(window.field(layout.fat) + np.float32(0.2) * bundle, 0.6, 6)
        membrane = 1 - _ramp(edge, (np.float32(1.1) + np.float32(1.4) * mottle) * np.float32(1 / layout.mpp), 0.9)
        eosin = _blend(eosin, membrane * (np.float32(0.25) + np.float32(0.3) * grain), share)
        haematoxylin = _blend(haematoxylin, membrane * np.float32(0.06), share)
    if window.touches(layout.gland_um, -8):
        haematoxylin, eosin = _gland(window, haematoxylin, eosin, grain, mottle)
    if window.touches(layout.vessel_um, -9):
        depth = window.field(layout.vessel_um)
        wall = _ramp(depth, -5.5, 0.4)
        eosin = _blend(eosin, np.float32(0.5) + np.float32(0.25) * grain, wall)
        lumen = _ramp(depth, 0, 1.0 * layout.mpp / 0.5)
        eosin = _blend(eosin, 0.015, lumen)
        haematoxylin = _blend(haematoxylin, 0.0, lumen)

    eosin *= window.field(layout.tone)
    outline = window.field(layout.tissue) + np.float32(0.3) * (bundle - np.float32(0.5))
    outline += np.float32(0.25) * (window.texture(textures.patchy, 713) - np.float32(0.5))
    outline = _ramp(outline, 0.5, 6)
    eosin *= outline
    haematoxylin *= outline
    blood = _blood(window, outline)
    if blood is not None:
        eosin = np.maximum(eosin, blood * np.float32(0.95))
    _stamp_nuclei(window, haematoxylin, eosin)
    return haematoxylin, eosin, blood


def _fibres(window: _Window) -> tuple[Field, Field]:
    """Thin fibres and their bundles (0-1); in patches another layer of them, askew, lies on top."""
    layout, textures = window.scene.layout, window.scene.textures
    along, across = window.field(layout.along), window.field(layout.across)
    wrap = TEXTURE_PX - 1

    def look_up(rows: Field, columns: Field) -> tuple[Field, Field]:
        index = rows.astype(np.int32) & wrap
        index *= TEXTURE_PX
        index += columns.astype(np.int32) & wrap
        return textures.fibre.take(index).astype(np.float32), textures.bundle.take(index).astype(np.float32)

    fibre, bundle = look_up(across, along)
    other_fibre, other_bundle = look_up(across + along * np.float32(0.45), along - across * np.float32(0.3))
    top = _ramp(other_bundle - bundle, 30, 0.02)
    fibre, bundle = _blend(fibre, other_fibre, top), _blend(bundle, other_bundle, top)
    fibre *= np.float32(1 / 255)
    bundle *= np.float32(1 / 255)
    return fibre, bundle


def _epithelium(window: _Window, haematoxylin: Field, eosin: Field, grain: Field, mottle: Field) -> tuple[Field, Field]:
    """Solid sheets: each cell has its own tone; it shrinks from the stroma here and there."""
    layout = window.scene.layout
    near, own = _worley(window, window.scene.cells.epithelium)
    patchy = window.texture(window.scene.textures.patchy, 137)
    depth = window.field(layout.nest) + np.float32(0.12) * (mottle - np.float32(0.5))
    share = _ramp(depth, 0.5, 7)
    retreat = _ramp(depth, 0.3, 9) * (1 - _ramp(depth, 0.52, 9)) * _ramp(patchy, 0.62, 6)
    gap = _ramp(near, 1.3 / layout.mpp, 0.5)
    body = np.float32(0.22) + np.float32(0.26) * own + np.float32(0.12) * grain + np.float32(0.12) * mottle
    body *= np.float32(0.72) + np.float32(0.28) * gap
    basophil = np.float32(0.10) + np.float32(0.16) * (1 - own) + np.float32(0.1) * grain
    eosin = _blend(eosin, body, share)
    haematoxylin = _blend(haematoxylin, basophil, share)
    retreat = 1 - retreat
    return haematoxylin * retreat, eosin * retreat


def _gland(window: _Window, haematoxylin: Field, eosin: Field, grain: Field, mottle: Field) -> tuple[Field, Field]:
    """Columnar epithelium round a lumen: basal nuclei, paler foamy tops, a ragged luminal border, some secretion."""
    textures = window.scene.textures
    depth = window.field(window.scene.layout.gland_um)
    wall = window.field(window.scene.layout.wall_um)
    patchy = window.texture(textures.patchy, 411)
    inside = _ramp(depth, 0, 0.9)
    height = (depth / np.maximum(wall, 8)).astype(np.float32, copy=False)
    foam = _ramp(mottle, 0.45, 3)
    pale = _ramp(height, 0.5, 3)
    body = np.float32(0.36) + np.float32(0.14) * grain - pale * (np.float32(0.08) + np.float32(0.16) * foam)
    basophil = (np.float32(0.2) + np.float32(0.1) * grain) * (1 - np.float32(0.6) * pale)
    eosin = _blend(eosin, body, inside)
    haematoxylin = _blend(haematoxylin, basophil, inside)
    membrane = 1 - np.clip(np.abs(depth + np.float32(1.2)) * np.float32(0.7), 0, 1)
    eosin += membrane * np.float32(0.22)
    lumen = _ramp(depth - wall + np.float32(9) * (patchy - np.float32(0.5)) + np.float32(3) * mottle, 2, 0.7)
    secretion = _ramp(patchy, 0.72, 5) * (np.float32(0.03) + np.float32(0.22) * _ramp(mottle, 0.6, 5))
    return _blend(haematoxylin, 0.0, lumen), _blend(eosin, secretion, lumen)


def _worley(window: _Window, lattice: Lattice) -> tuple[Field, Field]:
    """Distance to the border between the nearest two points in pixels, and a tone (0-1) of the nearest.

    Computed on every second pixel and doubled.
    """
    spacing = lattice.spacing_px
    points = lattice.points
    rows = np.arange(window.top, window.top + window.height + 1, 2, dtype=np.float32)
    columns = np.arange(window.left, window.left + window.width + 1, 2, dtype=np.float32)
    shape = (rows.size, columns.size)
    first, second, tone = np.full(shape, 1e9, np.float32), np.full(shape, 1e9, np.float32), np.zeros(shape, np.float32)
    grid_rows = (rows / np.float32(spacing)).astype(np.int32) + 1
    grid_columns = (columns / np.float32(spacing)).astype(np.int32) + 1
    for row_step in (-1, 0, 1):
        near_rows = np.clip(grid_rows + row_step, 0, points.shape[0] - 1)
        for column_step in (-1, 0, 1):
            near_columns = np.clip(grid_columns + column_step, 0, points.shape[1] - 1)
            nearest = points[near_rows[:, None], near_columns]
            down = nearest[..., 0] - rows[:, None]
            right = nearest[..., 1] - columns
            distance = down * down
            distance += right * right
            number = (near_rows[:, None] * 40503) ^ (near_columns * 10007)
            own = (((number ^ (number >> 7)) * 31153 >> 5) & 255).astype(np.float32)
            # A weight per cell bends the borders and makes cells differ in size.
            distance *= np.float32(0.75) + own * np.float32(0.5 / 255)
            closer = distance < first
            second = np.where(closer, first, np.minimum(second, distance))
            tone = np.where(closer, own, tone)
            first = np.where(closer, distance, first)
    border = (np.sqrt(second) - np.sqrt(first)) * np.float32(0.5)
    return _doubled(border, window), _doubled(tone * np.float32(1 / 255), window)


def _doubled(half: Field, window: _Window) -> Field:
    rows = np.arange(window.height) / 2
    columns = np.arange(window.width) / 2
    return bilinear(half, rows, columns)


def _blood(window: _Window, outline: Field) -> Field | None:
    layers = _stamped(window, window.scene.cells.blood)
    return None if layers is None else layers[0] * outline


def _stamp_nuclei(window: _Window, haematoxylin: Field, eosin: Field) -> None:
    layers = _stamped(window, window.scene.cells.nuclei)
    if layers is None:
        return
    cover, chromatin = layers
    eosin *= 1 - np.float32(0.82) * cover
    haematoxylin *= 1 - cover
    haematoxylin += chromatin


def _stamped(window: _Window, stamps: Stamps) -> Field | None:
    """Both layers (2 × height × width) of the sprites on this window, or None without any."""
    library = window.scene.library
    reach = library.reach_px
    bottom, right = window.top + window.height, window.left + window.width
    here = stamps.between(window.top - reach, bottom + reach, window.left - reach, right + reach)
    if not len(here):
        return None
    layers = np.zeros((2, window.height + 4 * reach, window.width + 4 * reach), np.float32)
    for row, column, number in (here - np.array([window.top - 2 * reach, window.left - 2 * reach, 0])).tolist():
        sprite = library.sprites[number]
        half = sprite.shape[1] // 2
        part = layers[:, row - half : row + half + 1, column - half : column + half + 1]
        np.maximum(part, sprite, out=part)
    inside = 2 * reach
    return layers[:, inside : inside + window.height, inside : inside + window.width]
