"""Normalisation follows its definition to a grey level, survives every input, and says what it did."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from exaone_prep import stain
from exaone_prep.stain.exponential import exp
from exaone_prep.stain.numpy_engine import NumpyEngine
from exaone_prep.stain.tables import MAX_ENTRY, correction, tables
from tests import stain_oracle as oracle
from tests.realdata import DATA, camelyon_patches, needs_real_data, read_rgb

Pixels = NDArray[np.uint8]
FUJI_LIKE_EOSIN = np.array([0.27, 0.84, 0.46])


def he_patch(seed: int = 0, side_px: int = 128) -> Pixels:
    return oracle.stained(oracle.HAEMATOXYLIN, FUJI_LIKE_EOSIN, seed=seed, side_px=side_px)


def grey_levels_apart(a: Pixels, b: Pixels) -> NDArray[np.int16]:
    return np.abs(a.astype(np.int16) - b.astype(np.int16))


@given(hnp.arrays(np.float64, 50, elements=st.floats(-700, 700)))
def test_exp_is_right_to_14_digits(x: NDArray[np.float64]) -> None:
    context = Context(prec=40)
    for value, result in zip(x.tolist(), exp(x).tolist(), strict=True):
        exact = context.exp(Decimal(value))
        assert abs(Decimal(result) / exact - 1) < Decimal("1e-14")


@needs_real_data
def test_every_real_patch_is_within_one_grey_level_of_an_independent_normalisation() -> None:
    patches = np.stack([read_rgb(path) for path in camelyon_patches()])
    assert len(patches) == 89
    batch = stain.normalize(patches, fit="patch")
    assert set(batch.status) == {"fitted"}
    differing = 0
    for patch, normalized in zip(patches, batch.patches, strict=True):
        own = oracle.fit(patch)
        apart = grey_levels_apart(normalized, oracle.apply(patch, own.stain_matrix, own.max_concentration))
        assert apart.max() <= 1
        differing += int((apart > 0).sum())
    assert differing < 1e-3 * patches.size


@needs_real_data
def test_a_fit_of_the_slide_is_applied_as_the_definition_says() -> None:
    patches = np.stack([read_rgb(path) for path in camelyon_patches() if path.name.startswith("tumor_073")])
    slide = stain.fit(patches)
    assert slide.stain_matrix is not None
    batch = stain.normalize(patches, fit=slide)
    own = np.array(slide.stain_matrix), np.array(slide.max_concentration)
    apart = np.stack([grey_levels_apart(n, oracle.apply(p, *own)) for n, p in zip(batch.patches, patches, strict=True)])
    assert apart.max() <= 1
    assert (apart > 0).mean() < 1e-4  # only float32 rounding at a whole grey level is left


@needs_real_data
def test_tiatoolbox_gave_nearly_the_same_picture_for_its_own_target() -> None:
    folder = DATA / "tiles" / "stain"
    target = stain.fit(read_rgb(folder / "tia_target_image.png"))
    assert target.stain_matrix is not None
    assert target.max_concentration is not None
    reference = stain.Reference(
        name="tia", stain_matrix=target.stain_matrix, max_concentration=target.max_concentration
    )
    ours = stain.normalize(read_rgb(folder / "tia_source_image.png")[None], fit="patch", reference=reference).patches[0]
    apart = grey_levels_apart(ours, read_rgb(folder / "tia_norm_macenko.png"))
    # It takes Io = 255 and masks tissue by luminosity; tests/test_stain_peers.py shows that this is all.
    assert apart.mean() < 4
    assert np.percentile(apart, 95) <= 8
    assert apart.max() <= 20


def test_the_references_own_stain_is_left_nearly_as_it_is() -> None:
    stain_matrix = np.array(stain.MACENKO_REFERENCE.stain_matrix)
    patch = oracle.stained(stain_matrix[:, 0], stain_matrix[:, 1], side_px=64)
    batch = stain.normalize(patch[None], fit=stain.MACENKO_REFERENCE.as_fit())
    assert np.median(grey_levels_apart(batch.patches[0], patch)) <= 2


def test_tables_never_leave_the_range_in_which_their_products_are_normal_numbers() -> None:
    extreme = ((1e9, -1e9, 0.0), (-1e9, 1e9, 1e-9), (0.0, 30.0, -30.0))
    made = tables([extreme])
    assert made.shape == (1, 3, 256, 4)
    assert made.dtype == np.float32
    entries = made[..., :3]
    assert entries.min() >= 1 / MAX_ENTRY
    assert entries.max() <= MAX_ENTRY
    assert float(np.finfo(np.float32).max) > MAX_ENTRY**3
    assert float(np.finfo(np.float32).tiny) <= MAX_ENTRY**-3


def test_tables_made_together_are_those_made_alone() -> None:
    fits = [stain.fit(he_patch(seed)) for seed in range(3)]
    corrections = [correction(fit, stain.MACENKO_REFERENCE) for fit in fits]
    together = tables(corrections)
    for one, table in zip(corrections, together, strict=True):
        assert tables([one])[0].tobytes() == table.tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (1, 70_000), (70_000, 1), (300, 211), (0, 5)])
def test_a_grey_level_is_the_truncated_product_of_three_entries_in_every_shape_of_patch(shape: tuple[int, int]) -> None:
    patch = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    table = tables([correction(stain.fit(he_patch()), stain.MACENKO_REFERENCE)])[0]
    out = np.empty_like(patch)
    NumpyEngine().apply(patch.reshape(-1, 3), table, out.reshape(-1, 3), np.empty(6, dtype=np.int64))
    entries = [table[j][patch[..., j].astype(int)] for j in range(3)]
    expected = np.minimum(entries[0] * entries[1] * entries[2], np.float32(255))[..., :3]
    np.testing.assert_array_equal(out, np.trunc(expected).astype(np.uint8))


def painted(colour: tuple[int, int, int], side_px: int = 64) -> Pixels:
    return np.full((side_px, side_px, 3), colour, dtype=np.uint8)


def pen_covered() -> Pixels:
    patch = he_patch()
    patch[20:90] = np.random.default_rng(0).normal((20, 110, 60), 6, (70, 128, 3)).clip(0, 255).astype(np.uint8)
    return patch


def one_percent_tissue() -> Pixels:
    patch = np.random.default_rng(0).integers(236, 246, (256, 256, 3), np.uint8)
    patch[40:66, 80:106] = he_patch(side_px=26)
    return patch


def one_stain() -> Pixels:
    return oracle.stained(oracle.HAEMATOXYLIN, oracle.HAEMATOXYLIN, side_px=128)


def fluorescence() -> Pixels:
    rng = np.random.default_rng(0)
    levels = np.stack(
        [rng.integers(0, 12, (128, 128)), rng.integers(0, 30, (128, 128)), rng.integers(0, 200, (128, 128))]
    )
    return np.moveaxis(levels, 0, -1).astype(np.uint8)


def ycbcr_shown_as_rgb() -> Pixels:
    r, g, b = np.moveaxis(he_patch().astype(np.float64), -1, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    channels = np.stack([y, 128 + (b - y) * 0.564, 128 + (r - y) * 0.713], axis=-1)
    return channels.clip(0, 255).astype(np.uint8)


STRANGE: dict[str, Callable[[], Pixels]] = {
    "all white": lambda: painted((255, 255, 255)),
    "all black": lambda: painted((0, 0, 0)),
    "one colour": lambda: painted((170, 80, 150)),
    "two colours": lambda: np.concatenate([painted((170, 80, 150)), painted((90, 40, 120))]),
    "one pixel": lambda: painted((120, 60, 140), 1),
    "one stain": one_stain,
    "pen-covered": pen_covered,
    "swapped channels": lambda: he_patch()[..., ::-1],
    "fluorescence": fluorescence,
    "brown immunohistochemistry": lambda: oracle.stained(oracle.HAEMATOXYLIN, oracle.DAB, side_px=128),
    "wrong DICOM colours": ycbcr_shown_as_rgb,
    "one per cent tissue": one_percent_tissue,
    "noise": lambda: np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8),
    "inverted": lambda: 255 - he_patch(),
    "empty": lambda: np.empty((0, 7, 3), dtype=np.uint8),
}
UNFITTABLE = {
    "all white",
    "all black",
    "one colour",
    "two colours",
    "one pixel",
    "one stain",
    "one per cent tissue",
    "empty",
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_patches_are_normalised_or_kept_without_an_error(name: str) -> None:
    patch = STRANGE[name]()
    before = patch.copy()
    keep = stain.normalize(patch[None], fit="patch")
    assert keep.patches.shape == patch[None].shape
    assert keep.patches.dtype == np.uint8
    assert not keep.dropped[0]
    assert keep.status[0] == ("kept" if name in UNFITTABLE else "fitted")
    if name in UNFITTABLE:
        np.testing.assert_array_equal(keep.patches[0], patch)
    drop = stain.normalize(patch[None], fit="patch", on_failure="drop")
    assert drop.dropped[0] == (name in UNFITTABLE)
    assert drop.status[0] == ("none" if name in UNFITTABLE else "fitted")
    with_reference = stain.normalize(patch[None], fit="patch", on_failure="reference")
    assert with_reference.status[0] == ("fallback" if name in UNFITTABLE else "fitted")
    of_slide = stain.normalize(patch[None], fit="patch", slide_fit=stain.fit(he_patch(7)), on_failure="drop")
    assert of_slide.status[0] == ("fallback" if name in UNFITTABLE else "fitted")
    np.testing.assert_array_equal(patch, before)


@pytest.mark.parametrize("name", STRANGE)
def test_strange_patches_under_the_fit_of_their_slide_follow_the_definition(name: str) -> None:
    patch = STRANGE[name]()
    slide = stain.fit(he_patch())
    batch = stain.normalize(patch[None], fit=slide)
    assert batch.status == ("fitted",)
    expected = oracle.apply(patch, np.array(slide.stain_matrix), np.array(slide.max_concentration))
    assert grey_levels_apart(batch.patches[0], expected).max(initial=0) <= 1


@given(
    patches=hnp.arrays(np.uint8, st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(1, 30), st.just(3))),
    on_failure=st.sampled_from(["keep", "reference", "drop"]),
)
@settings(max_examples=60, deadline=None)
def test_any_image_survives(patches: Pixels, on_failure: stain.OnFailure) -> None:
    batch = stain.normalize(patches, fit="patch", on_failure=on_failure)
    assert batch.patches.shape == patches.shape
    assert len(batch.status) == len(batch.dropped) == len(batch.fits) == len(patches)
    unchanged = [status in ("kept", "none") for status in batch.status]
    np.testing.assert_array_equal(batch.patches[unchanged], patches[unchanged])


@given(
    degrees=st.floats(5.1, 80),
    amounts=st.tuples(st.floats(0.2, 8), st.floats(0.2, 8)),
    patch=hnp.arrays(np.uint8, (4, 4, 3)),
)
@settings(max_examples=100, deadline=None)
def test_any_fit_that_passes_the_gates_can_be_applied_to_any_pixels(
    degrees: float, amounts: tuple[float, float], patch: Pixels
) -> None:
    across = np.array([0.5, -0.7, 0.3])
    h = np.array([0.65, 0.7, 0.29]) / np.linalg.norm([0.65, 0.7, 0.29])
    across = across - h * (across @ h)
    e = math.cos(math.radians(degrees)) * h + math.sin(math.radians(degrees)) * across / np.linalg.norm(across)
    fit = stain.StainFit(
        stain_matrix=((h[0], e[0]), (h[1], e[1]), (h[2], e[2])),
        max_concentration=amounts,
        diagnostics=stain.FitDiagnostics(n_pixels=10**6, n_kept=10**6),
    )
    assert stain.verdict_patch(fit) == stain.Verdict()
    with np.errstate(all="raise"):
        batch = stain.normalize(patch[None], fit=fit)
    assert batch.status == ("fitted",)


def test_a_batch_takes_one_fit_per_patch_and_reports_each() -> None:
    patches = np.stack([he_patch(seed) for seed in range(4)])
    good = stain.fit(patches[0])
    bad = stain.fit(painted((255, 255, 255)))
    other = good.judged(stain.Verdict(status="not_he", reason="dark_background"))
    batch = stain.normalize(patches, fit=[good, bad, stain.fit(patches[2]), other])
    assert batch.status == ("fitted", "kept", "fitted", "kept")
    np.testing.assert_array_equal(batch.patches[0], stain.normalize(patches[:1], fit=good).patches[0])
    np.testing.assert_array_equal(batch.patches[2], stain.normalize(patches[2:3], fit="patch").patches[0])
    np.testing.assert_array_equal(batch.patches[[1, 3]], patches[[1, 3]])
    assert batch.fits[1] is bad


def test_normalising_brings_two_laboratories_together() -> None:
    pale = oracle.stained(np.array([0.6, 0.7, 0.4]), np.array([0.2, 0.85, 0.5]), seed=1, amounts=(0.6, 0.5))
    strong = oracle.stained(np.array([0.5, 0.75, 0.45]), np.array([0.25, 0.8, 0.55]), seed=2, amounts=(1.1, 0.9))
    batch = stain.normalize(np.stack([pale, strong]), fit="patch")

    def distance(a: Pixels, b: Pixels) -> float:
        return float(np.abs(a.reshape(-1, 3).mean(axis=0) - b.reshape(-1, 3).mean(axis=0)).max())

    assert distance(pale, strong) > 20
    assert distance(batch.patches[0], batch.patches[1]) < 10


def test_views_that_are_not_contiguous_give_the_same_pixels() -> None:
    patches = np.stack([he_patch(seed) for seed in range(2)])
    view = np.ascontiguousarray(patches.transpose(0, 3, 2, 1)).transpose(0, 3, 2, 1)
    np.testing.assert_array_equal(
        stain.normalize(view, fit="patch").patches, stain.normalize(patches, fit="patch").patches
    )


def test_arguments_that_make_no_sense_are_refused() -> None:
    patches = np.stack([he_patch()])
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("uint8", {"patches": patches.astype(np.float32)}),
        ("uint8", {"patches": patches[0]}),
        ("on_failure", {"on_failure": "ignore"}),
        ("device", {"device": "tpu"}),
        ("fit must be", {"fit": "slide"}),
        ("2 stain fits for 1", {"fit": [stain.fit(patches)] * 2}),
    ]
    for sentence, change in wrong:
        arguments: dict[str, Any] = {"patches": patches, "fit": "patch"} | change
        with pytest.raises(ValueError, match=sentence):
            stain.normalize(arguments.pop("patches"), **arguments)


def test_a_fit_that_is_not_ok_cannot_be_turned_into_tables_nor_called_ok() -> None:
    failed = stain.fit(painted((255, 255, 255)))
    with pytest.raises(ValueError, match="cannot be applied"):
        correction(failed, stain.MACENKO_REFERENCE)
    with pytest.raises(ValueError, match="cannot be ok"):
        failed.judged(stain.Verdict())


def test_a_normalizer_serves_batches_of_any_size_and_writes_where_it_is_told() -> None:
    patches = np.stack([he_patch(seed) for seed in range(5)])
    for fit in ("patch", stain.fit(patches[0])):
        expected = stain.normalize(patches, fit=fit)
        normalizer = stain.Normalizer(fit=fit)
        out = np.empty_like(patches)
        assert normalizer(patches, out=out).patches is out
        np.testing.assert_array_equal(out, expected.patches)
        for start, stop in ((0, 1), (1, 4), (4, 5), (2, 2)):
            part = normalizer(patches[start:stop])
            np.testing.assert_array_equal(part.patches, expected.patches[start:stop])
            assert part.fits == expected.fits[start:stop]
    with pytest.raises(ValueError, match="out must be contiguous"):
        normalizer(patches, out=np.empty((4, 4, 4, 3), dtype=np.uint8))


def test_a_normalizer_of_one_fit_per_patch_wants_as_many_patches() -> None:
    patches = np.stack([he_patch(seed) for seed in range(3)])
    normalizer = stain.Normalizer(fit=[stain.fit(patch) for patch in patches])
    assert normalizer(patches).status == ("fitted",) * 3
    with pytest.raises(ValueError, match="3 stain fits for 2 patches"):
        normalizer(patches[:2])
