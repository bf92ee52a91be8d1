"""Draw the chart of `docs/performance.md` from the JSON that `chain.py --output` left: chart.py FOUND.json OUT.svg."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

WIDTH_PX = 960
_LEFT_PX, _RIGHT_PX = 270, 120
_BAR_PX, _GAP_PX, _TITLE_PX = 20, 10, 44

_STAGES = (
    ("floor_decode_ms", "decode"),
    ("step_measure_ms", "measure"),
    ("step_normalise_ms", "normalise"),
    ("floor_encode_ms", "encode"),
)
_TOOLS = (
    ("floor_ms", "codec floor"),
    ("chain_slide_fit_ms", "this chain, fit: slide"),
    ("chain_patch_fit_ms", "this chain, fit: patch"),
    ("hs2p_ms", "hs2p, not normalised"),
    ("openslide_ms", "OpenSlide + torchstain + Pillow"),
    ("tiatoolbox_ms", "TIAToolbox, Macenko"),
)
_STYLE = """
    .paper { fill: #ffffff; }
    .text { fill: #14202b; }
    .note { fill: #3d4a56; font-size: 12px; }
    .title { fill: #14202b; font-weight: bold; }
    .axis { stroke: #7b8794; stroke-width: 1; }
    .decode { fill: #33536f; }
    .measure { fill: #9a6a12; }
    .normalise { fill: #a3417c; }
    .encode { fill: #2f6b3a; }
    .rest { fill: #7b8794; }
    .tool { fill: #33536f; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #12171c; }
      .text, .title { fill: #f0f4f8; }
      .note { fill: #c1cad3; }
      .decode, .tool { fill: #86a9c9; }
      .measure { fill: #e0b35a; }
      .normalise { fill: #d98abb; }
      .encode { fill: #7fc08b; }
      .rest { fill: #8894a0; }
    }
"""


@dataclass(frozen=True)
class Bar:
    """One bar: its name, its parts as (class, ms), and what is written at its end."""

    name: str
    parts: tuple[tuple[str, float], ...]
    note: str

    @property
    def ms(self) -> float:
        """Its length."""
        return sum(length for _, length in self.parts)


def stage_bars(figures: Mapping[str, Any], ratios: Mapping[str, Any]) -> list[Bar]:
    """The floor, and the chain with a fit per slide and per patch, by what is done."""
    floor = tuple((kind, float(figures[f"floor_{kind}_ms"])) for kind in ("decode", "encode"))
    bars = [Bar("codec floor", floor, f"{sum(ms for _, ms in floor):.2f} ms")]
    for fit in ("slide", "patch"):
        whole = float(figures[f"chain_{fit}_fit_ms"])
        normalise = figures["step_normalise_ms" if fit == "slide" else "step_normalise_fit_patch_ms"]
        parts = [(kind, float(figures[key])) for key, kind in _STAGES]
        parts = [(kind, float(normalise) if kind == "normalise" else ms) for kind, ms in parts]
        parts.append(("rest", max(0.0, whole - sum(ms for _, ms in parts))))
        over = ratios[f"chain_over_floor_{fit}_fit"]
        bars.append(Bar(f"this chain, fit: {fit}", tuple(parts), f"{whole:.2f} ms, {over:.2f} × floor"))
    return bars


def tool_bars(figures: Mapping[str, Any]) -> list[Bar]:
    """Floor, chain and the other tools that were there."""
    bars = []
    for key, name in _TOOLS:
        ms = figures.get(key)
        if isinstance(ms, float):
            bars.append(Bar(name, (("tool", ms),), f"{ms:.2f} ms, {1000 / ms:,.0f}/s"))
    return bars


def chart(figures: Mapping[str, Any], ratios: Mapping[str, Any]) -> str:
    """The chart as SVG."""
    panels = [
        ("Where the time of a patch goes (ms of CPU time)", stage_bars(figures, ratios)),
        ("Beside other tools (ms of CPU time per patch; patches per second and core)", tool_bars(figures)),
    ]
    lines: list[str] = []
    top = 16
    for title, bars in panels:
        lines += _panel(title, bars, top)
        top += _TITLE_PX + len(bars) * (_BAR_PX + _GAP_PX) + 14
        if bars[0].parts[0][0] != "tool":
            lines += _legend(top - 10)
            top += 30
    told = "; ".join(f"{bar.name} {bar.note}" for _, bars in panels for bar in bars)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {top}" width="{WIDTH_PX}" height="{top}" '
        f'role="img" aria-labelledby="title desc" font-family="Helvetica, Arial, \'DejaVu Sans\', sans-serif" '
        f'font-size="14">\n  <title id="title">What a patch costs</title>\n  <desc id="desc">{escape(told)}.</desc>\n'
        f"  <style>{_STYLE}  </style>\n"
        f'  <rect class="paper" width="{WIDTH_PX}" height="{top}"/>\n'
    )
    return head + "".join(f"  {line}\n" for line in lines) + "</svg>\n"


def _panel(title: str, bars: Sequence[Bar], top: int) -> list[str]:
    # What is written at the end of the longest bar still has to fit.
    per_ms = (WIDTH_PX - _LEFT_PX - _RIGHT_PX - 40) / max(bar.ms for bar in bars)
    lines = [f'<text class="title" x="20" y="{top + 20}">{escape(title)}</text>']
    for number, bar in enumerate(bars):
        y = top + _TITLE_PX + number * (_BAR_PX + _GAP_PX)
        lines.append(f'<text class="text" x="{_LEFT_PX - 10}" y="{y + 15}" text-anchor="end">{escape(bar.name)}</text>')
        x = float(_LEFT_PX)
        for kind, ms in bar.parts:
            lines.append(f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{ms * per_ms:.1f}" height="{_BAR_PX}"/>')
            x += ms * per_ms
        lines.append(f'<text class="note" x="{x + 8:.1f}" y="{y + 15}">{escape(bar.note)}</text>')
    bottom = top + _TITLE_PX + len(bars) * (_BAR_PX + _GAP_PX)
    lines.append(f'<line class="axis" x1="{_LEFT_PX}" y1="{top + _TITLE_PX - 6}" x2="{_LEFT_PX}" y2="{bottom}"/>')
    return lines


def _legend(top: int) -> list[str]:
    lines = []
    for number, kind in enumerate((*(kind for _, kind in _STAGES), "rest")):
        x = _LEFT_PX + number * 110
        words = "all else" if kind == "rest" else kind
        lines.append(f'<rect class="{kind}" x="{x}" y="{top}" width="12" height="12"/>')
        lines.append(f'<text class="note" x="{x + 18}" y="{top + 11}">{words}</text>')
    return lines


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("found", type=Path)
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    found = json.loads(arguments.found.read_text(encoding="utf-8"))
    arguments.picture.write_text(chart(found["figures"], found["ratios"]), encoding="utf-8")


if __name__ == "__main__":
    main()
