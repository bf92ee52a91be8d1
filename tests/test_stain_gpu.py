"""The GPU engine: its kernels compile for real cards, and give the bits of the CPU, with and without a card."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from exaone_prep import stain
from exaone_prep.errors import ManifestError
from exaone_prep.stain import cupy_card, device
from exaone_prep.stain.algebra import Vector
from exaone_prep.stain.card import COMPILER_OPTIONS, KERNELS
from exaone_prep.stain.density import EXACT_SUM_PIXELS
from exaone_prep.stain.engine import AngleQuery, ConcentrationQuery
from exaone_prep.stain.gpu_engine import CHUNK_BYTES, LANES, GpuEngine
from exaone_prep.stain.numpy_engine import NumpyEngine
from exaone_prep.stain.one_by_one import OneByOne
from tests import stain_oracle as oracle
from tests.cudacpu import CpuCard, library, needs_compiler, races
from tests.realdata import camelyon_patches, needs_real_data, read_rgb
from tests.test_stain_apply import STRANGE
from tests.test_stain_engines import NUMPY, assert_same, bits, random_patches

Pixels = NDArray[np.uint8]

NO_GPU = cupy_card.why_no_gpu()
needs_gpu = pytest.mark.skipif(NO_GPU is not None, reason=f"a GPU is needed: {NO_GPU}")


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return library(tmp_path_factory.mktemp("kernels"))


def compiled_for(architecture: str) -> tuple[str, bytes]:
    """PTX and machine code of the kernels, by NVRTC, with the options of the real card."""
    nvrtc: Any = pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC (cuda-bindings) is not in this environment")

    def done(answer: tuple[Any, ...]) -> Any:
        assert answer[0] == nvrtc.nvrtcResult.NVRTC_SUCCESS, answer[0]
        return answer[1] if len(answer) > 1 else None

    program = done(nvrtc.nvrtcCreateProgram(KERNELS.read_bytes(), b"kernels.cu", 0, [], []))
    options = [*(option.encode() for option in COMPILER_OPTIONS), f"--gpu-architecture={architecture}".encode()]
    answer = nvrtc.nvrtcCompileProgram(program, len(options), options)
    # It writes into what it is given. `b" " * 1` would be the one object that Python has for a blank.
    log = bytearray(done(nvrtc.nvrtcGetProgramLogSize(program)))
    done(nvrtc.nvrtcGetProgramLog(program, log))
    assert answer[0] == nvrtc.nvrtcResult.NVRTC_SUCCESS, log.decode()
    assert "warning" not in log.decode()
    ptx = bytearray(done(nvrtc.nvrtcGetPTXSize(program)))
    done(nvrtc.nvrtcGetPTX(program, ptx))
    cubin = bytearray(done(nvrtc.nvrtcGetCUBINSize(program)))
    done(nvrtc.nvrtcGetCUBIN(program, cubin))
    return ptx.decode(), bytes(cubin)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_the_kernels_compile_for_a_card_and_fuse_nothing(architecture: str) -> None:
    ptx, cubin = compiled_for(architecture)
    assert cubin.startswith(b"\x7fELF")
    entries = re.findall(r"\.entry (\w+)", ptx)
    assert sorted(entries) == ["apply", "concentrations", "moments", "pseudo_angles", "tables"]
    arithmetic = set(re.findall(r"^\s+((?:add|sub|mul|div|fma|mad)\.[\w.]*f(?:32|64))", ptx, re.MULTILINE))
    assert "mul.f32" in arithmetic or "mul.rn.f32" in arithmetic
    assert "div.rn.f64" in arithmetic
    assert not [one for one in arithmetic if one.startswith(("fma", "mad")) or "approx" in one or "ftz" in one]


@needs_compiler
def test_fits_and_pixels_of_500_random_patches_have_the_bits_of_the_cpu(code: ctypes.CDLL) -> None:
    engine = GpuEngine(CpuCard(code))
    for patch in random_patches(500):
        assert_same(engine, patch, device.engine_for("cpu"))


@needs_compiler
@needs_real_data
def test_fits_and_pixels_of_every_real_patch_have_the_bits_of_the_cpu_in_every_batch(code: ctypes.CDLL) -> None:
    patches = np.stack([read_rgb(path) for path in camelyon_patches()])
    patches[7], patches[40, :200] = 255, 250
    expected = stain.normalize(patches, fit="patch", on_failure="reference", device="cpu")
    one_patch = patches[0].nbytes
    for at_once in (1, 2, 7, 85, 1000):
        engine = GpuEngine(CpuCard(code), chunk_bytes=at_once * 2 * one_patch)
        assert engine.sets_at_once(256 * 256) >= at_once
        made = stain.normalize(patches, fit="patch", on_failure="reference", engine=engine)
        np.testing.assert_array_equal(made.patches, expected.patches)
        assert (made.status, made.fits) == (expected.status, expected.fits)
    for fit in (expected.fits[0], [each if each.status == "ok" else expected.fits[1] for each in expected.fits]):
        ours = stain.normalize(patches, fit=fit, engine=GpuEngine(CpuCard(code)))
        np.testing.assert_array_equal(ours.patches, stain.normalize(patches, fit=fit, device="cpu").patches)


@needs_compiler
@pytest.mark.parametrize("threads", [3, 8])
def test_blocks_of_several_threads_give_the_same_bits(threads: int, code: ctypes.CDLL) -> None:
    engine = GpuEngine(CpuCard(code, threads=threads))
    for patch in random_patches(24):
        assert_same(engine, patch, device.engine_for("cpu"))
    large = np.random.default_rng(3).normal(120, 30, (2, 150, 150, 3)).clip(0, 255).astype(np.uint8)
    large[0, :80] = (120, 60, 140)  # so many of one colour that their keys are never listed
    ours, theirs = (
        stain.normalize(large, fit="patch", engine=each, on_failure="reference")
        for each in (engine, device.engine_for("cpu"))
    )
    np.testing.assert_array_equal(ours.patches, theirs.patches)
    assert ours.fits == theirs.fits


@needs_compiler
def test_threads_of_a_block_never_write_what_another_may_read(tmp_path: Path) -> None:
    """The thread sanitizer sees no race, and does see those of kernels whose threads never wait for each other."""
    right, wrong = races(tmp_path / "right"), races(tmp_path / "wrong", "-DNEVER_MEET")
    assert right == ""
    assert "data race" in wrong


@needs_compiler
@pytest.mark.parametrize("name", STRANGE)
def test_strange_patches_have_the_bits_of_the_cpu(name: str, code: ctypes.CDLL) -> None:
    patch = np.ascontiguousarray(STRANGE[name]())[None]
    for on_failure in ("keep", "reference", "drop"):
        ours, theirs = (
            stain.normalize(patch, fit="patch", on_failure=on_failure, engine=engine)
            for engine in (GpuEngine(CpuCard(code)), NUMPY)
        )
        np.testing.assert_array_equal(ours.patches, theirs.patches)
        assert (ours.status, ours.fits, ours.dropped.tolist()) == (theirs.status, theirs.fits, theirs.dropped.tolist())


@needs_compiler
@given(
    hnp.arrays(
        np.uint8,
        st.tuples(st.integers(0, 4), st.integers(0, 40), st.integers(1, 40), st.just(3)),
        elements=st.integers(0, 255),
    ),
    st.integers(1, 255),
)
@settings(max_examples=80, deadline=None)
def test_any_batch_has_the_bits_of_the_cpu(code: ctypes.CDLL, patches: Pixels, colours: int) -> None:
    few = patches % np.uint8(colours)
    engine = GpuEngine(CpuCard(code), chunk_bytes=60_000)
    ours = stain.normalize(few, fit="patch", on_failure="reference", engine=engine)
    theirs = stain.normalize(few, fit="patch", on_failure="reference", engine=NUMPY)
    np.testing.assert_array_equal(ours.patches, theirs.patches)
    assert [bits(fit) for fit in ours.fits] == [bits(fit) for fit in theirs.fits]


@needs_compiler
def test_many_rows_of_pixels_have_the_bits_of_the_cpu(code: ctypes.CDLL) -> None:
    pixels = np.concatenate([patch.reshape(-1, 3) for patch in random_patches(80)])
    for count in (EXACT_SUM_PIXELS - 1, EXACT_SUM_PIXELS, EXACT_SUM_PIXELS + 1, 4 * EXACT_SUM_PIXELS + 7):
        assert len(pixels) > count
        assert_same(GpuEngine(CpuCard(code)), pixels[None, :count], device.engine_for("cpu"))


unit_coordinate = st.floats(-1, 1, allow_subnormal=False)
vector = st.tuples(unit_coordinate, unit_coordinate, unit_coordinate)


@needs_compiler
@given(first=vector, second=vector, scale=st.sampled_from([1e-300, 1e-9, 1.0, 1e15, 1e300]), share=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_order_statistics_along_any_axes_and_of_any_rank_have_the_bits_of_numpy(
    code: ctypes.CDLL, first: Vector, second: Vector, scale: float, share: float
) -> None:
    pixels = oracle.stained(oracle.HAEMATOXYLIN, oracle.EOSIN, side_px=96).reshape(1, -1, 3)
    x, y, z = (scale * value for value in second)
    with GpuEngine(CpuCard(code)).load(pixels) as ours, NUMPY.load(pixels) as theirs:
        moments = theirs.moments()
        assert ours.moments() == moments
        last = moments[0].n_kept - 1
        angles = [AngleQuery(first, second, (round(share * last), round((1 - share) * last)))]
        assert ours.pseudo_angles(angles) == theirs.pseudo_angles(angles)
        concentrations = [ConcentrationQuery((first, (x, y, z)), round(share * (pixels.shape[1] - 1)))]
        assert ours.concentrations(concentrations) == theirs.concentrations(concentrations)


@pytest.fixture
def patches() -> Pixels:
    return np.stack([oracle.stained(oracle.HAEMATOXYLIN, oracle.EOSIN, side_px=32, seed=seed) for seed in range(40)])


@needs_compiler
def test_chunks_fit_what_is_free_on_the_card(code: ctypes.CDLL, patches: Pixels) -> None:
    assert GpuEngine(CpuCard(code)).sets_at_once(256 * 256) == CHUNK_BYTES // (256 * 256 * 3 + 12_544)
    small = CpuCard(code, free_bytes=1 << 20)
    engine = GpuEngine(small)
    assert LANES * engine.sets_at_once(32 * 32) * 32 * 32 * 3 < 1 << 18
    made = stain.normalize(patches, fit="patch", engine=engine)
    np.testing.assert_array_equal(made.patches, stain.normalize(patches, fit="patch", device="cpu").patches)
    assert GpuEngine(CpuCard(code, free_bytes=0)).sets_at_once(256 * 256) == 1


@needs_compiler
def test_lanes_share_the_work_and_are_used_again(code: ctypes.CDLL, patches: Pixels) -> None:
    card = CpuCard(code)
    engine = GpuEngine(card, chunk_bytes=40_000)
    expected = stain.normalize(patches, fit="patch", device="cpu").patches
    for _ in range(3):
        np.testing.assert_array_equal(stain.normalize(patches, fit="patch", engine=engine).patches, expected)
    assert 1 <= len(card.lanes) <= LANES
    launched = [kernel for lane in card.lanes for kernel, _ in lane.launches]
    chunks = 3 * -(-len(patches) // engine.sets_at_once(32 * 32))
    assert launched.count("moments") == launched.count("apply") == chunks


@needs_compiler
def test_a_fault_of_the_card_is_told_and_the_lane_is_free_again(code: ctypes.CDLL, patches: Pixels) -> None:
    card = CpuCard(code)
    engine = GpuEngine(card)
    for fails_at in ("moments", "concentrations", "apply") * 2:
        card.fails_at = fails_at
        with pytest.raises(RuntimeError, match="fallen out"):
            stain.normalize(patches, fit="patch", engine=engine)
    card.fails_at = None
    made = stain.normalize(patches, fit="patch", engine=engine).patches
    np.testing.assert_array_equal(made, stain.normalize(patches, fit="patch", device="cpu").patches)
    assert len(card.lanes) <= LANES


@needs_compiler
def test_one_fit_for_all_patches_is_sent_to_the_card_once(code: ctypes.CDLL, patches: Pixels) -> None:
    card = CpuCard(code)
    stain.normalize(patches, fit=stain.fit(patches), engine=GpuEngine(card))
    assert card.lanes[0].launches == [("tables", (1, 1)), ("apply", (1, len(patches)))]


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "why_no_gpu", lambda: None)
    assert device.resolved("auto") == "gpu"
    assert device.resolved("cpu") == "cpu"
    monkeypatch.setattr(device, "why_no_gpu", lambda: "this machine has no NVIDIA driver")
    assert device.resolved("auto") == "cpu"
    with pytest.raises(ManifestError, match="no NVIDIA driver; choose device: cpu or auto"):
        device.resolved("gpu")


def test_a_gpu_that_cupy_cannot_use_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("cudaErrorInsufficientDriver")

    device._gpu.cache_clear()
    monkeypatch.setattr(device, "why_no_gpu", lambda: None)
    monkeypatch.setattr(device, "CupyCard", broken)
    with pytest.raises(ManifestError, match=r"CuPy cannot use it \(cudaErrorInsufficientDriver\)"):
        device.engine_for("gpu")
    device._gpu.cache_clear()


@pytest.fixture(scope="module")
def real_gpu() -> stain.Engine:
    return device.engine_for("gpu")


@pytest.mark.gpu
@needs_gpu
def test_a_real_card_gives_the_bits_of_the_cpu_for_random_patches(real_gpu: stain.Engine) -> None:
    for patch in random_patches(500):
        assert_same(real_gpu, patch, device.engine_for("cpu"))


@pytest.mark.gpu
@needs_gpu
def test_a_real_card_gives_the_bits_of_the_cpu_in_large_batches(real_gpu: stain.Engine) -> None:
    patches = np.stack([oracle.stained(oracle.HAEMATOXYLIN, oracle.EOSIN, side_px=256, seed=seed) for seed in range(8)])
    patches = np.concatenate([patches] * 64)
    patches[100], patches[101, :250] = 255, 250
    for _ in range(3):
        ours, theirs = (
            stain.normalize(patches, fit="patch", on_failure="reference", engine=engine)
            for engine in (real_gpu, device.engine_for("cpu"))
        )
        np.testing.assert_array_equal(ours.patches, theirs.patches)
        assert (ours.fits, ours.status) == (theirs.fits, theirs.status)


@pytest.mark.gpu
@needs_gpu
def test_the_array_engine_on_cupy_gives_the_bits_of_numpy() -> None:
    cupy = pytest.importorskip("cupy")
    engine = OneByOne(NumpyEngine(cupy))
    for patch in random_patches(60):
        assert_same(engine, patch, NUMPY)
