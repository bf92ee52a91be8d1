"""CPU time of stain normalisation per 256×256 patch: fit, tables, apply, against one look-up per byte and peers."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from typing import Any

import numpy as np
from numpy.typing import NDArray
from report import cpu_ms, real_patches, report

from exaone_prep import stain
from exaone_prep.stain.numpy_engine import NumpyEngine
from exaone_prep.stain.tables import correction, tables

Patches = NDArray[np.uint8]


def generated_patches(count: int) -> Patches:
    """Random colours along two stains, where there are no real patches: the same work, not the same pixels."""
    rng = np.random.default_rng(0)
    amounts = rng.gamma(2.0, 0.5, (count, 256, 256, 2))
    levels: NDArray[np.float64] = 240 * np.exp(-amounts @ np.array([[0.65, 0.70, 0.29], [0.27, 0.84, 0.46]]))
    return levels.astype(np.uint8)


def own_figures(patches: Patches, runs: int) -> dict[str, float]:
    """Milliseconds per patch of each step."""
    count = len(patches)
    engine = NumpyEngine()
    fits = [fit for fit in (stain.fit(patch) for patch in patches) if fit.status == "ok"]
    corrections = [correction(fit, stain.MACENKO_REFERENCE) for fit in fits]
    made = tables(corrections)
    out = np.empty_like(patches)

    def apply() -> None:
        for patch, target in zip(patches, out, strict=True):
            engine.apply(patch, made[0], target)

    return {
        "fit_ms": cpu_ms(lambda: [stain.fit(patch) for patch in patches], runs=runs) / count,
        "tables_ms": cpu_ms(lambda: tables(corrections), runs=runs) / len(fits),
        "apply_ms": cpu_ms(apply, runs=runs) / count,
        "normalize_fit_slide_ms": cpu_ms(lambda: stain.normalize(patches, fit=fits[0]), runs=runs) / count,
        "normalize_fit_patch_ms": cpu_ms(lambda: stain.normalize(patches, fit="patch"), runs=runs) / count,
    }


def look_up_ms(patches: Patches, runs: int) -> float:
    """One table look-up per byte of the same array, patch by patch: the floor."""
    table = np.arange(256, dtype=np.uint8)[::-1].copy()
    out = np.empty_like(patches)

    def look_up() -> None:
        for patch, target in zip(patches, out, strict=True):
            np.take(table, patch, out=target, mode="clip")

    return cpu_ms(look_up, runs=runs) / len(patches)


def peer_figures(patches: Patches, runs: int) -> dict[str, float | str]:
    """Fit and apply per patch by other tools, on one thread where they let us choose; `absent` if not installed."""
    figures: dict[str, float | str] = {"torchstain_fit_apply_ms": "absent", "tiatoolbox_fit_apply_ms": "absent"}
    if importlib.util.find_spec("threadpoolctl"):
        importlib.import_module("threadpoolctl").threadpool_limits(1)
    if importlib.util.find_spec("torchstain") and importlib.util.find_spec("torch"):
        torch: Any = importlib.import_module("torch")
        torch.set_num_threads(1)
        peer: Any = importlib.import_module("torchstain").normalizers.MacenkoNormalizer(backend="torch")
        tensors = [torch.from_numpy(patch.transpose(2, 0, 1).copy()) for patch in patches]
        figures["torchstain_fit_apply_ms"] = cpu_ms(
            lambda: [peer.normalize(I=tensor, stains=False) for tensor in tensors], runs=runs
        ) / len(patches)
    if importlib.util.find_spec("tiatoolbox"):
        normalizer: Any = importlib.import_module("tiatoolbox.tools.stainnorm").MacenkoNormalizer()
        normalizer.fit(patches[0])
        figures["tiatoolbox_fit_apply_ms"] = cpu_ms(
            lambda: [normalizer.transform(patch.copy()) for patch in patches], runs=runs
        ) / len(patches)
    return figures


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    parser.add_argument("--patches", type=int, default=16)
    parser.add_argument("--runs", type=int, default=15)
    arguments = parser.parse_args()
    real = real_patches(arguments.patches)
    patches = generated_patches(arguments.patches) if real is None else real
    own = own_figures(patches, arguments.runs)
    floor = look_up_ms(patches, arguments.runs)
    peers = peer_figures(patches[:8], max(3, arguments.runs // 5))
    ratios = {
        "apply_to_look_up": own["apply_ms"] / floor,
        **{
            name.removesuffix("_ms") + "_to_own": time / own["normalize_fit_patch_ms"]
            for name, time in peers.items()
            if isinstance(time, float)
        },
    }
    figures = {"input": "generated" if real is None else "real", "look_up_per_byte_ms": floor, **own, **peers}
    report("stain", figures, ratios, as_json=arguments.json)


if __name__ == "__main__":
    main()
