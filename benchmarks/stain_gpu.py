"""What a GPU does for stain normalisation: whole calls, each kernel alone, and what the bus and its memory allow.

`benchmarks/stain.py --device gpu` reports it. Times are wall-clock: the work is not the CPU's.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exaone_prep import stain
from exaone_prep.stain.device import engine_for
from exaone_prep.stain.fitting import fit_loaded
from exaone_prep.stain.gpu_engine import GpuEngine
from exaone_prep.stain.tables import correction

Patches = NDArray[np.uint8]


def gpu_figures(patches: Patches, runs: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Figures and ratios of the GPU at hand.

    Raises:
        ManifestError: There is none.
    """
    engine = engine_for("gpu")
    assert isinstance(engine, GpuEngine)
    n_pixels = patches.shape[1] * patches.shape[2]
    many = np.concatenate([patches] * (-(-4 * engine.sets_at_once(n_pixels) * 3 // len(patches))))
    figures: dict[str, Any] = {"gpu": engine.card.name, "patches": len(many)}
    figures |= whole_calls(engine, many, runs)
    figures |= kernels_alone(engine, many[: engine.sets_at_once(n_pixels)], runs)
    figures |= limits(runs)
    bus = min(figures["upload_gb_per_s"], figures["download_gb_per_s"])
    bytes_each = patches[0].nbytes
    ratios = {
        "fit_slide_share_of_bus": figures["fit_slide_patches_per_s"] * bytes_each / 1e9 / bus,
        "fit_patch_share_of_bus": figures["fit_patch_patches_per_s"] * bytes_each / 1e9 / bus,
    }
    # A kernel reads each pixel once at least; to apply also writes it.
    for kernel, passes in (("moments", 1), ("pseudo_angles", 1), ("concentrations", 1), ("apply", 2)):
        moved = passes * bytes_each * figures[f"{kernel}_patches_per_s"] / 1e9
        figures[f"{kernel}_bytes_per_patch"] = passes * bytes_each
        ratios[f"{kernel}_share_of_memory_bandwidth"] = moved / figures["memory_gb_per_s"]
    cpu = engine_for("cpu")
    seconds = median_s(lambda: stain.normalize(patches, fit="patch", engine=cpu), runs)
    ratios["fit_patch_gpu_to_one_core"] = figures["fit_patch_patches_per_s"] * seconds / len(patches)
    return figures, ratios


def whole_calls(engine: GpuEngine, patches: Patches, runs: int) -> dict[str, float]:
    """`normalize` from host memory to host memory."""
    fit = stain.fit(patches[0], engine=engine_for("cpu"))
    usable = fit if fit.status == "ok" else stain.MACENKO_REFERENCE.as_fit()
    return {
        "fit_slide_patches_per_s": len(patches)
        / median_s(lambda: stain.normalize(patches, fit=usable, engine=engine), runs),
        "fit_patch_patches_per_s": len(patches)
        / median_s(lambda: stain.normalize(patches, fit="patch", engine=engine), runs),
    }


def kernels_alone(engine: GpuEngine, patches: Patches, runs: int, launches: int = 20) -> dict[str, float]:
    """Patches per second of each kernel, on patches that lie on the card: many launches, one wait."""
    n_pixels = patches.shape[1] * patches.shape[2]
    sets = patches.reshape(len(patches), n_pixels, 3)
    fits = [stain.fit(patch, engine=engine_for("cpu")) for patch in patches]
    usable = [fit if fit.status == "ok" else stain.MACENKO_REFERENCE.as_fit() for fit in fits]
    corrections = [correction(fit, stain.MACENKO_REFERENCE) for fit in usable]
    made = np.empty_like(sets)
    figures = {}
    with engine.load(sets) as loaded:
        lane = loaded.lane  # type: ignore[attr-defined]  # the GPU engine's own
        launch = lane.launch

        def timed(kernel: str, *how: Any) -> None:
            """Time each kernel when the engine itself starts it: its arguments are overwritten later."""

            def several() -> None:
                for _ in range(launches):
                    launch(kernel, *how)
                lane.wait()

            figures[f"{kernel}_patches_per_s"] = launches * len(patches) / median_s(several, runs)

        lane.launch = timed
        sums = np.empty((len(made), 6), dtype=np.int64)
        try:
            fit_loaded(loaded, n_pixels)
            loaded.apply(corrections, made, sums)
        finally:
            del lane.launch
    return figures


def limits(runs: int, n_bytes: int = 64 << 20) -> dict[str, float]:
    """GB/s of the bus both ways from pinned memory, and of the card's memory (a copy reads and writes)."""
    cupy: Any = importlib.import_module("cupy")
    host = np.frombuffer(cupy.cuda.alloc_pinned_memory(n_bytes), dtype=np.uint8, count=n_bytes)
    a, b = cupy.empty(n_bytes, dtype=cupy.uint8), cupy.empty(n_bytes, dtype=cupy.uint8)
    stream = cupy.cuda.Stream(non_blocking=True)

    def timed(copy: Callable[[], None], moved: int) -> float:
        def several() -> None:
            for _ in range(10):
                copy()
            stream.synchronize()

        return 10 * moved / 1e9 / median_s(several, runs)

    return {
        "upload_gb_per_s": timed(lambda: a.data.copy_from_host_async(host.ctypes.data, n_bytes, stream), n_bytes),
        "download_gb_per_s": timed(lambda: a.data.copy_to_host_async(host.ctypes.data, n_bytes, stream), n_bytes),
        "memory_gb_per_s": timed(lambda: b.data.copy_from_device_async(a.data, n_bytes, stream), 2 * n_bytes),
    }


def median_s(work: Callable[[], object], runs: int) -> float:
    """Median wall-clock seconds."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
