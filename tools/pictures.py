"""`make pictures`: draw pictures of `docs` from generated tissue, the same ones every time."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from exaone_prep import stain
from exaone_prep.drawing import BLUE, FAINT, INK, PAPER, RULE, VERMILION, arrow, font_of, paragraph
from exaone_prep.phantom.cells import populate
from exaone_prep.phantom.layout import lay_out
from exaone_prep.phantom.noise import textures
from exaone_prep.phantom.nuclei import library
from exaone_prep.phantom.optics import scanner_of, stains_of
from exaone_prep.phantom.paint import Scene, paint
from exaone_prep.stain.density import OD_TABLE
from exaone_prep.stain.tables import correction
from exaone_prep.stain_cloud import RED_BLUE, RED_GREEN, Arrow, arrows_of, cloud, kept, plane_of
from exaone_prep.stain_picture import stages

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"
Rgb = NDArray[np.uint8]

MPP = 0.5
LABS = (1, 2)
_SLIDE_PX = (2048, 1536)
_REGION = (400, 1540, 1060, 470)  # top, left, height, width: a piece of tissue and glass beside it
_PATCH = np.s_[140:360, 70:290]
_SIDE = 220
_GAP = 14
_TITLE = 30
_EDGE = 12
_PALETTES = (256, 192, 128, 96, 64, 32)
_BYTES = 120_000
_STEP = 37  # one in which a crop is solarised


@cache
def laboratories() -> tuple[Rgb, Rgb]:
    """The same tissue as two laboratories would stain and scan it, uint8 (1060, 470, 3) each."""
    key, surfaces, sprites = (0, 7, 0), textures(0, MPP), library(0, MPP)
    layout = lay_out(
        key, width_px=_SLIDE_PX[0], height_px=_SLIDE_PX[1], mpp=MPP, tissue="glandular", pens=0, unsharp=False
    )
    cells = populate(layout, sprites, key)
    one, other = (
        paint(
            Scene(
                layout=layout,
                cells=cells,
                textures=surfaces,
                library=sprites,
                stains=stains_of(lab, 0),
                scanner=scanner_of(lab, 0),
                offset=(0, 0),
            ),
            *_REGION,
        )
        for lab in LABS
    )
    return one, other


def two_laboratories() -> Image.Image:
    """Before and after, the same tissue from two laboratories."""
    left = 120
    page, pen = _page(left + 2 * _SIDE + _GAP, _TITLE + 2 * _SIDE + _GAP)
    for column, name in enumerate(("before", "after")):
        pen.text((left + column * (_SIDE + _GAP), 4), name, fill=INK, font=font_of(17))
    for row, region in enumerate(laboratories()):
        top = _TITLE + row * (_SIDE + _GAP)
        patch = region[_PATCH][None]
        after = stain.normalize(patch, fit=stain.fit(region)).patches
        pen.text((0, top + _SIDE // 2 - 10), f"laboratory {'AB'[row]}", fill=INK, font=font_of(17))
        for column, image in enumerate((patch[0], after[0])):
            page.paste(Image.fromarray(image), (left + column * (_SIDE + _GAP), top))
    return page


def two_stains() -> Image.Image:
    """A patch taken apart into haematoxylin and eosin."""
    region = laboratories()[0]
    done = stages(region[_PATCH][None], stain.fit(region), stain.MACENKO_REFERENCE)
    sign = 44
    page, pen = _page(3 * _SIDE + 2 * sign, _TITLE + _SIDE)
    names = ("normalised", "haematoxylin alone", "eosin alone")
    for number, (name, image) in enumerate(zip(names, done.columns[1:], strict=True)):
        left = number * (_SIDE + sign)
        pen.text((left, 4), name, fill=INK, font=font_of(17))
        page.paste(Image.fromarray(image[0]), (left, _TITLE))
    for number, mark in enumerate("=+"):
        middle = (number + 1) * (_SIDE + sign) - sign // 2, _TITLE + _SIDE // 2
        pen.text(middle, mark, fill=INK, font=font_of(30), anchor="mm")
    return page


def step_by_step() -> Image.Image:
    """From pixels to stain vectors in four clouds."""
    region = laboratories()[0]
    pixels = region.reshape(-1, 3)[::3]
    fit = stain.fit(region)
    assert fit.stain_matrix is not None
    assert fit.max_concentration is not None
    plane, reach_od, side = plane_of(fit.stain_matrix), 2.0, 205
    counted = kept(pixels)
    arrows = arrows_of(fit.stain_matrix, fit.max_concentration)
    pictures = (
        (
            "1. Each pixel is a point",
            "Right: it absorbs more red light. Up: more green light. Glass is at the corner.",
            _dots(pixels, reach_od, side),
        ),
        (
            "2. Leave out the pale",
            "Pixels nearly as bright as glass (OD below 0.15) say nothing about a stain.",
            cloud(counted, RED_GREEN, reach_od=reach_od, side_px=side),
        ),
        (
            "3. Find the borders",
            "The same, seen flat. One pixel in a hundred lies above the fan, one below it.",
            _fan(counted, fit, reach_od, side),
        ),
        (
            "4. Two stains",
            "An arrow's direction is a stain's colour; its length the strength that one pixel in a hundred exceeds.",
            cloud(
                counted,
                plane,
                [Arrow(name=name, tip_od=a.tip_od, colour=a.colour) for name, a in zip("HE", arrows, strict=True)],
                reach_od=reach_od,
                side_px=side,
            ),
        ),
    )
    page, pen = _page(4 * side + 3 * _GAP, _TITLE + side + 84)
    for number, (title, words, image) in enumerate(pictures):
        left = number * (side + _GAP)
        pen.text((left, 4), title, fill=INK, font=font_of(16))
        page.paste(image, (left, _TITLE))
        paragraph(pen, (left, _TITLE + side + 8), words, side, font_of(14), FAINT)
    return page


def nine_tables() -> Image.Image:
    """How a 3×3 matrix on optical densities becomes nine tables, followed for one pixel."""
    region = laboratories()[0]
    fit = stain.fit(region)
    matrix = correction(fit, stain.MACENKO_REFERENCE)
    # A pixel of the pink ground, to follow.
    flat = region[_PATCH].reshape(-1, 3)
    given = flat[int(np.argsort(flat.astype(int).sum(axis=1), kind="stable")[len(flat) // 3])]
    plot, left, top, step_x, step_y = 112, 176, 96, 170, 140
    page, pen = _page(left + 3 * step_x + 92, top + 3 * step_y - 24)
    channels = ("red", "green", "blue")
    pen.text((0, 0), "a pixel", fill=INK, font=font_of(17))
    page.paste(tuple(int(value) for value in given), (0, 26, 80, 62))
    pen.text((left + 3 * step_x, 0), "after", fill=INK, font=font_of(17))
    made = []
    for row, out in enumerate(channels):
        y = top + row * step_y
        pen.text((left - 34, y + plot // 2), f"new {out} = 240", fill=INK, font=font_of(17), anchor="rm")
        product = 240.0
        for column, name in enumerate(channels):
            x = left + column * step_x
            entries = np.exp(-matrix[row][column] * OD_TABLE)
            factor = float(entries[given[column]])
            product *= factor
            if row == 0:
                pen.text((x + plot // 2, top - 42), f"{name} {given[column]}", fill=INK, font=font_of(17), anchor="mm")
                arrow(pen, np.array([x + plot / 2, top - 30]), np.array([x + plot / 2, top - 4]), colour=INK)
            pen.text((x - 18, y + plot // 2), "x", fill=INK, font=font_of(18), anchor="mm")
            _plot(pen, (x, y), plot, entries, int(given[column]), factor)
        made.append(min(255, int(product)))
        x = left + 3 * step_x
        pen.text((x - 32, y + plot // 2), "=", fill=INK, font=font_of(18), anchor="mm")
        pen.text((x, y + plot // 2), str(made[-1]), fill=INK, font=font_of(20), anchor="lm")
    after = stain.normalize(given.reshape(1, 1, 1, 3), fit=fit).patches.ravel().tolist()
    if after != made:
        raise SystemExit(f"The picture says {made}, normalisation {after}.")
    page.paste(tuple(made), (left + 3 * step_x, 26, left + 3 * step_x + 80, 62))
    return page


def set_aside() -> Image.Image:
    """Three slides and their clouds: one is H&E."""
    region = laboratories()[0]
    dark = np.zeros_like(region)
    dark[..., 2] = 255 - region[..., 0]
    wrong = np.asarray(Image.fromarray(region).convert("YCbCr"))
    cases = (
        ("H&E", region, False, RED_GREEN, 2.5),
        ("fluorescence", dark, True, RED_BLUE, 6.0),
        ("wrong colours in the file", wrong, False, RED_GREEN, 2.5),
    )
    side, words_px, patch = 250, 64, 150
    page, pen = _page(3 * side + 2 * 24, _TITLE + patch + _GAP + side + words_px)
    for number, (name, image, background_dark, view, reach_od) in enumerate(cases):
        left = number * (side + 24)
        fit = stain.fit(image)
        fit = fit.judged(stain.verdict_slide(fit, dark_background=background_dark))
        own = arrows_of(fit.stain_matrix, fit.max_concentration) if fit.stain_matrix and fit.max_concentration else ()
        pen.text((left, 4), name, fill=INK, font=font_of(17))
        page.paste(Image.fromarray(image[_PATCH][:patch]).resize((_SIDE, patch)), (left, _TITLE))
        pixels = image.reshape(-1, 3)[::3]
        page.paste(
            cloud(pixels, view, own, reach_od=reach_od, side_px=side),
            (left, _TITLE + patch + _GAP),
        )
        verdict = stain.SENTENCES[fit.reason]
        words = "Measured." if fit.status == "ok" else f"Not H&E: {verdict}."
        paragraph(pen, (left, _TITLE + patch + _GAP + side + 8), words, side, font_of(14), INK)
    return page


def crops() -> Image.Image:
    """What each preset makes of two patches: as they are, two global crops, eight local ones."""
    import torch  # seconds that other pictures need not wait for

    from exaone_train.augment import MEAN, STD, MultiCrop
    from exaone_train.chance import PRESETS
    from exaone_train.config import CropConfig

    region = laboratories()[1]
    raw = np.stack([region[top : top + 256, 70:326] for top in (140, 420)])
    normalized = stain.normalize(raw, fit=stain.fit(region)).patches
    mean, std = torch.tensor(MEAN)[:, None], torch.tensor(STD)[:, None]
    large, gap = 124, 6
    small, row = (large - gap) // 2, large + gap
    block = _TITLE + 2 * row + _GAP
    page, pen = _page(3 * row + 4 * (small + gap) - gap, len(PRESETS) * block - _GAP - gap)
    for number, preset in enumerate(PRESETS):
        patches = normalized if preset == "normalized" else raw
        made = MultiCrop(CropConfig.model_validate({"preset": preset}), seed=0, batch_size=2)
        views = made(torch.from_numpy(patches), step=_STEP)
        pen.text((0, number * block + 4), preset, fill=INK, font=font_of(17))
        for patch in range(2):
            top = number * block + _TITLE + patch * row
            light = [(view[patch].flatten(1) * std + mean).view_as(view[patch]) for view in views]
            shown = [patches[patch], *(np.rint(255 * one.permute(1, 2, 0).numpy()).astype(np.uint8) for one in light)]
            for place, image in enumerate(shown):
                across, down = divmod(max(place - 3, 0), 2)
                x, y = min(place, 3) * row + across * (small + gap), top + down * (small + gap)
                side = large if place < 3 else small
                page.paste(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS), (x, y))
    return page


PICTURES: dict[str, Callable[[], Image.Image]] = {
    "two-laboratories.png": two_laboratories,
    "two-stains.png": two_stains,
    "step-by-step.png": step_by_step,
    "nine-tables.png": nine_tables,
    "set-aside.png": set_aside,
    "crops.jpg": crops,
}


def main() -> None:
    """Write all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--only", choices=PICTURES, help="one picture alone")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    for name in [arguments.only] if arguments.only else PICTURES:
        picture = PICTURES[name]()
        data = as_jpeg(picture) if name.endswith(".jpg") else as_png(picture)
        (out / name).write_bytes(data)
        print(f"{len(data) // 1000:4} kB  {name}")


def as_jpeg(picture: Image.Image) -> bytes:
    """For what is nearly all tissue, whose colours matter."""
    buffer = io.BytesIO()
    ImageOps.expand(picture, _EDGE, PAPER).save(buffer, "JPEG", quality=82, optimize=True)
    return buffer.getvalue()


def as_png(picture: Image.Image) -> bytes:
    """The picture with as many colours as fit into its bytes: tissue has noise that PNG cannot make smaller."""
    framed = ImageOps.expand(picture, _EDGE, PAPER)
    data = b""
    for colours in _PALETTES:
        buffer = io.BytesIO()
        framed.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        data = buffer.getvalue()
        if len(data) <= _BYTES:
            break
    return data


def _page(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    page = Image.new("RGB", (width, height), PAPER)
    return page, ImageDraw.Draw(page)


def _dots(pixels: Rgb, reach_od: float, side: int) -> Image.Image:
    """Each pixel as a dot of its own colour."""
    page = np.asarray(cloud(np.empty((0, 3), np.uint8), RED_GREEN, reach_od=reach_od, side_px=side)).copy()
    spots = RED_GREEN.place(OD_TABLE[pixels], reach_od=reach_od, side_px=side).astype(int)
    inside = ((spots >= 1) & (spots < side - 2)).all(axis=1)
    x, y = spots[inside].T
    page[y, x] = pixels[inside]
    return Image.fromarray(page)


def _fan(pixels: Rgb, fit: stain.StainFit, reach_od: float, side: int) -> Image.Image:
    """The cloud in the plane, with what lies beyond either stain vector in that stain's colour."""
    assert fit.stain_matrix is not None
    plane = plane_of(fit.stain_matrix)
    page = cloud(pixels, plane, reach_od=reach_od, side_px=side)
    rows = np.asarray(page).copy()
    od = OD_TABLE[pixels]
    spots = plane.place(od, reach_od=reach_od, side_px=side).astype(int)
    slope = (od @ np.array(plane.up)) / (od @ np.array(plane.across))
    tips = [np.array([row[number] for row in fit.stain_matrix]) for number in (0, 1)]
    ends = [float(tip @ np.array(plane.up) / (tip @ np.array(plane.across))) for tip in tips]
    inside = ((spots >= 1) & (spots < side - 2)).all(axis=1)
    for beyond, colour in ((slope > ends[0], BLUE), (slope < ends[1], VERMILION)):
        x, y = spots[inside & beyond].T
        for aside, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
            rows[y + down, x + aside] = colour
    page = Image.fromarray(rows)
    pen = ImageDraw.Draw(page)
    start = plane.place(np.zeros((1, 3)), reach_od=reach_od, side_px=side)[0]
    for tip, colour, words, shift in ((tips[0], BLUE, "1 in 100", -16), (tips[1], VERMILION, "1 in 100", 16)):
        end = plane.place(1.8 * tip[None], reach_od=reach_od, side_px=side)[0]
        pen.line((*start, *end), fill=colour, width=2)
        place = float(end[0]) - 30, float(end[1]) + shift
        pen.text(place, words, fill=colour, font=font_of(14), anchor="mm", stroke_width=3, stroke_fill=PAPER)
    return page


def _plot(
    pen: ImageDraw.ImageDraw, place: tuple[int, int], side: int, entries: NDArray[np.float64], level: int, factor: float
) -> None:
    """One table as a curve over the 256 grey levels, with the entry of a level."""
    x, y = place
    pen.rectangle((x, y, x + side, y + side), outline=RULE)
    top = 2.0

    def at(number: int) -> tuple[float, float]:
        return x + number / 255 * side, y + side * (1 - min(float(entries[number]), top) / top)

    pen.line([at(number) for number in range(256)], fill=BLUE, width=2)
    across, up = at(level)
    pen.line((across, y + side, across, up), fill=VERMILION, width=1)
    pen.ellipse((across - 4, up - 4, across + 4, up + 4), fill=VERMILION)
    pen.text((x + 5, y + 4), f"{factor:.3f}", fill=VERMILION, font=font_of(15), stroke_width=2, stroke_fill=PAPER)


if __name__ == "__main__":
    main()
