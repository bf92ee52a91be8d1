"""The stain of one slide on a page: its cloud of optical densities, figures in words, and patches split into stains."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from exaone_prep import stain
from exaone_prep.drawing import FAINT, INK, PAPER, Colour, font_of, paragraph, shortened
from exaone_prep.stain.algebra import angle_deg, columns
from exaone_prep.stain_cloud import (
    CLOUD_PX,
    EOSIN,
    HAEMATOXYLIN,
    RED_BLUE,
    RED_GREEN,
    Arrow,
    arrows_of,
    cloud,
    kept,
    plane_of,
    reach_of,
)
from exaone_prep.survey import Pictures

Rgb = NDArray[np.uint8]

COLUMNS: Final = ("before", "after", "haematoxylin alone", "eosin alone")
PATCH_PX: Final = 256
_GAP_PX: Final = 16
_EDGE_PX: Final = 24
_NOTHING: Final = 1e-9
_CLOUD_PIXELS: Final = 1 << 16


def alone(reference: stain.Reference, number: int) -> stain.Reference:
    """The reference with next to nothing of the other stain: 0 is haematoxylin alone, 1 eosin alone."""
    strength = [_NOTHING, _NOTHING]
    strength[number] = reference.max_concentration[number]
    return replace(reference, max_concentration=(strength[0], strength[1]))


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Patches on their way through normalisation.

    Attributes:
        columns: Four times uint8 (N, H, W, 3), as `COLUMNS` names them.
        status: What became of each patch; the last three columns mean something where it is `fitted` or `fallback`.
    """

    columns: tuple[Rgb, Rgb, Rgb, Rgb]
    status: tuple[stain.StainStatus, ...]


def stages(
    patches: Rgb,
    fit: stain.StainFit,
    reference: stain.Reference,
    *,
    per_patch: bool = False,
    on_failure: stain.OnFailure = "keep",
) -> Stages:
    """Normalise patches as a build does, and show each stain alone in the reference's colours.

    Args:
        patches: uint8 (N, H, W, 3), as scanned.
        fit: Of their slide.
        reference: What they are given.
        per_patch: Fit each patch by itself first.
        on_failure: As `stain.normalize` takes it.
    """
    done = stain.normalize(
        patches, fit="patch" if per_patch else fit, reference=reference, on_failure=on_failure, slide_fit=fit
    )
    one, other = (
        stain.normalize(patches, fit=done.fits, reference=alone(reference, number)).patches for number in (0, 1)
    )
    return Stages(columns=(patches, done.patches, one, other), status=done.status)


def sheet(
    *,
    title: str,
    pixels: Rgb,
    pixels_are: str,
    patches: Rgb,
    fit: stain.StainFit,
    reference: stain.Reference,
    per_patch: bool = False,
    on_failure: stain.OnFailure = "keep",
    not_drawn: str = "",
) -> Image.Image:
    """All about the stain of a slide on one page.

    Args:
        title: Whose stain it is.
        pixels: uint8 (N, 3), for the cloud.
        pixels_are: What they are, as the beginning of a sentence: "A sample of …".
        patches: uint8 (n, H, W, 3), a few as scanned.
        fit: Of the slide, with the verdict on it.
        reference: What a build normalises to.
        per_patch: Whether a build fits each patch by itself first.
        on_failure: What a build does without a fit.
        not_drawn: Where a build does something else with patches than this: what, in a sentence, instead of images.
    """
    done = None
    if len(patches) and not not_drawn and fit.status != "not_he":
        done = stages(patches, fit, reference, per_patch=per_patch, on_failure=on_failure)
    width = 2 * _EDGE_PX + 4 * PATCH_PX + 3 * _GAP_PX
    top, step = 96, PATCH_PX + _GAP_PX
    below = top + CLOUD_PX + 84
    page = Image.new("RGB", (width, below + 40 + len(patches) * step), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((_EDGE_PX, 20), shortened(title, width - 2 * _EDGE_PX, font_of(24)), fill=INK, font=font_of(24))
    pen.text((_EDGE_PX, 56), verdict_words(fit), fill=INK, font=font_of(17))
    _clouds(page, top, pixels, pixels_are, fit, reference)
    _figures(pen, (_EDGE_PX + 2 * (CLOUD_PX + _GAP_PX) + 12, top), fit, reference)
    if not len(patches):
        words = "There are no patches to show: none of those looked at passed the measures of quality."
        pen.text((_EDGE_PX, below), words, fill=INK, font=font_of(17))
        return page
    for column, name in enumerate(COLUMNS if done else COLUMNS[:1]):
        pen.text((_EDGE_PX + column * step, below), name, fill=INK, font=font_of(17))
    for row, patch in enumerate(patches):
        line = below + 30 + row * step
        applied = done is not None and done.status[row] in ("fitted", "fallback")
        for column, image in enumerate([stage[row] for stage in done.columns] if done and applied else [patch]):
            page.paste(_fitting(image), (_EDGE_PX + column * step, line))
        if not applied:
            paragraph(pen, (_EDGE_PX + step, line), _why_not(fit, on_failure, not_drawn), 2 * step, font_of(17), INK)
    return page


def telling_pixels(pictures: Pictures, fit: stain.StainFit) -> tuple[Rgb, str]:
    """The pixels that a cloud of a slide shows, uint8 (N, 3), and what they are."""
    pixels, words = pictures.od_pixels, "Some of the pixels that the stain is measured on"
    if fit.status == "not_he":
        # Of such a slide the sample without ink can be empty, or lack the very colours that tell against it.
        pixels, words = pictures.patches.reshape(-1, 3), "The pixels of the patches below"
    if not len(pixels):
        pixels, words = pictures.thumbnail.reshape(-1, 3), "The pixels of the whole overview"
    return pixels[:: max(1, len(pixels) // _CLOUD_PIXELS)], words


def verdict_words(fit: stain.StainFit) -> str:
    """The verdict on a slide's fit as one sentence."""
    sentence = stain.SENTENCES[fit.reason]
    if fit.status == "ok":
        return "The stain was measured."
    return f"{'Not H&E' if fit.status == 'not_he' else 'No stain could be measured'}: {sentence}."


def _why_not(fit: stain.StainFit, on_failure: stain.OnFailure, not_drawn: str) -> str:
    if fit.status == "not_he":
        return "A slide that is not H&E is set aside: none of its patches is normalised."
    if not_drawn:
        return not_drawn
    if on_failure == "drop":
        return "No stain could be measured in it: a build drops this patch."
    return "No stain could be measured in it: a build keeps this patch as it is."


def clouds_of(
    pixels: Rgb, pixels_are: str, fit: stain.StainFit, reference: stain.Reference
) -> tuple[tuple[Image.Image, str], tuple[Image.Image, str]]:
    """Two clouds, each with words: red against green; the plane of the two stains, or red against blue without one.

    Args:
        pixels: uint8 (N, 3).
        pixels_are: What they are, as the beginning of a sentence.
        fit: Of the slide.
        reference: What a build normalises to; drawn dashed.
    """
    given = arrows_of(reference.stain_matrix, reference.max_concentration, dashed=True)
    own: tuple[Arrow, ...] = ()
    other, of_other = RED_BLUE, "The same in red and blue light."
    if fit.stain_matrix is not None and fit.max_concentration is not None:
        own = arrows_of(fit.stain_matrix, fit.max_concentration)
        other = plane_of(fit.stain_matrix)
        of_other = "Those that count, seen flat: to the right more stain, up more of it haematoxylin, down eosin."
    about = f"{pixels_are}. Right: more red light absorbed, up: more green. Left of or below a dotted line: too pale."
    reach_od = reach_of(pixels, (other, RED_GREEN), (*own, *given))
    first = cloud(pixels, RED_GREEN, (*own, *given), reach_od=reach_od)
    second = cloud(kept(pixels) if own else pixels, other, own or given, reach_od=reach_od)
    return (first, about), (second, of_other)


def _clouds(
    page: Image.Image, top: int, pixels: Rgb, pixels_are: str, fit: stain.StainFit, reference: stain.Reference
) -> None:
    for number, (picture, words) in enumerate(clouds_of(pixels, pixels_are, fit, reference)):
        x = _EDGE_PX + number * (CLOUD_PX + _GAP_PX)
        page.paste(picture, (x, top))
        paragraph(ImageDraw.Draw(page), (x, top + CLOUD_PX + 6), words, CLOUD_PX, font_of(14), FAINT)


def _figures(pen: ImageDraw.ImageDraw, place: tuple[int, int], fit: stain.StainFit, reference: stain.Reference) -> None:
    x, y = place
    found, seen = fit.diagnostics, fit.stain_matrix is not None
    pairs = columns(fit.stain_matrix) if fit.stain_matrix is not None else ((), ())
    wanted = columns(reference.stain_matrix)
    strongest = fit.max_concentration or ()
    lines: list[tuple[str, str, str, Colour]] = [("", "this slide", "reference", FAINT)]
    for name, own, other, colour in zip(("haematoxylin", "eosin"), pairs, wanted, (HAEMATOXYLIN, EOSIN), strict=True):
        lines.append((name, "", "", colour))
        for channel, number in zip(("red", "green", "blue"), range(3), strict=True):
            lines.append((f"   {channel}", f"{own[number]:.3f}" if own else "-", f"{other[number]:.3f}", INK))
    for name, number in (("maxC haematoxylin", 0), ("maxC eosin", 1)):
        value = f"{strongest[number]:.2f}" if strongest else "-"
        lines.append((name, value, f"{reference.max_concentration[number]:.2f}", INK))
    lines.append(("angle between", f"{found.angle_deg:.1f}°" if seen else "-", f"{angle_deg(*wanted):.1f}°", INK))
    lines.append(("pixels looked at", f"{found.n_pixels:,}", "", INK))
    lines.append(("dark enough to count", f"{found.n_kept:,}", "", INK))
    for name, own_text, other_text, colour in lines:
        pen.text((x, y), name, fill=colour, font=font_of(15))
        pen.text((x + 218, y), own_text, fill=colour, font=font_of(15), anchor="ra")
        pen.text((x + 292, y), other_text, fill=colour, font=font_of(15), anchor="ra")
        y += 21
    words = "An arrow is a stain: its direction is the colour, its length maxC, the strength that 1 % of pixels exceed."
    paragraph(pen, (x, y + 6), f"{words} Dashed: the reference.", 292, font_of(14), FAINT)


def _fitting(patch: Rgb) -> Image.Image:
    image = Image.fromarray(patch)
    return image if image.size == (PATCH_PX,) * 2 else image.resize((PATCH_PX,) * 2, Image.Resampling.BOX)
