"""`exaone-prep inspect`: what a build would make of one slide."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from exaone_prep import stain
from exaone_prep.catalog import CatalogRow
from exaone_prep.errors import SlideProblemError
from exaone_prep.manifest import Stain, parse_manifest
from exaone_prep.pool import WorkerPool
from exaone_prep.scratch import TEMPORARY, Scratch
from exaone_prep.stain_picture import sheet, telling_pixels
from exaone_prep.survey import Pictures, SlideSurvey, SurveyJob, load_pictures
from exaone_prep.survey_table import survey_row

_PICTURE_PX = 1600


def inspect_command(
    slide: Path, settings: dict[str, str], *, picture: Path | None, stain_picture: Path | None, as_json: bool
) -> None:
    """Survey a slide in a process of its own, print what was found, draw mask and patches, and the stain."""
    manifest = parse_manifest(
        {"name": "inspect", "cohorts": [{"name": "inspect", "slides": [str(slide)]}]}, settings, where="--set"
    )
    reference = _reference(manifest.stain)
    cohort = manifest.cohorts[0]
    row = CatalogRow(
        slide_id="inspected",
        cohort=cohort.name,
        patient_id="inspected",
        patient_source="slide",
        split="train",
        group=0,
        stamp="",
        size_bytes=0,
        uri=None,
        mpp_override=None,
        cohort_mpp=cohort.mpp,
        mpp_if_missing=cohort.mpp_if_missing,
        allow_non_he=cohort.allow_non_he,
    )
    with Scratch(TEMPORARY) as space, WorkerPool(1, space.path / "log") as pool:
        file = space.path / "pictures.npz"
        job = SurveyJob(row=row, path=slide.absolute(), manifest=manifest, file=file)
        answer = next(iter(pool.map([job])))[1]
        if isinstance(answer, SlideProblemError):
            raise answer
        pictures = load_pictures(file) if file.exists() else None
    found = _facts(answer)
    sys.stdout.write((json.dumps(found, sort_keys=True) if as_json else _text(found)) + "\n")
    if pictures is not None:
        target = picture or Path(f"{slide.stem}-inspect.png")
        draw(pictures, answer).save(target, "PNG")
        sys.stderr.write(f"picture: {target}\n")
        page = draw_stain(slide.name, pictures, answer, manifest.stain, reference)
        if page is not None:
            target = stain_picture or Path(f"{slide.stem}-stain.png")
            page.save(target, "PNG")
            sys.stderr.write(f"picture of the stain: {target}\n")


def draw(pictures: Pictures, survey: SlideSurvey) -> Image.Image:
    """The overview; what is no tissue is dimmed, planned patches are framed."""
    rgb = pictures.thumbnail.copy()
    rgb[~pictures.mask] = (rgb[~pictures.mask].astype(np.uint16) * 2 + 190) // 3
    image = Image.fromarray(rgb)
    scale = min(_PICTURE_PX / image.width, _PICTURE_PX / image.height)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    if survey.choice is not None and survey.width_px:
        pen = ImageDraw.Draw(image)
        per_level_px = survey.choice.downsample * image.width / survey.width_px
        side = survey.choice.read_size_px * per_level_px
        for x, y in pictures.positions:
            left, top = float(x) * per_level_px, float(y) * per_level_px
            pen.rectangle((left, top, left + side - 1, top + side - 1), outline=(0, 114, 178))
    return image


def draw_stain(
    title: str, pictures: Pictures, survey: SlideSurvey, settings: Stain, reference: stain.Reference
) -> Image.Image | None:
    """The slide's stain on a page; None where no stain was looked for."""
    if survey.fit is None:
        return None
    pixels, words = telling_pixels(pictures, survey.fit)
    return sheet(
        title=title,
        pixels=pixels,
        pixels_are=words,
        patches=pictures.patches,
        fit=survey.fit,
        reference=reference,
        per_patch=settings.fit == "patch",
        on_failure=settings.on_failure,
        not_drawn=_other_method(settings),
    )


def _other_method(settings: Stain) -> str:
    if settings.method == "none":
        return "The manifest asks for no normalisation: patches are stored as they are."
    if settings.plugged_in:
        return f"The stain method {settings.method} normalises the patches of a build; it is not drawn here."
    return ""


def _reference(settings: Stain) -> stain.Reference:
    written = settings.reference
    return stain.load_reference(written) if isinstance(written, str) else stain.Reference(**written.model_dump())


def _facts(survey: SlideSurvey) -> dict[str, Any]:
    row = survey_row(survey, "inspect", None, survey.problem)
    facts = {
        name: value
        for name, value in row.items()
        if not name.startswith(("dropped_", "stain_", "kept")) and name not in {"slide_id", "cohort", "outcome"}
    }
    facts["properties"] = dict(survey.properties)
    if survey.problem is None:
        facts["sentence"] = None if survey.planned else "No patch of it holds enough tissue."
    return facts


def _text(found: dict[str, Any]) -> str:
    lines = []
    for name, value in found.items():
        if value is None or value == {}:
            continue
        if isinstance(value, dict):
            lines += [f"{name}.{key:{28 - len(name)}} {below}" for key, below in value.items()]
        elif isinstance(value, list):
            lines.append(f"{name:29} {', '.join(f'{number:.4f}' for number in value)}")
        else:
            lines.append(f"{name:29} {value:.6g}" if isinstance(value, float) else f"{name:29} {value}")
    return "\n".join(lines)
