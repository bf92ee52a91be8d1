"""The pictures of the report, each a file of its own."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from PIL import Image

from exaone_train.charts import Interval, intervals, scatter
from exaone_train.collapse.pictures import tsne
from exaone_train.collapse.table import FeatureTable, subsample
from reproduction.contrast import Estimate
from reproduction.datasets import index
from reproduction.design import HELD_OUT, PATCH_PX, Places

_STYLE = (
    "text{font:12px sans-serif;fill:#222}.head{font-weight:bold;font-size:14px}.grid{stroke:#ddd}"
    ".chance{stroke:#555;stroke-width:2;stroke-dasharray:3 2}"
)
_MAP_PATCHES = 900
_MAP_PX = 320
_LEGEND_PX = 80
_PER_LAB = 8
_GAP_PX = 6


def _sheet(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def maps(tables: Mapping[str, FeatureTable]) -> str:
    """A row per encoder: its features of the same patches by t-SNE, coloured by laboratory and by tissue."""
    parts, side, row_px = [], _MAP_PX, _MAP_PX + _LEGEND_PX + 30
    for row, (title, table) in enumerate(tables.items()):
        some = subsample(table, _MAP_PATCHES, seed=0)
        points = tsne(some, seed=0)
        for column, (by, group) in enumerate((("laboratory", some.centre), ("tissue", some.label))):
            if group is None:
                raise ValueError(f"the patches have no {by}")
            left, top = 10 + column * (side + 40), row * row_px
            parts.append(
                f'<text class="head" x="{left}" y="{top + 20}">{escape(title)}, by {by}</text>'
                f'<g transform="translate({left} {top + 30})">{scatter(points, group, title=f"{title}, by {by}")}</g>'
            )
    return _sheet(2 * side + 60, len(tables) * row_px, "Features by t-SNE", parts)


def figures(measures: Mapping[str, tuple[Mapping[str, Estimate], float | None]]) -> str:
    """A block per measure: each encoder's figure with its 95 % interval, and chance."""
    parts, top = [], 0
    for title, (estimates, chance) in measures.items():
        rows = []
        for name, one in estimates.items():
            low, high = one.interval
            rows.append(Interval(name=name, value=one.value, low=low, high=high, chance=chance))
        chart = intervals(rows, title=title, width=640, names_px=200)
        height = 22 * len(rows) + 60
        parts.append(
            f'<text class="head" x="10" y="{top + 18}">{escape(title)}</text>'
            f'<g transform="translate(0 {top + 26})">{chart}</g>'
        )
        top += height
    return _sheet(660, top, "Measures of the encoders", parts)


def montage(places: Places, names: Sequence[str]) -> Image.Image:
    """The same held-out patches in each data set, side by side; a row for every laboratory."""
    columns = ["slide_id", "cohort", "x", "y"]
    rows = index(places, names[0], HELD_OUT).select(columns).to_pylist()
    labs = sorted({row["cohort"] for row in rows})
    chosen = {lab: [row for row in rows if row["cohort"] == lab][:_PER_LAB] for lab in labs}
    block_px = _PER_LAB * PATCH_PX + _GAP_PX
    sheet = Image.new("RGB", (len(names) * block_px - _GAP_PX, len(labs) * PATCH_PX), "white")
    for block, name in enumerate(names):
        there = {tuple(row[column] for column in columns): row for row in index(places, name, HELD_OUT).to_pylist()}
        for down, lab in enumerate(labs):
            for across, row in enumerate(chosen[lab]):
                patch = _image(places, name, there[tuple(row.values())])
                sheet.paste(patch, (block * block_px + across * PATCH_PX, down * PATCH_PX))
    return sheet


def _image(places: Places, name: str, row: Mapping[str, Any]) -> Image.Image:
    with (places.data(name) / "shards" / HELD_OUT / row["shard"]).open("rb") as shard:
        shard.seek(row["image_offset"])
        return Image.open(io.BytesIO(shard.read(row["image_size"])))
