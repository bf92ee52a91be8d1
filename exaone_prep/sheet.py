"""The contact sheet: slide overviews with their kept patches, and patches before and after normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from exaone_prep import layout
from exaone_prep.codec import decode
from exaone_prep.dataset import Dataset
from exaone_prep.ledger import GroupRecord, read_ledger
from exaone_prep.outcomes import read_surveys
from exaone_prep.parquet import read_parquet
from exaone_prep.pictures import read_slide_pictures
from exaone_prep.shards.sample import STAIN_STATUSES
from exaone_prep.survey import Pictures

OVERVIEW_PX: Final = 420
PATCH_PX: Final = 200
GAP_PX: Final = 12
TITLE_PX: Final = 46
SHOWN: Final = 4
_FROM_SURVEY: Final = (
    *("slide_id", "cohort", "outcome", "width_px", "level", "read_size_px", "effective_mpp", "footprint_px"),
    *("planned", "kept", *(f"stain_{status}" for status in STAIN_STATUSES)),
)
_INK: Final = (28, 32, 38)
_FAINT: Final = (96, 102, 110)
_FRAME: Final = (0, 114, 178)
_PAPER: Final = (255, 255, 255)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    survey: dict[str, Any]
    pictures: Pictures
    kept: NDArray[np.int64]
    """Level-0 positions of the committed samples, (N, 2)."""
    footprint_px: float
    pairs: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]


def contact_sheet(dataset: Dataset, slides: int = 6) -> Image.Image | None:
    """A picture of up to `slides` slides, one of each cohort first; None if no slide has a sample."""
    records = read_ledger(dataset.storage)
    chosen = _choose(read_surveys(dataset, records, _FROM_SURVEY), slides)
    groups = {row.slide_id: row.group for row in dataset.catalog.rows}
    by_group = {record.group: record for record in records}
    entries = [_entry(dataset, by_group[groups[row["slide_id"]]], row) for row in chosen]
    return _draw(dataset, [entry for entry in entries if entry is not None])


def _choose(surveys: pa.Table, count: int) -> list[dict[str, Any]]:
    """Slides that are done, in turn over the cohorts, those with most samples first."""
    done = surveys.filter(pc.equal(surveys.column("outcome"), "done"))
    done = done.sort_by([("cohort", "ascending"), ("kept", "descending"), ("slide_id", "ascending")])
    cohorts = [done.filter(pc.equal(done.column("cohort"), name)) for name in done.column("cohort").unique()]
    best = [cohort.slice(0, count).to_pylist() for cohort in cohorts]
    turns = [row for turn in range(count) for rows in best for row in rows[turn : turn + 1]]
    return turns[:count]


def _entry(dataset: Dataset, record: GroupRecord, survey: dict[str, Any]) -> _Entry | None:
    storage = dataset.storage
    pictures = read_slide_pictures(storage.read(layout.slides(record.group)), survey["slide_id"])
    if pictures is None:
        return None
    columns = ["slide_id", "x", "y", "shard", "image_offset", "image_size"]
    table = read_parquet(storage.read(layout.index(record.split, record.group)), columns)
    index = table.filter(pc.equal(table.column("slide_id"), survey["slide_id"])).to_pylist()
    places = {(row["x"], row["y"]): row for row in index}
    downsample = survey["footprint_px"] / survey["read_size_px"]
    pairs = []
    for raw, number in zip(pictures.patches, pictures.patch_numbers, strict=True):
        x, y = (round(float(value) * downsample) for value in pictures.positions[number])
        row = places.get((x, y))
        if row is not None:
            path = layout.shard(record.split, row["shard"])
            pairs.append((raw, decode(storage.read_range(path, row["image_offset"], row["image_size"]))))
    kept = np.array([(row["x"], row["y"]) for row in index], dtype=np.int64).reshape(-1, 2)
    return _Entry(survey=survey, pictures=pictures, kept=kept, footprint_px=survey["footprint_px"], pairs=pairs[:SHOWN])


def _draw(dataset: Dataset, entries: Sequence[_Entry]) -> Image.Image | None:
    if not entries:
        return None
    overviews = [_overview(entry) for entry in entries]
    pair_height = 2 * PATCH_PX + GAP_PX
    heights = [TITLE_PX + max(overview.height, pair_height) + 2 * GAP_PX for overview in overviews]
    width = OVERVIEW_PX + SHOWN * (PATCH_PX + GAP_PX) + 3 * GAP_PX
    sheet = Image.new("RGB", (width, sum(heights) + GAP_PX), _PAPER)
    pen = ImageDraw.Draw(sheet)
    y = GAP_PX
    for entry, overview, height in zip(entries, overviews, heights, strict=True):
        row = entry.survey
        pen.text((GAP_PX, y), f"{row['slide_id']}  ({row['cohort']})", fill=_INK, font=_font(18))
        # The font that Pillow ships has no µ.
        mpp = f"{row['effective_mpp']:.3g} um/px from level {row['level']}"
        text = f"{row['kept']} patches kept of {row['planned']} planned · {mpp} · stain: {_stain_words(row)}"
        pen.text((GAP_PX, y + 22), text, fill=_FAINT, font=_font(14))
        top = y + TITLE_PX
        sheet.paste(overview, (GAP_PX, top))
        for column, pair in enumerate(entry.pairs):
            left = OVERVIEW_PX + 3 * GAP_PX + column * (PATCH_PX + GAP_PX)
            for line, patch in enumerate(pair):
                small = Image.fromarray(patch).resize((PATCH_PX, PATCH_PX), Image.Resampling.BOX)
                sheet.paste(small, (left, top + line * (PATCH_PX + GAP_PX)))
        if entry.pairs:
            left = OVERVIEW_PX + 3 * GAP_PX
            after = "as stored" if dataset.manifest.stain.method == "none" else "after"
            _label(pen, (left + 4, top + 4), "before")
            _label(pen, (left + 4, top + PATCH_PX + GAP_PX + 4), after)
        y += height
    return sheet


def _overview(entry: _Entry) -> Image.Image:
    """The slide with its kept patches framed."""
    picture = Image.fromarray(entry.pictures.thumbnail)
    scale = min(OVERVIEW_PX / picture.width, OVERVIEW_PX * 1.4 / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(picture)
    per_level0 = size[0] / entry.survey["width_px"]
    for x, y in entry.kept:
        left, top = float(x) * per_level0, float(y) * per_level0
        side = entry.footprint_px * per_level0
        pen.rectangle((left, top, left + side - 1, top + side - 1), outline=_FRAME, width=1)
    pen.rectangle((0, 0, size[0] - 1, size[1] - 1), outline=(200, 204, 210))
    return picture


def _stain_words(row: dict[str, Any]) -> str:
    counts = {name: row[f"stain_{name}"] for name in STAIN_STATUSES}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "-"


def _label(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str) -> None:
    box = pen.textbbox(place, text, font=_font(13))
    pen.rectangle((box[0] - 3, box[1] - 2, box[2] + 3, box[3] + 2), fill=_PAPER)
    pen.text(place, text, fill=_INK, font=_font(13))


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)
