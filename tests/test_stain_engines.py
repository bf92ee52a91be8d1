"""Engines differ in speed alone: the same fits and the same pixels, bit for bit, however the work is divided."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from exaone_prep import stain
from exaone_prep.errors import ManifestError
from exaone_prep.stain import device
from exaone_prep.stain.algebra import Vector
from exaone_prep.stain.density import EXACT_SUM_PIXELS, OD_FIXED, OD_TABLE
from exaone_prep.stain.engine import AngleQuery, ConcentrationQuery
from exaone_prep.stain.numpy_engine import NumpyEngine
from exaone_prep.stain.one_by_one import OneByOne
from exaone_prep.stain.tables import correction
from tests import stain_oracle as oracle
from tests.realdata import camelyon_patches, needs_real_data, read_rgb
from tests.test_stain_apply import STRANGE

REASON = "numba is not in this environment"
numba_engine = pytest.importorskip("exaone_prep.stain.numba_engine", reason=REASON)
fit_kernels = pytest.importorskip("exaone_prep.stain.fit_kernels", reason=REASON)

Pixels = NDArray[np.uint8]
ROOT = Path(__file__).resolve().parents[1]
NUMPY = OneByOne(NumpyEngine())


@pytest.fixture(scope="module")
def compiled() -> stain.Engine:
    return OneByOne(numba_engine.NumbaEngine())


def bits(fit: stain.StainFit) -> str:
    return json.dumps(fit.to_json())


def assert_same(engine: stain.Engine, patch: Pixels, other: stain.Engine = NUMPY) -> None:
    ours, theirs = stain.fit(patch, engine=engine), stain.fit(patch, engine=other)
    assert bits(ours) == bits(theirs)
    usable = ours if ours.status == "ok" else stain.MACENKO_REFERENCE.as_fit()
    wanted = [correction(usable, stain.MACENKO_REFERENCE)]
    sets = patch.reshape(1, -1, 3)
    made, expected = np.empty_like(sets), np.empty_like(sets)
    for each, out in ((engine, made), (other, expected)):
        sums = np.full((1, 6), -1, dtype=np.int64)
        with each.load(sets) as loaded:
            loaded.apply(wanted, out, sums)
        levels = out[0].astype(np.int64)
        np.testing.assert_array_equal(sums[0], [*levels.sum(axis=0), *(levels**2).sum(axis=0)])
    np.testing.assert_array_equal(made, expected)


def random_patches(count: int) -> Iterator[Pixels]:
    """Stains in all directions, from nearly white to nearly black, in many sizes; few colours, gradients, noise."""
    rng = np.random.default_rng(20)
    for number in range(count):
        height, width = rng.integers(1, 200, 2)
        kind = number % 4
        if kind == 0:
            directions = rng.dirichlet((2, 2, 2), 2)
            amounts = rng.gamma(1.5, rng.uniform(0.1, 1.5), (height, width, 2))
            levels = 240 * np.exp(-2 * amounts @ directions) + rng.normal(0, 2, (height, width, 3))
        elif kind == 1:
            palette = rng.integers(0, 256, (rng.integers(1, 9), 3))
            levels = palette[rng.integers(0, len(palette), (height, width))].astype(np.float64)
        elif kind == 2:
            ramp = np.linspace(0, 1, height * width).reshape(height, width, 1)
            levels = rng.integers(0, 256, 3) * (1 - ramp) + rng.integers(0, 256, 3) * ramp
        else:
            low, high = sorted(rng.integers(0, 257, 2))
            levels = rng.integers(low, max(high, low + 1), (height, width, 3)).astype(np.float64)
        yield levels.clip(0, 255).astype(np.uint8)


def test_fits_and_pixels_of_500_random_patches_have_equal_bits(compiled: stain.Engine) -> None:
    for patch in random_patches(500):
        assert_same(compiled, patch)


@needs_real_data
def test_fits_tables_and_pixels_of_every_real_patch_have_equal_bits(compiled: stain.Engine) -> None:
    for number, path in enumerate(camelyon_patches()):
        patch = read_rgb(path)
        assert_same(compiled, patch)
        assert_same(compiled, np.ascontiguousarray(patch[number : number + 100, : 30 + number]))


@pytest.mark.parametrize("name", STRANGE)
def test_strange_patches_have_equal_bits(name: str, compiled: stain.Engine) -> None:
    patch = np.ascontiguousarray(STRANGE[name]())
    assert_same(compiled, patch)
    for on_failure in ("keep", "reference", "drop"):
        ours, theirs = (
            stain.normalize(patch[None], fit="patch", on_failure=on_failure, engine=engine)
            for engine in (compiled, NUMPY)
        )
        np.testing.assert_array_equal(ours.patches, theirs.patches)
        assert (ours.status, ours.fits, ours.dropped.tolist()) == (theirs.status, theirs.fits, theirs.dropped.tolist())


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(0, 60), st.integers(1, 60), st.just(3)), elements=st.integers(0, 255)),
    st.integers(1, 255),
)
@settings(max_examples=150, deadline=None)
def test_any_image_has_equal_bits(pixels: Pixels, colours: int) -> None:
    assert_same(device.engine_for("cpu"), pixels)
    assert_same(device.engine_for("cpu"), pixels % np.uint8(colours))


def test_many_rows_of_pixels_have_equal_bits(compiled: stain.Engine) -> None:
    pixels = np.concatenate([patch.reshape(-1, 3) for patch in random_patches(80)])
    for count in (EXACT_SUM_PIXELS - 1, EXACT_SUM_PIXELS, EXACT_SUM_PIXELS + 1, 4 * EXACT_SUM_PIXELS + 7):
        assert len(pixels) > count
        assert_same(compiled, pixels[None, :count])


@pytest.mark.parametrize("count", [4095, 4096, 20_000, 65_536])
def test_a_sample_that_misleads_costs_time_and_no_bit(count: int, compiled: stain.Engine) -> None:
    rng = np.random.default_rng(count)
    pixels = rng.integers(20, 200, (count, 3), np.uint8)
    for colour in ((5, 5, 200), (200, 6, 6), (255, 255, 255), (120, 120, 120)):
        misleading = pixels.copy()
        misleading[:: (count // 2048) | 1] = colour
        assert_same(compiled, misleading[None])
        assert_same(
            compiled, np.where(np.arange(count)[:, None] % 3 == 0, np.array(colour, dtype=np.uint8), pixels)[None]
        )


unit_coordinate = st.floats(-1, 1, allow_subnormal=False)
vector = st.tuples(unit_coordinate, unit_coordinate, unit_coordinate)


@given(first=vector, second=vector, scale=st.sampled_from([1e-9, 1.0, 30.0, 1e15]), share=st.floats(0, 0.2))
@settings(max_examples=100, deadline=None)
def test_order_statistics_along_any_axes_have_equal_bits(
    first: Vector, second: Vector, scale: float, share: float
) -> None:
    pixels = oracle.stained(oracle.HAEMATOXYLIN, oracle.EOSIN, side_px=96).reshape(-1, 3)
    with device.engine_for("cpu").load(pixels[None]) as ours, NUMPY.load(pixels[None]) as theirs:
        moments = theirs.moments()
        assert ours.moments() == moments
        kept = moments[0].n_kept
        angles = [AngleQuery(first, second, (round(share * (kept - 1)), round((1 - share) * (kept - 1))))]
        assert ours.pseudo_angles(angles) == theirs.pseudo_angles(angles)
        x, y, z = (scale * value for value in second)
        concentrations = [ConcentrationQuery((first, (x, y, z)), round((1 - share) * (len(pixels) - 1)))]
        assert ours.concentrations(concentrations) == theirs.concentrations(concentrations)


@given(
    values=hnp.arrays(
        np.float64,
        st.integers(1, 300),
        elements=st.one_of(
            st.floats(-1e300, 1e300), st.sampled_from([-1.0, -0.0, 0.0, 0.5, 5e-324, 1e-310, 1.7e308, -1.7e308])
        ),
    ),
    share=st.floats(0, 1),
)
@settings(max_examples=300, deadline=None)
def test_selection_is_that_of_sorting(values: NDArray[np.float64], share: float) -> None:
    rank = round(share * (len(values) - 1))
    chosen = fit_kernels.select(np.append(values, 7.0), len(values), rank)
    assert chosen == np.sort(values)[rank]
    assert not np.signbit(chosen) or chosen < 0


@needs_real_data
def test_every_batch_size_and_number_of_threads_gives_the_same_pixels(compiled: stain.Engine) -> None:
    paths = camelyon_patches()[:33]
    patches = np.stack([read_rgb(path)[:96, :96] for path in paths])
    patches[5] = 255
    alone = [stain.normalize(patch[None], fit="patch", engine=NUMPY, on_failure="reference") for patch in patches]
    for size in range(1, 34):
        for threads in (1, 2, 3, 4) if size in (1, 2, 7, 33) else (1 + size % 4,):
            batch = stain.normalize(
                patches[:size], fit="patch", on_failure="reference", engine=compiled, threads=threads
            )
            assert batch.status == tuple(one.status[0] for one in alone[:size])
            assert [bits(fit) for fit in batch.fits] == [bits(one.fits[0]) for one in alone[:size]]
            for made, one in zip(batch.patches, alone, strict=False):
                np.testing.assert_array_equal(made, one.patches[0])


def test_tables_have_equal_bits() -> None:
    fits = [stain.fit(patch) for patch in random_patches(60)]
    matrices = [correction(fit, stain.MACENKO_REFERENCE) for fit in fits if fit.status == "ok"]
    assert len(matrices) > 5
    assert numba_engine.NumbaEngine().tables(matrices).tobytes() == NumpyEngine().tables(matrices).tobytes()


def test_patches_that_are_not_contiguous_have_equal_bits(compiled: stain.Engine) -> None:
    patches = np.stack([oracle.stained(oracle.HAEMATOXYLIN, oracle.EOSIN, side_px=80, seed=seed) for seed in range(3)])
    expected = stain.normalize(patches, fit="patch", engine=NUMPY)
    for strange in (
        np.asfortranarray(patches),
        np.repeat(patches, 2, axis=0)[::2],
        np.ascontiguousarray(patches[..., ::-1])[..., ::-1],
    ):
        assert not strange.flags.c_contiguous
        made = stain.normalize(strange, fit="patch", engine=compiled)
        np.testing.assert_array_equal(made.patches, expected.patches)


PROBE = """
import hashlib, json, os, sys, time
import numpy as np
if len(sys.argv) > 2:  # start together
    os.mkdir(sys.argv[2] + str(os.getpid()))
    while len(os.listdir(os.path.dirname(sys.argv[2]))) < 2:
        time.sleep(0.01)
from exaone_prep import stain
from exaone_prep.stain import compilation
patches = np.load(sys.argv[1])
batch = stain.normalize(patches, fit="patch")
kernels = compilation.compiled()
text = "".join(code for kernel in kernels for code in kernel.inspect_asm().values())
print(json.dumps({
    "digest": hashlib.sha256(batch.patches.tobytes()).hexdigest(),
    "fused": "vfmadd" in text or "vfmsub" in text or "vfnmadd" in text,
    "code": len(text),
    "engine": stain.engine_for("cpu").name,
    "place": str(kernels.apply.stats.cache_path),
    "package": os.path.dirname(stain.__file__),
}))
"""


def start(arguments: list[str], *, folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    unset = {"NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "PYTHONPATH"}
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    return subprocess.Popen(
        [sys.executable, "-c", PROBE, *arguments],
        cwd=folder,
        env={**inherited, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> tuple[dict[str, object], bool]:
    """What the probe printed, and whether it announced a compilation."""
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    answer: dict[str, object] = json.loads(out)
    return answer, "Compiling the stain kernels" in errors


def probe_patches(tmp_path: Path) -> tuple[Path, str]:
    patches = np.stack([oracle.stained(oracle.HAEMATOXYLIN, oracle.EOSIN, side_px=64, seed=seed) for seed in range(2)])
    np.save(tmp_path / "patches.npy", patches)
    answer = stain.normalize(patches, fit="patch", engine=NUMPY).patches
    return tmp_path / "patches.npy", hashlib.sha256(answer.tobytes()).hexdigest()


def test_two_processes_that_start_at_once_compile_once_and_fuse_nothing(tmp_path: Path) -> None:
    file, digest = probe_patches(tmp_path)
    (tmp_path / "started").mkdir()
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    pair = [start([str(file), str(tmp_path / "started" / "p")], folder=ROOT, environment=cache) for _ in range(2)]
    answers = [finished(process) for process in pair]
    assert sorted(announced for _, announced in answers) == [False, True]
    for answer, announced in answers:
        assert answer["engine"] == "numba"
        assert answer["digest"] == digest
        assert str(answer["place"]).startswith(str(tmp_path / "cache"))
        if announced:
            assert answer["code"]
            assert not answer["fused"]


def test_kernels_are_cached_at_home_or_not_at_all_where_the_package_cannot_be_written(tmp_path: Path) -> None:
    file, digest = probe_patches(tmp_path)
    shutil.copytree(ROOT / "exaone_prep", tmp_path / "exaone_prep", ignore=shutil.ignore_patterns("__pycache__"))
    # A file in the way stands for a folder without write permission, which would not stop root.
    (tmp_path / "exaone_prep" / "stain" / "__pycache__").touch()
    (tmp_path / "home").mkdir()
    quick = {"NUMBA_OPT": "1"}
    homes = [str(tmp_path / "home"), "/dev/null"]
    pair = [start([str(file)], folder=tmp_path, environment=quick | {"HOME": home}) for home in homes]
    (at_home, first), (nowhere, second) = (finished(process) for process in pair)
    assert first
    assert second
    assert at_home["package"] == nowhere["package"] == str(tmp_path / "exaone_prep" / "stain")
    assert str(at_home["place"]).startswith(str(tmp_path / "home"))
    assert nowhere["place"] == "None"
    assert at_home["digest"] == nowhere["digest"] == digest
    again, announced = finished(start([str(file)], folder=tmp_path, environment=quick | {"HOME": homes[0]}))
    assert not announced
    assert again["digest"] == digest


def test_without_numba_the_numpy_engine_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    device._cpu.cache_clear()
    try:
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, "numba", None)
            assert stain.engine_for("auto").name == "numpy"
    finally:
        device._cpu.cache_clear()
    assert stain.engine_for("auto").name == "numba"


def test_patches_that_stay_as_they_are_are_counted_where_there_is_no_numba() -> None:
    script = """
import sys
sys.modules["numba"] = None
import numpy as np
from exaone_prep import stain
batch = stain.normalize(np.full((1, 32, 32, 3), 250, np.uint8), fit="patch", device="cpu")
assert batch.status == ("kept",)
assert batch.sums.tolist() == [[250 * 1024] * 3 + [250 * 250 * 1024] * 3]
assert stain.engine_for("cpu").name == "numpy"
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_numba_is_not_imported_before_it_has_work_to_do() -> None:
    script = "import sys; from exaone_prep import stain; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def test_a_gpu_that_cannot_be_used_is_refused_in_a_sentence() -> None:
    with pytest.raises(ManifestError, match="choose device: cpu"):
        stain.normalize(np.zeros((1, 4, 4, 3), dtype=np.uint8), fit="patch", device="gpu")


def test_no_threads_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="thread"):
        stain.normalize(np.zeros((1, 4, 4, 3), dtype=np.uint8), fit="patch", threads=0)


def test_no_pixel_within_a_limit_is_missed_by_the_coarse_search() -> None:
    rng = np.random.default_rng(5)
    levels = np.concatenate([rng.integers(0, 256, (3000, 3)), np.zeros((8, 3)), np.full((8, 3), 255)]).astype(np.uint8)
    density = OD_TABLE[levels]
    coarse = np.ascontiguousarray((OD_FIXED.astype(np.int32)[levels] >> 9).astype(np.int16).T)
    kept, index = np.ones(len(levels), np.uint8), np.empty(2 * 4096, np.int32)
    flagged_of_all = 0
    for _ in range(300):
        axes = rng.normal(size=(2, 3)) * 10 ** rng.uniform(-3, 3)
        forms = np.stack([density[:, 0] * a + density[:, 1] * b + density[:, 2] * c for a, b, c in axes])
        bounds = np.array([rng.choice(form) for form in forms])  # so that some lie on it
        factors, limits = np.empty((2, 3), np.float32), np.empty(2, np.float32)
        assert fit_kernels.coarse_forms(axes, bounds, 0.0, factors, limits)
        found = fit_kernels.tail(coarse, kept, 0, factors, limits, index)
        within = (forms <= bounds[:, None]).any(axis=0)
        assert set(np.flatnonzero(within)) <= set(index[:found].tolist())
        flagged_of_all += found - int(within.sum())
    assert flagged_of_all < 300 * 0.01 * len(levels)
