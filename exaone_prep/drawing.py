"""Pens for pictures: arrows, dashes and words in the font that Pillow ships.

That font has neither µ nor × nor arrows, so words do without. Colours are Okabe and Ito's, which people with any colour
vision tell apart.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFont

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Point = NDArray[np.float64]

BLUE: Final[Colour] = (0, 114, 178)
VERMILION: Final[Colour] = (213, 94, 0)
INK: Final[Colour] = (28, 32, 38)
FAINT: Final[Colour] = (96, 102, 110)
RULE: Final[Colour] = (176, 180, 186)
PAPER: Final[Colour] = (255, 255, 255)


def arrow(
    pen: ImageDraw.ImageDraw, start: Point, tip: Point, *, colour: Colour, dashed: bool = False, scale: int = 1
) -> None:
    """An arrow whose head ends exactly at its tip; nothing where that is less than a pixel away.

    Args:
        pen: Of the picture.
        start: float64 (2,), x and y in pixels.
        tip: The same.
        colour: RGB.
        dashed: A dashed line and a hollow head.
        scale: By how much the picture is larger than it will be shown.
    """
    length = float(np.hypot(*(tip - start)))
    if length < 1:
        return
    forward = (tip - start) / length
    aside = np.array([-forward[1], forward[0]])
    head_px = min(13.0 * scale, length)
    neck, base = tip - forward * head_px * 0.8, tip - forward * head_px
    head = [(float(x), float(y)) for x, y in (tip, base + aside * 0.4 * head_px, base - aside * 0.4 * head_px)]
    if dashed:
        dashes(pen, start, neck, colour=colour, width=2 * scale, dash_px=7 * scale, gap_px=5 * scale)
        pen.line([*head, head[0]], fill=colour, width=2 * scale)
        return
    for width, fill in ((6, PAPER), (3, colour)):
        pen.line((*start, *neck), fill=fill, width=width * scale)
    pen.polygon(head, fill=colour)


def dashes(
    pen: ImageDraw.ImageDraw, start: Point, end: Point, *, colour: Colour, width: int, dash_px: float, gap_px: float
) -> None:
    """A dashed line between two points, float64 (2,) each."""
    length = float(np.hypot(*(end - start)))
    for begun in np.arange(0.0, length, dash_px + gap_px):
        here, there = (start + (end - start) * min(at, length) / length for at in (begun, begun + dash_px))
        pen.line((*here, *there), fill=colour, width=width)


def paragraph(
    pen: ImageDraw.ImageDraw, place: tuple[int, int], words: str, width_px: int, font: Font, colour: Colour
) -> None:
    """Write words from a place, the upper left corner, in lines of at most a width."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width_px:
            lines[-1] = longer
        else:
            lines.append(word)
    pen.multiline_text(place, "\n".join(lines), fill=colour, font=font, spacing=4)


def shortened(words: str, width_px: int, font: Font) -> str:
    """Words that fit a width: cut off with dots where they do not."""
    if font.getlength(words) <= width_px:
        return words
    while words and font.getlength(f"{words}...") > width_px:
        words = words[:-1]
    return f"{words}..."


def font_of(size_px: int) -> Font:
    """The font that Pillow ships."""
    return ImageFont.load_default(size_px)
