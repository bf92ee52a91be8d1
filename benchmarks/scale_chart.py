"""Draw the chart of `docs/scale.md` from the model: scale_chart.py OUT.svg."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, log10
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

import numpy as np
from scale_model import MEASURED, NO_TROUBLE, Corpus, Site, Trouble, build

WORKERS: Final = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 400, 544, 700, 1000)
SEEDS: Final = range(9)

_WIDTH_PX, _HEIGHT_PX = 960, 430
_TOP_PX, _BOTTOM_PX = 56, 360
_STYLE = """
    .paper { fill: #ffffff; }
    .text { fill: #14202b; }
    .title { fill: #14202b; font-weight: bold; }
    .note { fill: #3d4a56; font-size: 12px; }
    .axis { stroke: #7b8794; stroke-width: 1; fill: none; }
    .grid { stroke: #d5dbe1; stroke-width: 1; fill: none; }
    .line { fill: none; stroke-width: 2; }
    .a { stroke: #33536f; } .b { stroke: #a3417c; } .c { stroke: #2f6b3a; } .d { stroke: #9a6a12; }
    .ideal { stroke: #7b8794; stroke-dasharray: 5 4; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #12171c; }
      .text, .title { fill: #f0f4f8; }
      .note { fill: #c1cad3; }
      .grid { stroke: #313b45; }
      .a { stroke: #86a9c9; } .b { stroke: #d98abb; } .c { stroke: #7fc08b; } .d { stroke: #e0b35a; }
    }
"""


@dataclass(frozen=True)
class Line:
    """A named line: its class, what it is called, and a value for each of `WORKERS`."""

    kind: str
    name: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """Lines over the number of workers, in logarithms; both limits of the values are powers of ten."""

    title: str
    unit: str
    low: float
    high: float
    lines: tuple[Line, ...]


def hours(corpus: Corpus, site: Site, trouble: Trouble) -> tuple[float, ...]:
    """Median over `SEEDS` for each number of workers."""
    rates = MEASURED["40x to 20x", "slide"]
    return tuple(
        float(np.median([build(corpus, rates, replace(site, workers=some), trouble, seed).wall_s for seed in SEEDS]))
        / 3600
        for some in WORKERS
    )


def panels() -> tuple[Panel, Panel]:
    """Hours of a build, and what of the paid time is work."""
    corpus, site = Corpus(), Site(workers=1)
    small = replace(corpus, slides_per_group=16)
    roomy = replace(site, store_bytes_s=inf)
    smooth, rough = hours(corpus, roomy, NO_TROUBLE), hours(corpus, roomy, Trouble())
    rough_small = hours(small, roomy, Trouble())
    alone = smooth[0]
    ideal = tuple(alone / some for some in WORKERS)
    first = Panel(
        f"Hours of a build, workers of {site.cores} cores",
        "h",
        0.01,
        100.0,
        (
            Line("ideal", "one worker's time, divided", ideal),
            Line("d", "store of 1.25 GB/s", hours(corpus, replace(site, store_bytes_s=1.25e9), Trouble())),
            Line("b", "store of 12.5 GB/s", hours(corpus, site, Trouble())),
            Line("a", "store without a limit", rough),
        ),
    )
    second = Panel(
        "Share of paid time that is work, store without a limit",
        "%",
        10.0,
        100.0,
        (
            Line("c", "no trouble", _percent(alone, smooth)),
            Line("a", "stragglers, failures", _percent(alone, rough)),
            Line("b", "the same, groups of 16 slides", _percent(alone, rough_small)),
        ),
    )
    return first, second


def _percent(alone: float, some: Sequence[float]) -> tuple[float, ...]:
    return tuple(100 * alone / (taken * workers) for taken, workers in zip(some, WORKERS, strict=True))


def chart(left: Panel, right: Panel) -> str:
    """Both panels as SVG."""
    lines = [*_drawn(left, 60, 455), *_drawn(right, 545, 940)]
    told = "; ".join(
        f"{panel.title}: {line.name} {line.values[0]:.3g} {panel.unit} with 1 worker, {line.values[-1]:.3g} with 1,000"
        for panel in (left, right)
        for line in panel.lines
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH_PX} {_HEIGHT_PX}" width="{_WIDTH_PX}" '
        f'height="{_HEIGHT_PX}" role="img" aria-labelledby="title desc" '
        f'font-family="Helvetica, Arial, \'DejaVu Sans\', sans-serif" font-size="13">\n'
        f'  <title id="title">34,795 slides on 1 to 1,000 workers</title>\n  <desc id="desc">{escape(told)}.</desc>\n'
        f'  <style>{_STYLE}  </style>\n  <rect class="paper" width="{_WIDTH_PX}" height="{_HEIGHT_PX}"/>\n'
        + "".join(f"  {line}\n" for line in lines)
        + "</svg>\n"
    )


def _drawn(panel: Panel, left: int, right: int) -> list[str]:
    def x(workers: float) -> float:
        return left + (right - left) * log10(workers) / log10(WORKERS[-1])

    def y(value: float) -> float:
        share = log10(value / panel.low) / log10(panel.high / panel.low)
        return _BOTTOM_PX - (_BOTTOM_PX - _TOP_PX) * min(1.0, max(0.0, share))

    lines = [f'<text class="title" x="{left - 40}" y="24">{escape(panel.title)}</text>']
    for power in range(round(log10(panel.low)), round(log10(panel.high)) + 1):
        height = y(10.0**power)
        lines.append(f'<path class="grid" d="M{left} {height:.1f}H{right}"/>')
        words = f"{10.0**power:g} {panel.unit}"
        lines.append(f'<text class="note" x="{left - 6}" y="{height + 4:.1f}" text-anchor="end">{words}</text>')
    for workers in (1, 10, 100, 1000):
        lines.append(f'<path class="grid" d="M{x(workers):.1f} {_TOP_PX}V{_BOTTOM_PX}"/>')
        place = f'x="{x(workers):.1f}" y="{_BOTTOM_PX + 17}" text-anchor="middle"'
        lines.append(f'<text class="note" {place}>{workers:,}</text>')
    lines.append(f'<path class="axis" d="M{left} {_TOP_PX}V{_BOTTOM_PX}H{right}"/>')
    lines.append(f'<text class="note" x="{right}" y="{_BOTTOM_PX + 34}" text-anchor="end">workers</text>')
    for number, line in enumerate(panel.lines):
        points = " ".join(f"{x(w):.1f},{y(v):.1f}" for w, v in zip(WORKERS, line.values, strict=True))
        lines.append(f'<polyline class="line {line.kind}" points="{points}"/>')
        top = _BOTTOM_PX + 34 + 16 * (number // 2) + 12
        across = left - 40 + 210 * (number % 2)
        lines.append(f'<path class="line {line.kind}" d="M{across} {top}h22"/>')
        lines.append(f'<text class="note" x="{across + 28}" y="{top + 4}">{escape(line.name)}</text>')
    return lines


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.parse_args().picture.write_text(chart(*panels()), encoding="utf-8")


if __name__ == "__main__":
    main()
