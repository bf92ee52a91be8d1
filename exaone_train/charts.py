"""Small charts as SVG for pages and files: points by group, intervals, points with names. No scripts, no fonts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

FEW_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#666666")
"""Told apart with colour-blind eyes too (Okabe and Ito), on white and on black."""

LEGEND_MOST = 12


def colours(count: int) -> list[str]:
    """As many colours, as different as they can be."""
    if count <= len(FEW_COLOURS):
        return list(FEW_COLOURS[:count])
    return [f"hsl({(137.508 * one) % 360:.0f} 65% {(42, 55, 68)[one % 3]}%)" for one in range(count)]


def scatter(points: NDArray[np.floating], group: NDArray[np.str_], *, title: str, side: int = 320) -> str:
    """Points in a square, a colour for each group; a legend where there are few groups.

    Args:
        points: n×2.
        group: n names.
        title: Read aloud in place of the picture.
        side: Width and height in px, without the legend.
    """
    names, number = np.unique(group, return_inverse=True)
    paint = colours(len(names))
    low, span = points.min(axis=0), np.maximum(np.ptp(points, axis=0), 1e-12)
    placed = 8 + (points - low) / span * (side - 16)
    order = np.random.default_rng(0).permutation(len(points))  # no group lies on top of the others
    radius = 2.5 if len(points) > 500 else 3.5
    dots = "".join(
        f'<circle cx="{placed[row, 0]:.1f}" cy="{placed[row, 1]:.1f}" r="{radius}" fill="{paint[number[row]]}"/>'
        for row in order
    )
    shown = [str(name) for name in names] if len(names) <= LEGEND_MOST else []
    legend = "".join(
        f'<g transform="translate({10 + 170 * (one % 2)} {side + 16 + 18 * (one // 2)})">'
        f'<circle r="5" cy="-4" fill="{paint[one]}"/><text x="10">{escape(_short(name, 22))}</text></g>'
        for one, name in enumerate(shown)
    )
    height = side + (18 * math.ceil(len(shown) / 2) + 8 if shown else 0)
    return (
        f'<svg viewBox="0 0 {side} {height}" width="{side}" height="{height}" role="img" aria-label="{escape(title)}">'
        f'<g fill-opacity=".75">{dots}</g>{legend}</svg>'
    )


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure with its limits.

    Attributes:
        name: Of the encoder.
        value: The figure.
        low: Its lower limit; nan if there is none.
        high: Its upper limit.
        chance: The figure without knowledge, or None.
    """

    name: str
    value: float
    low: float
    high: float
    chance: float | None = None


def intervals(rows: Sequence[Interval], *, title: str, width: int = 420, names_px: int = 132) -> str:
    """Figures one above the other on one axis, with limits and a dashed mark at chance; their names are on the left."""
    numbers = [row.value for row in rows] + [row.chance for row in rows if row.chance is not None]
    numbers += [limit for row in rows for limit in (row.low, row.high) if math.isfinite(limit)]
    low, high, step = ticks(min(0.0, *numbers), max(numbers))
    left, right, top, pitch = names_px, 24, 6, 22
    height = top + pitch * len(rows) + 24

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (width - left - right)

    parts = []
    mark = low
    while mark <= high + step / 2:
        parts.append(
            f'<line class="grid" x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{top}" y2="{height - 20}"/>'
            f'<text x="{x(mark):.1f}" y="{height - 6}" text-anchor="middle">{_number(mark, step)}</text>'
        )
        mark += step
    for number, (row, paint) in enumerate(zip(rows, colours(len(rows)), strict=True)):
        y = top + pitch * (number + 0.5)
        parts.append(
            f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(_short(row.name, left // 7))}</text>'
        )
        if row.chance is not None:
            across = x(row.chance)
            parts.append(f'<path class="chance" d="M{across:.1f} {y - 9:.1f}v18"/>')
        if math.isfinite(row.low):
            parts.append(
                f'<line x1="{x(row.low):.1f}" x2="{x(row.high):.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{paint}" '
                'stroke-width="3"/>'
            )
        parts.append(f'<circle cx="{x(row.value):.1f}" cy="{y:.1f}" r="5" fill="{paint}"/>')
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point with a name.

    Attributes:
        name: Written beside it.
        x: Positive; the axis is logarithmic.
        y: The figure.
        own: Whether it stands out.
    """

    name: str
    x: float
    y: float
    own: bool = False


def named_points(points: Sequence[Point], *, title: str, x_title: str, y_title: str) -> str:
    """Points with names over a logarithmic axis, as a file of its own (with its colours in it)."""
    width, height, left, right, top, bottom = 640, 420, 64, 40, 24, 52
    exponents = [math.log10(point.x) for point in points]
    first, last = math.floor(min(exponents)), math.ceil(max(exponents))
    last = max(last, first + 1)
    low, high, step = ticks(min(point.y for point in points), max(point.y for point in points))

    def place(point: Point) -> tuple[float, float]:
        across = (math.log10(point.x) - first) / (last - first)
        return (
            left + across * (width - left - right),
            height - bottom - (point.y - low) / (high - low) * (height - top - bottom),
        )

    parts = [
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{(left + width - right) / 2}" y="{height - 10}" text-anchor="middle">{escape(x_title)}</text>',
        f'<text transform="translate(16 {(top + height - bottom) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_title)}</text>",
    ]
    for power in range(first, last + 1):
        across, _ = place(Point(name="", x=10.0**power, y=low))
        parts.append(
            f'<line x1="{across:.1f}" x2="{across:.1f}" y1="{top}" y2="{height - bottom}" stroke="#ddd"/>'
            f'<text x="{across:.1f}" y="{height - bottom + 18}" text-anchor="middle">{10**power:,}</text>'
        )
    mark = low
    while mark <= high + step / 2:
        _, up = place(Point(name="", x=10.0**first, y=mark))
        parts.append(
            f'<line x1="{left}" x2="{width - right}" y1="{up:.1f}" y2="{up:.1f}" stroke="#ddd"/>'
            f'<text x="{left - 8}" y="{up + 4:.1f}" text-anchor="end">{_number(mark, step)}</text>'
        )
        mark += step
    places = [place(point) for point in points]
    taken = [(across - 6, up - 6, across + 6, up + 6) for across, up in places]
    for point, (across, up) in zip(points, places, strict=True):
        paint, weight = ("#d55e00", "bold") if point.own else ("#0072b2", "normal")
        x, y, anchor = _beside(across, up, 7.2 * len(point.name), taken, width)
        parts.append(
            f'<circle cx="{across:.1f}" cy="{up:.1f}" r="5" fill="{paint}"/>'
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(point.name)}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="13" fill="#222" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>\n"
    )


def _beside(
    across: float, up: float, long: float, taken: list[tuple[float, float, float, float]], width: int
) -> tuple[float, float, str]:
    """Where a name of that length hides no other name or point, and how it is anchored; its box is taken then."""
    ways = [("start", 9, 4, 0.0), ("end", -9, 4, 1.0), ("middle", 0, -11, 0.5), ("middle", 0, 19, 0.5)]
    choices: list[tuple[int, int, tuple[float, float, str], tuple[float, float, float, float]]] = []
    for anchor, shift, down, part in ways:
        left = across + shift - part * long
        box = (left, up + down - 12, left + long, up + down + 3)
        hidden = sum(box[0] < x1 and x0 < box[2] and box[1] < y1 and y0 < box[3] for x0, y0, x1, y1 in taken)
        outside = box[2] > width or box[0] < 0
        choices.append((hidden + 9 * outside, len(choices), (across + shift, up + down, anchor), box))
    _, _, best, box = min(choices)
    taken.append(box)
    return best


def ticks(low: float, high: float, most: int = 6) -> tuple[float, float, float]:
    """Round limits around two numbers and the step between marks."""
    span = max(high - low, 1e-6)
    rough = span / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough)
    first, last = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return first, last if last > first else first + step, step


def _number(value: float, step: float) -> str:
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:.{decimals}f}".replace("-0.0", "0.0") if abs(value) < step / 2 else f"{value:.{decimals}f}"


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
