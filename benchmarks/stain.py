"""CPU time of stain normalisation per 256×256 patch: fit, tables, apply, against one look-up per byte and peers.

The ratios: `apply_to_look_up` (our time over one table look-up per byte of the same array), and how many times the
fastest peer's time ours is, for applying a given fit and for fitting and applying every patch. Peers run in processes
of their own, with the Python that has them, on one thread like ours.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peer_python import answers
from report import cpu_ms, real_patches, report
from stain_gpu import gpu_figures

from exaone_prep import stain
from exaone_prep.errors import ManifestError
from exaone_prep.stain.numpy_engine import NumpyEngine
from exaone_prep.stain.one_by_one import OneByOne
from exaone_prep.stain.tables import correction

Patches = NDArray[np.uint8]

ROOT = Path(__file__).resolve().parents[1]
PEERS = ("torchstain", "torch_staintools", "stainx", "tiatoolbox")
PEER_PATCHES = 8


def generated_patches(count: int) -> Patches:
    """Random colours along two stains, where there are no real patches: the same work, not the same pixels."""
    rng = np.random.default_rng(0)
    amounts = rng.gamma(2.0, 0.5, (count, 256, 256, 2))
    levels: NDArray[np.float64] = 240 * np.exp(-amounts @ np.array([[0.65, 0.70, 0.29], [0.27, 0.84, 0.46]]))
    return levels.astype(np.uint8)


def engine_figures(engine: OneByOne, patches: Patches, runs: int) -> dict[str, float]:
    """Milliseconds per patch of each step."""
    fits = [fit for fit in (stain.fit(patch, engine=engine) for patch in patches) if fit.status == "ok"]
    corrections = [correction(fit, stain.MACENKO_REFERENCE) for fit in fits]
    table = engine.pixel_engine.tables(corrections[:1])[0]
    out, sums = np.empty_like(patches), np.empty(6, dtype=np.int64)

    def apply() -> None:
        for patch, target in zip(patches, out, strict=True):
            engine.pixel_engine.apply(patch.reshape(-1, 3), table, target.reshape(-1, 3), sums)

    steps: dict[str, Callable[[], object]] = {
        "fit": lambda: [stain.fit(patch, engine=engine) for patch in patches],
        "tables": lambda: [engine.pixel_engine.tables([one]) for one in corrections],
        "apply": apply,
        "normalize_fit_slide": lambda: stain.normalize(patches, fit=fits[0], engine=engine),
        "normalize_fit_patch": lambda: stain.normalize(patches, fit="patch", engine=engine),
    }
    return {f"{engine.name}_{name}_ms": cpu_ms(step, runs=runs) / len(patches) for name, step in steps.items()}


def look_up_figures(patches: Patches, runs: int) -> dict[str, float]:
    """One table look-up per byte of the same array, patch by patch: the floor, in NumPy and compiled by numba."""
    table = np.arange(256, dtype=np.uint8)[::-1].copy()
    out = np.empty_like(patches)
    figures = {}

    def numpy_look_up() -> None:
        for patch, target in zip(patches, out, strict=True):
            np.take(table, patch, out=target, mode="clip")

    figures["numpy_look_up_ms"] = cpu_ms(numpy_look_up, runs=runs) / len(patches)
    numba: Any = importlib.import_module("numba")

    def look_up(source: Any, entries: Any, target: Any) -> None:
        for i in range(len(source)):
            target[i] = entries[source[i]]

    compiled = numba.njit("void(uint8[::1], uint8[::1], uint8[::1])")(look_up)
    pairs = [(patch.reshape(-1), target.reshape(-1)) for patch, target in zip(patches, out, strict=True)]
    figures["numba_look_up_ms"] = cpu_ms(
        lambda: [compiled(source, table, target) for source, target in pairs], runs=runs
    ) / len(patches)
    return figures


def peer_figures(patches: Patches, runs: int, peers_python: Path) -> dict[str, float | str]:
    """What `peers/measure.py` says of each peer; `absent` where no Python at hand has it."""
    figures: dict[str, float | str] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "patches.npy"
        np.save(file, patches)
        for peer in PEERS:
            figures[f"{peer}_fit_apply_ms"] = "absent"
            for done in answers("measure.py", peer, str(file), "--runs", str(runs), python=peers_python):
                if done.returncode == 0:
                    measured = json.loads(done.stdout.splitlines()[-1])
                    figures |= {f"{peer}_{name}": value for name, value in measured.items()}
                    break
    return figures


def fastest(figures: dict[str, float | str], *, given_fit: bool) -> float | None:
    """The least time of any peer; with a given fit, a peer that cannot take one counts with all it does."""
    times = []
    for peer in PEERS:
        whole = figures[f"{peer}_fit_apply_ms"]
        time = figures.get(f"{peer}_apply_ms", whole) if given_fit else whole
        if isinstance(time, float):
            times.append(time)
    return min(times, default=None)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="gpu: what a card does, without peers")
    parser.add_argument("--patches", type=int, default=16)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--peers-python", type=Path, default=ROOT / "build/peers/bin/python")
    arguments = parser.parse_args()
    real = real_patches(arguments.patches)
    patches = generated_patches(arguments.patches) if real is None else real
    if arguments.device == "gpu":
        try:
            gpu, gpu_ratios = gpu_figures(patches, arguments.runs)
        except ManifestError as error:
            sys.exit(str(error))
        report(
            "stain_gpu", {"input": "generated" if real is None else "real", **gpu}, gpu_ratios, as_json=arguments.json
        )
        return
    own = stain.engine_for("cpu")
    assert isinstance(own, OneByOne)
    figures: dict[str, Any] = {"input": "generated" if real is None else "real", "engine": own.name}
    figures |= look_up_figures(patches, arguments.runs)
    figures |= engine_figures(OneByOne(NumpyEngine()), patches, max(3, arguments.runs // 3))
    figures |= engine_figures(own, patches, arguments.runs)
    figures |= peer_figures(patches[:PEER_PATCHES], max(3, arguments.runs // 3), arguments.peers_python)
    apply, whole = figures[f"{own.name}_apply_ms"], figures[f"{own.name}_normalize_fit_patch_ms"]
    ratios = {
        "apply_to_look_up": apply / min(figures["numpy_look_up_ms"], figures["numba_look_up_ms"]),
        "numpy_to_own_fit": figures["numpy_fit_ms"] / figures[f"{own.name}_fit_ms"],
    }
    peer_apply, peer_whole = (fastest(figures, given_fit=given) for given in (True, False))
    if peer_apply is not None and peer_whole is not None:
        ratios["fastest_peer_apply_to_own"] = peer_apply / apply
        ratios["fastest_peer_apply_to_normalize_fit_slide"] = peer_apply / figures[f"{own.name}_normalize_fit_slide_ms"]
        ratios["fastest_peer_fit_apply_to_own"] = peer_whole / whole
    report("stain", figures, ratios, as_json=arguments.json)


if __name__ == "__main__":
    main()
