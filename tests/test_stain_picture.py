"""The picture of a slide's stain shows what was measured: arrows, cloud and images stand for their numbers."""

from __future__ import annotations

import importlib.util
import io
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from exaone_prep import stain
from exaone_prep.drawing import INK, PAPER, font_of, paragraph, shortened
from exaone_prep.stain.algebra import columns
from exaone_prep.stain.density import OD_TABLE
from exaone_prep.stain_cloud import (
    EOSIN,
    HAEMATOXYLIN,
    RED_BLUE,
    RED_GREEN,
    Arrow,
    View,
    arrows_of,
    cloud,
    kept,
    plane_of,
    reach_of,
)
from exaone_prep.stain_picture import PATCH_PX, sheet, stages, verdict_words
from tests.smallslides import tissue_rgb

ROOT = Path(__file__).resolve().parents[1]
SIDE = 300
REFERENCE = stain.MACENKO_REFERENCE
Rgb = NDArray[np.uint8]


@pytest.fixture(scope="module")
def tissue() -> Rgb:
    return tissue_rgb(3)


@pytest.fixture(scope="module")
def fit(tissue: Rgb) -> stain.StainFit:
    found = stain.fit(tissue)
    return found.judged(stain.verdict_slide(found))


@pytest.fixture(scope="module")
def patches(tissue: Rgb) -> Rgb:
    return np.stack([tissue[256:512, 256:512], tissue[256:512, 512:768]])


def of_colour(picture: Image.Image, colour: tuple[int, int, int]) -> NDArray[np.int64]:
    """Places of the pixels of exactly this colour, x and y, (N, 2)."""
    return np.argwhere((np.asarray(picture) == colour).all(axis=-1))[:, ::-1]


@settings(max_examples=25, deadline=None)
@given(st.floats(0.2, 1.7), st.floats(0.2, 1.7), st.sampled_from([RED_GREEN, RED_BLUE]))
def test_an_arrow_ends_within_a_pixel_of_its_optical_density(red: float, other: float, view: View) -> None:
    tip = (red, other, 0.3) if view is RED_GREEN else (red, 0.3, other)
    nothing = np.empty((0, 3), np.uint8)
    without = cloud(nothing, view, reach_od=2.0, side_px=SIDE)
    picture = cloud(nothing, view, [Arrow(name="", tip_od=tip, colour=EOSIN)], reach_od=2.0, side_px=SIDE)
    shown = np.argwhere((np.asarray(picture) != np.asarray(without)).any(axis=-1))[:, ::-1]
    # One tenth of the reach lies left of and below zero.
    per_od = SIDE / 2.2
    x, y = (0.2 + red) * per_od, SIDE - (0.2 + other) * per_od
    forward = np.array([red, -other]) / np.hypot(red, other)
    along = (shown + 0.5 - (x, y)) @ forward
    assert -1.0 <= along.max() <= 1.0
    assert np.hypot(*(shown[along.argmax()] + 0.5 - (x, y))) <= 1.5


def test_the_stain_vectors_of_a_fit_point_where_their_numbers_say(fit: stain.StainFit) -> None:
    assert fit.stain_matrix is not None
    assert fit.max_concentration is not None
    own = arrows_of(fit.stain_matrix, fit.max_concentration)
    for arrow, vector, strength in zip(own, columns(fit.stain_matrix), fit.max_concentration, strict=True):
        np.testing.assert_allclose(arrow.tip_od, np.array(vector) * strength, rtol=1e-12)
    view = plane_of(fit.stain_matrix)
    tips = np.array([arrow.tip_od for arrow in own])
    placed = view.place(tips, reach_od=3.0, side_px=SIDE)
    assert placed[0, 1] < SIDE / 2 < placed[1, 1], "haematoxylin above, eosin below"
    lengths = np.hypot(*(placed - view.place(np.zeros((1, 3)), reach_od=3.0, side_px=SIDE)).T) * 3.3 / SIDE
    np.testing.assert_allclose(lengths, fit.max_concentration, rtol=1e-6)


def test_the_mass_of_the_cloud_lies_between_the_stain_vectors(tissue: Rgb, fit: stain.StainFit) -> None:
    assert fit.stain_matrix is not None
    view, side = plane_of(fit.stain_matrix), 2 * SIDE
    picture = cloud(kept(tissue.reshape(-1, 3)), view, reach_od=2.5, side_px=side)
    zero = view.place(np.zeros((1, 3)), reach_od=2.5, side_px=side)[0]
    h, _ = columns(fit.stain_matrix)
    slope = np.dot(view.up, h) / np.dot(view.across, h)
    # Away from the words in the corners and beside the axis.
    x, y = np.meshgrid(np.arange(80, 400) + 0.5, np.arange(40, side - 40) + 0.5)
    dark = np.asarray(picture.convert("L"))[40 : side - 40, 80:400] < 135
    between = np.abs(y - zero[1]) <= slope * (x - zero[0]) + 5  # a cell's size
    assert dark.sum() > 1000
    assert between[dark].mean() > 0.97
    assert between.mean() < 0.35, "most of the picture is outside"


def test_denser_is_darker_and_a_single_pixel_is_seen() -> None:
    many, one = np.full((5000, 3), 100, np.uint8), np.array([[60, 150, 90]], np.uint8)
    picture = cloud(np.concatenate([many, one]), RED_GREEN, reach_od=2.0, side_px=SIDE)
    grey = np.asarray(picture.convert("L"))

    def at(pixel: Rgb) -> int:
        x, y = RED_GREEN.place(OD_TABLE[pixel[:1]], reach_od=2.0, side_px=SIDE)[0]
        return int(grey[int(y) - 4 : int(y) + 5, int(x) - 4 : int(x) + 5].min())

    assert at(many) < 80
    assert at(many) < at(one) < 245


def test_all_arrows_and_nearly_all_pixels_are_inside(tissue: Rgb) -> None:
    long = Arrow(name="", tip_od=(3.1, 0.5, 0.1), colour=EOSIN)
    pixels = tissue.reshape(-1, 3)
    reach_od = reach_of(pixels, (RED_GREEN, RED_BLUE), [long])
    assert reach_od >= 3.1
    without = reach_of(pixels, (RED_GREEN, RED_BLUE), [])
    assert (OD_TABLE[pixels] <= without).all(axis=1).mean() > 0.95
    assert reach_of(np.full((10, 3), 255, np.uint8), (RED_GREEN,), []) >= 1.0


def test_pixels_that_count_are_those_dark_in_every_channel() -> None:
    pixels = np.array([[205, 205, 205], [206, 10, 10], [10, 206, 10], [10, 10, 206], [0, 0, 0]], np.uint8)
    assert kept(pixels).tolist() == [[205, 205, 205], [0, 0, 0]]


def test_before_is_the_patch_and_after_is_what_a_build_makes(patches: Rgb, fit: stain.StainFit) -> None:
    done = stages(patches, fit, REFERENCE)
    np.testing.assert_array_equal(done.columns[0], patches)
    np.testing.assert_array_equal(done.columns[1], stain.normalize(patches, fit=fit).patches)
    assert done.status == ("fitted", "fitted")


def test_after_follows_the_settings_of_the_build(patches: Rgb, fit: stain.StainFit) -> None:
    glass = np.full_like(patches[:1], 240)
    both = np.concatenate([patches[:1], glass])
    done = stages(both, fit.judged(stain.Verdict(status="failed", reason="one_stain")), REFERENCE, per_patch=True)
    assert done.status == ("fitted", "kept")
    np.testing.assert_array_equal(done.columns[1][0], stain.normalize(both[:1], fit="patch").patches[0])
    assert stages(glass, fit, REFERENCE, per_patch=True).status == ("fallback",)


@pytest.mark.parametrize("number", [0, 1], ids=["haematoxylin", "eosin"])
def test_where_a_stain_is_absent_its_image_is_white(number: int) -> None:
    vectors = np.array(columns(REFERENCE.stain_matrix))
    strength = np.linspace(0.3, REFERENCE.max_concentration[number], 64 * 64)
    # A patch of one stain alone, in the reference's own colours: its fit is the reference itself.
    light = 240 * np.exp(-strength[:, None] * vectors[number]) - 1
    patch = light.round().astype(np.uint8).reshape(1, 64, 64, 3)
    done = stages(patch, REFERENCE.as_fit(), REFERENCE)
    own, other = done.columns[2 + number], done.columns[3 - number]
    assert np.abs(own.astype(int) - patch).max() <= 4, "the stain that is there looks as it is"
    assert (np.abs(other.astype(int) - 240) <= 6).all(), "of the other there is nothing: glass"


def test_light_through_both_stains_is_the_product_of_each_alone(patches: Rgb, fit: stain.StainFit) -> None:
    _, after, h, e = (column.astype(float) for column in stages(patches, fit, REFERENCE).columns)
    product = h * e / 240
    # Images hold whole grey levels up to 255, so only what was not clipped can be compared.
    free = (h < 255) & (e < 255) & (after < 255)
    assert free.mean() > 0.5
    assert np.abs(product - after)[free].max() <= 3


def page_of(fit: stain.StainFit, patches: Rgb, **others: str) -> Image.Image:
    return sheet(
        title="slide.svs",
        pixels=patches.reshape(-1, 3) if len(patches) else np.full((10, 3), 3, np.uint8),
        pixels_are="Its pixels",
        patches=patches,
        fit=fit,
        reference=REFERENCE,
        **others,  # type: ignore[arg-type]
    )


def found_in(page: Image.Image, patch: Rgb) -> bool:
    """Whether a patch is somewhere on a page, pixel for pixel."""
    shown = np.asarray(page)
    for y, x in np.argwhere((shown == patch[0, 0]).all(axis=-1)):
        part = shown[y : y + PATCH_PX, x : x + PATCH_PX]
        if part.shape == patch.shape and (part[:2] == patch[:2]).all() and (part == patch).all():
            return True
    return False


def test_the_sheet_shows_vectors_and_every_stage_of_every_patch(patches: Rgb, fit: stain.StainFit) -> None:
    page = page_of(fit, patches)
    for column in stages(patches, fit, REFERENCE).columns:
        assert all(found_in(page, patch) for patch in column)
    assert len(of_colour(page, HAEMATOXYLIN)) > 300
    assert len(of_colour(page, EOSIN)) > 300


def test_of_a_slide_that_is_not_he_there_is_a_cloud_and_no_normalised_patch(patches: Rgb, fit: stain.StainFit) -> None:
    page = page_of(fit.judged(stain.Verdict(status="not_he", reason="negative_stain")), patches)
    assert found_in(page, patches[0])
    assert not found_in(page, stain.normalize(patches, fit=fit).patches[0])
    assert len(of_colour(page, HAEMATOXYLIN)) > 300


def test_a_failed_fit_shows_what_the_build_does_instead(patches: Rgb, fit: stain.StainFit) -> None:
    failed = replace(fit, stain_matrix=None, max_concentration=None, status="failed", reason="one_colour")
    by_reference = stain.normalize(patches, fit=failed, on_failure="reference").patches
    assert not found_in(page_of(failed, patches), by_reference[0])
    assert found_in(page_of(failed, patches, on_failure="reference"), by_reference[0])


def test_without_any_patch_there_is_a_page_all_the_same() -> None:
    nothing = stain.fit(np.empty((0, 3), np.uint8)).judged(stain.Verdict(status="not_he", reason="dark_background"))
    page = page_of(nothing, np.empty((0, PATCH_PX, PATCH_PX, 3), np.uint8))
    assert page.height < 700
    assert not of_colour(page, (0, 0, 0)).size


def test_patches_of_another_size_fit_their_place(patches: Rgb, fit: stain.StainFit) -> None:
    large = np.repeat(np.repeat(patches, 2, axis=1), 2, axis=2)
    assert page_of(fit, large).size == page_of(fit, patches).size
    assert found_in(page_of(fit, large), patches[0])


@pytest.mark.parametrize("reason", [reason for reason in stain.SENTENCES if reason])
def test_every_verdict_is_said_with_its_sentence(reason: stain.FitReason, fit: stain.StainFit) -> None:
    said = verdict_words(fit.judged(stain.Verdict(status="failed", reason=reason)))
    assert stain.SENTENCES[reason] in said
    assert verdict_words(fit) not in said


def test_words_stay_inside_their_width() -> None:
    page = Image.new("RGB", (400, 200), PAPER)
    words = "A sentence of many words that is a good deal longer than its line can hold, twice over."
    paragraph(ImageDraw.Draw(page), (100, 10), words, 150, font_of(14), INK)
    box = Image.fromarray(255 - np.asarray(page)).getbbox()
    assert box is not None
    assert box[0] >= 100
    assert box[2] <= 251
    assert font_of(14).getlength(shortened("a" * 300, 150, font_of(14))) <= 150
    assert shortened("short", 150, font_of(14)) == "short"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """`tools/pictures.py`, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("pictures_tool", ROOT / "tools" / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_on_stain_shows_every_picture_that_the_tool_draws(tool: ModuleType) -> None:
    text = (ROOT / "docs" / "stain.md").read_text(encoding="utf-8")
    files = sorted(name for name in tool.PICTURES if name.endswith(".png"))
    assert sorted(re.findall(r"\]\(pictures/([\w.-]+)\)", text)) == files
    assert sum((ROOT / "docs" / "pictures" / name).stat().st_size for name in files) < 600_000


def test_two_laboratories_are_as_far_apart_before_and_after_as_the_page_says(tool: ModuleType) -> None:
    before = [region.reshape(-1, 3) for region in tool.laboratories()]
    after = [
        stain.normalize(region[None], fit=stain.fit(region)).patches.reshape(-1, 3) for region in tool.laboratories()
    ]
    tissue = (before[0] <= 205).all(axis=-1) & (before[1] <= 205).all(axis=-1)
    apart = [float(np.abs(one[tissue].astype(int) - other[tissue]).mean()) for one, other in (before, after)]
    assert [round(value) for value in apart] == [16, 1]


def test_the_committed_pictures_are_those_the_tool_draws(tool: ModuleType) -> None:
    for name, draw in tool.PICTURES.items():
        with Image.open(ROOT / "docs" / "pictures" / name) as committed:
            there = np.asarray(committed.convert("RGB")).astype(int)
        encoded = (tool.as_jpeg if name.endswith(".jpg") else tool.as_png)(draw())
        drawn = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).astype(int)
        assert there.shape == drawn.shape, f"{name}: run `make pictures`"
        # Another version of Pillow may round otherwise in a palette; another picture differs by far more.
        assert (np.abs(there - drawn).max(axis=-1) > 24).mean() < 0.002, f"{name}: run `make pictures`"
