"""The cloud: how a slide's pixels lie in optical density, with stain vectors drawn into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from exaone_prep.drawing import BLUE, FAINT, PAPER, RULE, VERMILION, Colour, dashes, font_of
from exaone_prep.drawing import arrow as draw_arrow
from exaone_prep.stain.algebra import StainMatrix, Vector, columns, combine, unit
from exaone_prep.stain.density import BETA, MAX_KEPT_LEVEL, OD_TABLE

Rgb = NDArray[np.uint8]

HAEMATOXYLIN: Final = BLUE
EOSIN: Final = VERMILION
CLOUD_PX: Final = 360
_CELL_PX: Final = 5
_FINER: Final = 3
_BELOW_ZERO: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class View:
    """From where the cloud of optical densities is looked at.

    Attributes:
        across: Unit OD vector (red, green, blue) that points to the right.
        up: The same for upwards, at a right angle to `across`.
        names: What the axes show, for people.
        centred: Whether zero lies in the middle of the height, not at the foot.
    """

    across: Vector
    up: Vector
    names: tuple[str, str]
    centred: bool = False

    def place(self, od: NDArray[np.float64], *, reach_od: float, side_px: int) -> NDArray[np.float64]:
        """Where optical densities lie in a cloud's picture.

        Args:
            od: float64 (N, 3).
            reach_od: Optical density at the right border.
            side_px: Of the square picture.

        Returns:
            float64 (N, 2): x to the right and y downwards, in pixels.
        """
        scale = side_px / ((1 + _BELOW_ZERO) * reach_od)
        across, up = (od @ np.array(axis) for axis in (self.across, self.up))
        foot = side_px / 2 if self.centred else side_px - _BELOW_ZERO * reach_od * scale
        return np.stack([(across + _BELOW_ZERO * reach_od) * scale, foot - up * scale], axis=-1)


RED_GREEN: Final = View(across=(1.0, 0.0, 0.0), up=(0.0, 1.0, 0.0), names=("red", "green"))
RED_BLUE: Final = View(across=(1.0, 0.0, 0.0), up=(0.0, 0.0, 1.0), names=("red", "blue"))


def plane_of(matrix: StainMatrix) -> View:
    """Flat onto the plane of two stains: strength to the right, haematoxylin above, eosin below.

    Args:
        matrix: Unit OD vectors as columns haematoxylin, eosin; rows red, green, blue; not parallel.
    """
    h, e = columns(matrix)
    across = unit(combine(1.0, h, 1.0, e))
    return View(across=across, up=unit(combine(1.0, h, -1.0, e)), names=("strength", "stain"), centred=True)


@dataclass(frozen=True, kw_only=True)
class Arrow:
    """A stain vector to be drawn from zero.

    Attributes:
        name: Written at its tip; nothing is written where it is empty.
        tip_od: Where it ends, OD in red, green, blue: unit vector times maxC.
        colour: RGB.
        dashed: For what is compared with.
    """

    name: str
    tip_od: Vector
    colour: Colour
    dashed: bool = False


def arrows_of(
    matrix: StainMatrix, max_concentration: tuple[float, float], *, dashed: bool = False
) -> tuple[Arrow, Arrow]:
    """Haematoxylin and eosin, each as long as its maxC; only solid ones are named."""
    h, e = (combine(c, vector, 0.0, vector) for c, vector in zip(max_concentration, columns(matrix), strict=True))
    return (
        Arrow(name="" if dashed else "haematoxylin", tip_od=h, colour=HAEMATOXYLIN, dashed=dashed),
        Arrow(name="" if dashed else "eosin", tip_od=e, colour=EOSIN, dashed=dashed),
    )


def kept(pixels: Rgb) -> Rgb:
    """The pixels of uint8 (N, 3) that count for stain vectors: all three optical densities at least β."""
    return pixels[(pixels <= MAX_KEPT_LEVEL).all(axis=-1)]


def reach_of(pixels: Rgb, views: Sequence[View], arrows: Sequence[Arrow]) -> float:
    """The optical density that the right border must stand for, so that arrows and nearly all pixels are inside.

    Args:
        pixels: uint8 (N, 3).
        views: To be drawn to one scale.
        arrows: In them.

    Returns:
        A multiple of 0.5, at least 1.
    """
    need = [1.0]
    tips = np.array([arrow.tip_od for arrow in arrows]).reshape(-1, 3)
    for view in views:
        for od, percent in ((tips, 100.0), (OD_TABLE[pixels], 98.0)):
            if len(od):
                across, up = od @ np.array(view.across), od @ np.array(view.up)
                need.append(float(np.percentile(across, percent)))
                need.append(float(np.percentile(np.abs(up) * 2 if view.centred else up, percent)))
    return float(np.ceil(max(need) * 1.05 * 2) / 2)


def cloud(
    pixels: Rgb, view: View, arrows: Sequence[Arrow] = (), *, reach_od: float, side_px: int = CLOUD_PX
) -> Image.Image:
    """Density of pixels in optical density, on a logarithmic scale of grey, with stain vectors.

    Args:
        pixels: uint8 RGB (N, 3).
        view: From where.
        arrows: Drawn from zero to their tips.
        reach_od: Optical density at the right border; see `reach_of`.
        side_px: Of the square picture.
    """
    spots = view.place(OD_TABLE[pixels].reshape(-1, 3), reach_od=reach_od, side_px=side_px)
    cells = -(-side_px // _CELL_PX)
    counts = np.histogram2d(spots[:, 1], spots[:, 0], bins=cells, range=((0, cells * _CELL_PX),) * 2)[0]
    shade = np.log1p(counts) / np.log1p(max(1.0, float(counts.max())))
    # The faintest cell must be seen as well: one pixel is a third of the way from paper to the darkest grey.
    grey = np.where(counts > 0, 232 - 172 * shade, 255).astype(np.uint8)
    big = Image.fromarray(grey).resize((cells * _CELL_PX,) * 2, Image.Resampling.BILINEAR)
    picture = big.crop((0, 0, side_px, side_px)).convert("RGB")
    _axes(picture, view, reach_od)
    picture = picture.resize((side_px * _FINER,) * 2, Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(picture)
    tips = view.place(np.array([arrow.tip_od for arrow in arrows]).reshape(-1, 3), reach_od=reach_od, side_px=side_px)
    start = view.place(np.zeros((1, 3)), reach_od=reach_od, side_px=side_px)[0]
    for arrow, tip in sorted(zip(arrows, tips, strict=True), key=lambda pair: not pair[0].dashed):
        draw_arrow(pen, start * _FINER, tip * _FINER, colour=arrow.colour, dashed=arrow.dashed, scale=_FINER)
    picture = picture.reduce(_FINER)
    _names(picture, start, list(zip(arrows, tips, strict=True)))
    ImageDraw.Draw(picture).rectangle((0, 0, side_px - 1, side_px - 1), outline=RULE)
    return picture


def _axes(picture: Image.Image, view: View, reach_od: float) -> None:
    pen = ImageDraw.Draw(picture)
    side_px = picture.width

    def along(across_od: float, up_od: float) -> tuple[float, float]:
        od = across_od * np.array([view.across]) + up_od * np.array([view.up])
        x, y = view.place(od, reach_od=reach_od, side_px=side_px)[0]
        return float(x), float(y)

    x0, y0 = along(0, 0)
    pen.line((x0, 0, x0, side_px), fill=RULE)
    pen.line((0, y0, side_px, y0), fill=RULE)
    font = font_of(12)
    for tick in range(1, int(reach_od) + 1):
        x, y = along(tick, 0)
        pen.line((x, y - 3, x, y + 3), fill=FAINT)
        if x < side_px - 60:
            pen.text((x, y + 5), str(tick), fill=FAINT, font=font, anchor="mt", stroke_width=2, stroke_fill=PAPER)
        if not view.centred:
            x, y = along(0, tick)
            pen.line((x - 3, y, x + 3, y), fill=FAINT)
            if y > 10:
                pen.text((x - 6, y), str(tick), fill=FAINT, font=font, anchor="rm")
    if view.centred:
        pen.text((x0 + 6, 5), "more haematoxylin", fill=FAINT, font=font)
        pen.text((x0 + 6, side_px - 6), "more eosin", fill=FAINT, font=font, anchor="ls")
        pen.text(
            (side_px - 6, y0 + 5), "stronger", fill=FAINT, font=font, anchor="rt", stroke_width=2, stroke_fill=PAPER
        )
        return
    pen.text((x0 + 26, 5), f"{view.names[1]} OD", fill=FAINT, font=font)
    pen.text((side_px - 6, y0 + 6), f"{view.names[0]} OD", fill=FAINT, font=font, anchor="rt")
    for ends in (((float(BETA), 0), (float(BETA), reach_od)), ((0, float(BETA)), (reach_od, float(BETA)))):
        dashes(pen, np.array(along(*ends[0])), np.array(along(*ends[1])), colour=FAINT, width=1, dash_px=2, gap_px=4)


def _names(picture: Image.Image, start: NDArray[np.float64], tips: Sequence[tuple[Arrow, NDArray[np.float64]]]) -> None:
    """Write each name near its tip, inside the picture, where it hides least of named arrows and other names."""
    pen, font, side_px = ImageDraw.Draw(picture), font_of(15), picture.width
    steps = np.linspace(0, 1, 60)[:, None]
    taken = np.concatenate([np.empty((0, 2)), *(start + (tip - start) * steps for arrow, tip in tips if arrow.name)])
    for arrow, tip in tips:
        if not arrow.name:
            continue
        size = np.array([font.getlength(arrow.name), 18.0])
        forward = (tip - start) / max(1.0, float(np.hypot(*(tip - start))))
        ways = np.array([forward, (1.0, 0.0), (0.0, -1.0), (0.0, 1.0), (-1.0, 0.0), (1.0, -2.0), (-1.0, -2.0)])
        corners = np.clip(tip + ways * (size / 2 + 8) - size / 2, 4, side_px - 4 - size)
        inside = (taken > corners[:, None] - 3) & (taken < corners[:, None] + size + 3)
        corner = corners[int(inside.all(axis=2).sum(axis=1).argmin())]
        taken = np.concatenate([taken, corner + np.stack([steps[:, 0] * size[0], steps[:, 0] * 0 + 9], axis=-1)])
        place = float(corner[0]), float(corner[1])
        pen.text(place, arrow.name, fill=arrow.colour, font=font, stroke_width=3, stroke_fill=PAPER)
