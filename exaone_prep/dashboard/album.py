"""Pictures of slides and samples of shards, as images for a page; the latest are kept."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from exaone_prep import layout
from exaone_prep.dashboard.view import View
from exaone_prep.drawing import BLUE, VERMILION
from exaone_prep.ledger import GroupRecord
from exaone_prep.parquet import open_parquet, read_parquet
from exaone_prep.pictures import read_slide_pictures
from exaone_prep.stain_picture import clouds_of, telling_pixels
from exaone_prep.stored_file import open_stored
from exaone_prep.survey import Pictures
from exaone_prep.survey_table import fit_of, read_survey

WIDE_PX: Final = 1200
"""Longest side of an overview on a page; small ones are enlarged up to `_LARGEST` times."""
SAMPLES: Final = 24
"""Of a shard on its page."""

_LARGEST: Final = 8
_SLIDES_KEPT: Final = 12
_TABLES_KEPT: Final = 16
_PLACES: Final = ("slide_id", "x", "y", "shard", "image_offset", "image_size")
_TYPES: Final = {"jpeg": "image/jpeg", "png": "image/png"}

T = TypeVar("T")
Picture = tuple[bytes, str]
"""An image and its media type."""


@dataclass(frozen=True, kw_only=True)
class Slide:
    """What there is to be seen of one slide.

    Attributes:
        row: Of `Committed.slides`.
        properties: Of the file, as the survey has them.
        pictures: With an overview of at most `WIDE_PX`; None where the slide could not be opened.
        kept: int64 (N, 2), level-0 positions of its samples.
        stored: Where the samples of `pictures.patches` lie, by their numbers; those that were dropped are missing.
    """

    row: dict[str, Any]
    properties: dict[str, str] = field(default_factory=dict)
    pictures: Pictures | None = None
    kept: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 2), np.int64))
    stored: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def planned(self) -> NDArray[np.int64]:
        """int64 (N, 2): level-0 positions of the planned patches."""
        if self.pictures is None or not self.row["read_size_px"]:
            return np.empty((0, 2), np.int64)
        # As samples are placed: rounded, not cut off.
        scale = self.row["footprint_px"] / self.row["read_size_px"]
        placed: NDArray[np.int64] = np.rint(self.pictures.positions * scale).astype(np.int64)
        return placed


class Album:
    """Reads what pages show, each thing once while it is looked at."""

    def __init__(self) -> None:
        self._slides: OrderedDict[Hashable, Slide] = OrderedDict()
        self._tables: OrderedDict[Hashable, pa.Table] = OrderedDict()
        self._mixing: OrderedDict[Hashable, list[int]] = OrderedDict()
        self._lock = threading.Lock()

    def slide(self, view: View, slide_id: str) -> Slide:
        """A slide of the catalog; `KeyError` for any other."""
        number = view.committed.number_of[slide_id]
        row = view.committed.slides.slice(number, 1).to_pylist()[0]
        record = view.committed.record_of.get(row["group"])
        if record is None:
            return Slide(row=row)
        return self._once(self._slides, (view.key, slide_id), _SLIDES_KEPT, lambda: _slide(view, row, record))

    def shard(self, view: View, split: str, name: str) -> pa.Table:
        """The index of a committed shard; `KeyError` for any other."""
        record = view.committed.shard_groups[split, name]
        number = [shard.name for shard in record.shards].index(name)

        def read() -> pa.Table:
            file = open_parquet(view.storage.read(layout.index(record.split, record.group)))
            return file.read_row_group(number, use_threads=False)

        return self._once(self._tables, (view.key, split, name), _TABLES_KEPT, read)

    def slides_per_shard(self, view: View, record: GroupRecord) -> list[int]:
        """How many slides each shard of a group holds, by its index."""

        def read() -> list[int]:
            table = read_parquet(view.storage.read(layout.index(record.split, record.group)), ["slide_id", "shard"])
            found = table.group_by("shard").aggregate([("slide_id", "count_distinct")])
            return [int(count) for count in found.column("slide_id_count_distinct").to_pylist()]

        return self._once(self._mixing, (view.key, record.group), 4 * _TABLES_KEPT, read)

    def _once(self, kept: OrderedDict[Hashable, T], key: Hashable, most: int, read: Callable[[], T]) -> T:
        with self._lock:
            if key in kept:
                kept.move_to_end(key)
                return kept[key]
        found = read()  # by two threads at a time, seldom, rather than one after the other, always
        with self._lock:
            kept[key] = found
            while len(kept) > most:
                kept.popitem(last=False)
        return found


def _slide(view: View, row: dict[str, Any], record: GroupRecord) -> Slide:
    slide_id = row["slide_id"]
    survey = read_survey(view.storage.read(layout.survey(record.group)), ["slide_id", "properties"])
    properties = dict(
        survey.filter(pc.equal(survey.column("slide_id"), slide_id)).column("properties")[0].as_py() or ()
    )
    with open_stored(view.storage, layout.slides(record.group)) as file:
        pictures = read_slide_pictures(file, slide_id)
    if pictures is None:
        return Slide(row=row, properties=properties)
    pictures = replace(pictures, thumbnail=_to_be_seen(pictures.thumbnail), mask=_to_be_seen(pictures.mask) > 0)
    slide = Slide(row=row, properties=properties, pictures=pictures)
    if not row["kept"]:
        return slide
    table = read_parquet(view.storage.read(layout.index(record.split, record.group)), _PLACES)
    own = table.filter(pc.equal(table.column("slide_id"), slide_id))
    kept = np.stack([own.column(axis).to_numpy() for axis in ("x", "y")], axis=-1).astype(np.int64)
    where = {place: number for number, place in enumerate(map(tuple, kept.tolist()))}
    stored = {}
    for shown, number in enumerate(pictures.patch_numbers.tolist()):
        place = where.get(tuple(slide.planned[number].tolist()))
        if place is not None:
            stored[shown] = own.slice(place, 1).to_pylist()[0]
    return replace(slide, kept=kept, stored=stored)


def _to_be_seen(picture: NDArray[Any]) -> NDArray[np.uint8]:
    image = Image.fromarray(picture.astype(np.uint8) * (255 if picture.dtype == np.bool_ else 1))
    smooth = picture.ndim == 3
    if larger := min(_LARGEST, WIDE_PX // max(image.size)):
        # Room for what is drawn over a small one.
        size = (image.width * larger, image.height * larger)
        image = image.resize(size, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)
    image.thumbnail((WIDE_PX, WIDE_PX), Image.Resampling.BOX if smooth else Image.Resampling.NEAREST)
    return np.asarray(image)


def overview(slide: Slide) -> Picture | None:
    """The slide's overview as JPEG."""
    return None if slide.pictures is None else _encoded(Image.fromarray(slide.pictures.thumbnail), "jpeg")


def mask_over(slide: Slide) -> Picture | None:
    """The outline of its tissue, to be laid over the overview."""
    if slide.pictures is None:
        return None
    mask = np.pad(slide.pictures.mask, 2)
    inner = mask.copy()
    for axis in (0, 1):
        for step in (-2, -1, 1, 2):
            inner &= np.roll(mask, step, axis=axis)
    picture = np.zeros((*mask.shape, 4), dtype=np.uint8)
    picture[mask & ~inner] = (0, 0, 0, 255)
    return _encoded(Image.fromarray(picture[2:-2, 2:-2]), "png")


def patches_over(slide: Slide) -> Picture | None:
    """Its planned patches, to be laid over the overview: kept ones are filled, dropped ones crossed."""
    if slide.pictures is None or not slide.row["footprint_px"]:
        return None
    height, width = slide.pictures.thumbnail.shape[:2]
    picture = Image.new("RGBA", (width, height))
    pen = ImageDraw.Draw(picture)
    scale = width / slide.row["width_px"]
    side = slide.row["footprint_px"] * scale
    pen_px = 2 if side >= 24 else 1
    kept = {tuple(place) for place in slide.kept.tolist()}
    for place in map(tuple, slide.planned.tolist()):
        left, top = (round(value * scale) for value in place)
        right, bottom = (round(value * scale + side) - 1 for value in place)
        box = (left, top, max(left, right), max(top, bottom))
        if place in kept:
            pen.rectangle(box, fill=(*BLUE, 70), outline=(*BLUE, 255), width=pen_px)
        else:
            pen.rectangle(box, outline=(*VERMILION, 255), width=pen_px)
            pen.line(box, fill=(*VERMILION, 255), width=pen_px)
    return _encoded(picture, "png")


def cloud(slide: Slide, view: View, number: int) -> Picture | None:
    """One of the two clouds of its pixels in optical density; None where no stain was looked for."""
    fit = fit_of(slide.row)
    if slide.pictures is None or fit is None:
        return None
    picture, _ = clouds_of(*telling_pixels(slide.pictures, fit), fit, view.dataset.reference)[number]
    return _encoded(picture, "png")


def patch_before(slide: Slide, number: int) -> Picture | None:
    """One of the patches that the survey kept, as scanned."""
    if slide.pictures is None or not 0 <= number < len(slide.pictures.patches):
        return None
    return _encoded(Image.fromarray(slide.pictures.patches[number]), "png")


def patch_after(slide: Slide, view: View, number: int) -> Picture | None:
    """The same as it is stored; None where it was dropped."""
    place = slide.stored.get(number)
    if place is None:
        return None
    return sample(view, view.committed.record_of[slide.row["group"]].split, place)


def sample(view: View, split: str, row: dict[str, Any]) -> Picture:
    """The image of a sample, from its shard, by the offset in the index."""
    data = view.storage.read_range(layout.shard(split, row["shard"]), row["image_offset"], row["image_size"])
    return data, _TYPES[view.dataset.manifest.codec.format]


def drawn(samples: int, number: int) -> list[int]:
    """Rows of a shard for its `number`-th contact sheet, in their order."""
    chosen = np.random.default_rng(number).choice(samples, min(SAMPLES, samples), replace=False)
    return sorted(int(row) for row in chosen)


def by_chance(samples: int, kept: NDArray[np.int64]) -> float:
    """How many slides a shard of so many samples would hold, drawn at random from slides with so many each."""
    total = kept.sum()
    return float((1 - (1 - min(1.0, samples / total)) ** kept).sum()) if total else 0.0


def _encoded(image: Image.Image, kind: str) -> Picture:
    sink = io.BytesIO()
    image.save(sink, kind, **({"quality": 85} if kind == "jpeg" else {}))
    return sink.getvalue(), _TYPES[kind]
