"""A stain fit follows its definition, is the same on every CPU, and does not depend on the order of pixels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Context, Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from exaone_prep import stain
from exaone_prep.errors import DatasetError, ManifestError
from exaone_prep.stain.algebra import angle_deg, columns, eigen_symmetric, pseudo_inverse
from exaone_prep.stain.density import EXACT_SUM_PIXELS, MAX_KEPT_LEVEL, OD_FIXED, OD_TABLE
from exaone_prep.stain.fitting import direction, rank
from exaone_prep.stain.numpy_engine import order_statistic, pseudo_angle
from tests import stain_oracle as oracle
from tests.realdata import camelyon_patches, needs_real_data, read_rgb

Pixels = NDArray[np.uint8]


def he_patch(seed: int = 0, side_px: int = 256) -> Pixels:
    return oracle.stained(oracle.HAEMATOXYLIN, oracle.EOSIN, seed=seed, side_px=side_px)


def matrix_of(fit: stain.StainFit) -> NDArray[np.float64]:
    assert fit.stain_matrix is not None
    return np.array(fit.stain_matrix)


def assert_like_oracle(pixels: Pixels) -> None:
    ours, theirs = stain.fit(pixels), oracle.fit(pixels)
    np.testing.assert_allclose(matrix_of(ours), theirs.stain_matrix, atol=2e-5)
    assert ours.max_concentration is not None
    np.testing.assert_allclose(ours.max_concentration, theirs.max_concentration, rtol=1e-4)
    assert ours.diagnostics.angle_deg == pytest.approx(oracle.angle_deg(*theirs.stain_matrix.T), abs=2e-3)


def test_optical_densities_are_correctly_rounded_and_sums_of_their_squares_fit_an_int64() -> None:
    context = Context(prec=60)
    exact = [-context.ln(context.divide(Decimal(level + 1), Decimal(240))) for level in range(256)]
    assert OD_TABLE.tolist() == [float(value) for value in exact]
    assert int(np.abs(OD_FIXED).max()) ** 2 * EXACT_SUM_PIXELS < 2**63
    assert OD_TABLE[MAX_KEPT_LEVEL] >= 0.15 > OD_TABLE[MAX_KEPT_LEVEL + 1]


@needs_real_data
def test_fit_of_every_real_patch_agrees_with_an_independent_one() -> None:
    for path in camelyon_patches():
        assert_like_oracle(read_rgb(path))


@pytest.mark.parametrize("seed", range(5))
def test_fit_of_generated_stain_agrees_with_an_independent_one(seed: int) -> None:
    assert_like_oracle(he_patch(seed))


def test_fit_recovers_the_vectors_that_painted_the_pixels() -> None:
    fit = stain.fit(oracle.stained(oracle.HAEMATOXYLIN, np.array([0.27, 0.84, 0.46]), amounts=(0.7, 0.7)))
    h, e = matrix_of(fit).T
    assert fit.status == "ok"
    assert oracle.angle_deg(h, oracle.HAEMATOXYLIN) < 3
    assert oracle.angle_deg(e, np.array([0.27, 0.84, 0.46])) < 3


@given(order=st.integers(0, 2**32 - 1), seed=st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_permuting_the_pixels_changes_no_bit_of_the_fit(order: int, seed: int) -> None:
    pixels = he_patch(seed, side_px=160).reshape(-1, 3)
    permutation = np.random.default_rng(order).permutation(len(pixels))
    assert stain.fit(pixels[permutation]).to_json() == stain.fit(pixels).to_json()


def test_fit_over_many_blocks_equals_the_fit_over_the_same_pixels_shuffled() -> None:
    pixels = np.concatenate([he_patch(seed).reshape(-1, 3) for seed in range(4)])[: 3 * EXACT_SUM_PIXELS + 17]
    shuffled = np.random.default_rng(1).permutation(pixels)
    assert stain.fit(shuffled) == stain.fit(pixels)
    assert_like_oracle(pixels)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(0, 40), st.integers(1, 40), st.just(3))))
@settings(max_examples=60, deadline=None)
def test_any_pixels_give_a_fit_of_finite_numbers(pixels: Pixels) -> None:
    fit = stain.fit(pixels)
    assert fit.diagnostics.n_pixels == pixels.size // 3
    assert (fit.status == "ok") == (stain.verdict_patch(fit) == stain.Verdict())
    json.dumps(fit.to_json(), allow_nan=False)


def test_json_of_a_fit_gives_the_same_bits_back() -> None:
    for fit in (stain.fit(he_patch()), stain.fit(np.full((64, 64, 3), 255, dtype=np.uint8))):
        assert stain.StainFit.from_json(json.loads(json.dumps(fit.to_json()))) == fit


@pytest.mark.parametrize("change", [{"status": "good"}, {"stain_matrix": [[1.0, 2.0]]}, {"diagnostics": None}])
def test_a_stored_fit_that_is_damaged_is_refused_with_a_sentence(change: dict[str, object]) -> None:
    with pytest.raises(DatasetError, match="cannot be read"):
        stain.StainFit.from_json(stain.fit(he_patch()).to_json() | change)


@pytest.mark.parametrize("pixels", [np.zeros((4, 3)), np.zeros((4, 4), dtype=np.uint8), np.zeros(3, dtype=np.uint8)])
def test_arrays_that_are_no_pixels_are_refused(pixels: Pixels) -> None:
    with pytest.raises(ValueError, match="uint8"):
        stain.fit(pixels)


@given(hnp.arrays(np.float64, (3, 3), elements=st.floats(-10, 10, allow_subnormal=False)))
@settings(max_examples=200, deadline=None)
def test_eigenvectors_solve_the_eigenproblem(matrix: NDArray[np.float64]) -> None:
    symmetric = matrix + matrix.T
    a, b, c = symmetric.tolist()
    values, vectors = eigen_symmetric((tuple(a), tuple(b), tuple(c)))
    scale = max(1.0, float(np.abs(symmetric).max()))
    np.testing.assert_allclose(sorted(values), np.linalg.eigvalsh(symmetric), atol=1e-13 * scale)
    assert list(values) == sorted(values, reverse=True)
    for value, vector in zip(values, np.array(vectors), strict=True):
        np.testing.assert_allclose(symmetric @ vector, value * vector, atol=1e-12 * scale)
        assert np.linalg.norm(vector) == pytest.approx(1.0)
        assert vector.sum() > -1e-12
    np.testing.assert_allclose(np.array(vectors) @ np.array(vectors).T, np.eye(3), atol=1e-12)


@given(st.lists(st.floats(0.01, 1), min_size=6, max_size=6))
def test_pseudo_inverse_and_angle_are_those_of_numpy(values: list[float]) -> None:
    a, b, c, d, e, f = values
    matrix = ((a, b), (c, d), (e, f))
    h, x = columns(matrix)
    assert angle_deg(h, x) == pytest.approx(oracle.angle_deg(np.array(h), np.array(x)), abs=1e-7)
    if angle_deg(h, x) > 1:
        np.testing.assert_allclose(pseudo_inverse(matrix), np.linalg.pinv(np.array(matrix)), rtol=1e-8, atol=1e-8)


def test_angles_of_all_quadrants_are_measured() -> None:
    for degrees in range(181):
        phi = np.radians(degrees)
        assert angle_deg((1.0, 0.0, 0.0), (float(np.cos(phi)), float(np.sin(phi)), 0.0)) == pytest.approx(degrees)


def test_pseudo_angles_are_ordered_as_angles_and_lead_back_to_the_direction() -> None:
    phi = np.linspace(-np.pi + 1e-6, np.pi, 2001)
    angles = pseudo_angle(np.cos(phi) * 3.0, np.sin(phi) * 3.0)
    assert (np.diff(angles) > 0).all()
    for angle, expected in zip(angles.tolist(), phi.tolist(), strict=True):
        x, y = direction(angle)
        assert np.arctan2(y, x) == pytest.approx(expected, abs=1e-12)
    assert pseudo_angle(np.zeros(1), np.zeros(1)).tolist() == [0.0]
    assert pseudo_angle(np.array([-1.0]), np.array([-0.0])).tolist() == [2.0]


@given(
    values=hnp.arrays(
        np.float64, st.sampled_from([1, 7, 20_000]), elements=st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0])
    ),
    share=st.floats(0, 1),
)
@settings(max_examples=60, deadline=None)
def test_order_statistics_of_values_with_ties_are_those_of_sorting(values: NDArray[np.float64], share: float) -> None:
    place = round(share * (len(values) - 1))
    assert order_statistic(values, place) == np.sort(values)[place]


@pytest.mark.parametrize("percent", [0, 1, 2, 24, 25, 50, 75, 98, 99, 100])
@pytest.mark.parametrize("shape", ["sorted", "reversed", "random", "one far tail"])
def test_order_statistics_of_long_arrays_are_those_of_sorting(percent: int, shape: str) -> None:
    values = np.random.default_rng(percent).normal(size=50_001)
    ordered = np.sort(values)
    if shape == "one far tail":
        values[::24] = 1e6  # what a sample with that stride would see first
        ordered = np.sort(values)
    values = {"sorted": ordered, "reversed": ordered[::-1].copy()}.get(shape, values)
    place = rank(percent, len(values))
    assert order_statistic(values, place) == ordered[place]


def test_ranks_round_half_to_even() -> None:
    assert [rank(1, n) for n in (1, 51, 151, 101)] == [0, 0, 2, 1]
    assert [rank(99, n) for n in (1, 51, 151, 101)] == [0, 50, 148, 99]


def test_reference_files_are_read_and_faults_in_them_named(tmp_path: Path) -> None:
    file = tmp_path / "lab.json"
    assert stain.load_reference("macenko") is stain.MACENKO_REFERENCE
    file.write_text(json.dumps(stain.MACENKO_REFERENCE.to_json()))
    assert stain.load_reference(file) == stain.MACENKO_REFERENCE
    fit = stain.fit(he_patch())
    file.write_text(json.dumps(fit.to_json()))
    assert stain.load_reference(file).stain_matrix == fit.stain_matrix
    assert stain.load_reference(file).name == "lab"
    good = stain.MACENKO_REFERENCE.to_json()
    for fault, sentence in (
        ("{", "not usable"),
        ("[1]", "not usable"),
        (json.dumps({"stain_matrix": good["stain_matrix"]}), "lacks the field 'max_concentration'"),
        (json.dumps(good | {"max_concentration": [1.0, 0.0]}), "above 0"),
        (json.dumps(good | {"stain_matrix": [[1, 2, 3], [4, 5, 6]]}), "not usable"),
        (json.dumps(good | {"stain_matrix": [[5, 1], [7, 3], [4, 2]]}), "length 1"),
        (json.dumps(good | {"stain_matrix": [[0.5626, 0.5626], [0.7201, 0.7201], [0.4062, 0.4062]]}), "5° apart"),
        (json.dumps(good).replace("0.5626", "NaN"), "finite"),
    ):
        file.write_text(fault)
        with pytest.raises(ManifestError, match=sentence):
            stain.load_reference(file)
    with pytest.raises(ManifestError, match="cannot be read"):
        stain.load_reference(tmp_path / "missing.json")


DIGEST = """
import hashlib, json, sys
import numpy as np
from exaone_prep import stain
patches = np.load(sys.argv[1])
batch = stain.normalize(patches, fit="patch", on_failure="reference")
whole = stain.fit(patches)
document = [fit.to_json() for fit in batch.fits] + [whole.to_json(), batch.status]
digest = hashlib.sha256(json.dumps(document).encode())
digest.update(batch.patches.tobytes())
digest.update(stain.normalize(patches, fit=whole, on_failure="reference").patches.tobytes())
features = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
print(digest.hexdigest(), len(features))
"""


def run_digest(patches: Path, environment: dict[str, str]) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", DIGEST, str(patches)],
        env={**os.environ, **environment},
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    digest, features = done.stdout.split()
    return digest, int(features)


def test_fits_and_pixels_have_the_same_bits_on_a_lesser_cpu(tmp_path: Path) -> None:
    present: list[str] = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    if not present:
        pytest.skip("this CPU has no optional SIMD features that NumPy could do without")
    patches = [he_patch(seed) for seed in range(3)] + [
        np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    ]
    patches += [read_rgb(path) for path in camelyon_patches()[::12]]
    file = tmp_path / "patches.npy"
    np.save(file, np.stack(patches))
    digest, features = run_digest(file, {})
    lesser = {"NPY_DISABLE_CPU_FEATURES": " ".join(present), "OPENBLAS_CORETYPE": "Prescott"}
    lesser_digest, lesser_features = run_digest(file, lesser)
    assert lesser_features < features
    assert lesser_digest == digest
