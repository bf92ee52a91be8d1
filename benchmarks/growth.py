"""Whether a patch costs the same in a slide nine times as large and in a group of ten slides.

Each is built in a fresh process (`group_build.py`), so that the peak of its memory is its own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inputs import repeated_phantom
from report import Figures

_HERE = Path(__file__).resolve().parent
SMALL_PX, LARGE_PX, SLIDES = 8192, 24_576, 10


def built(slides: Sequence[Path], runs: int) -> dict[str, Any]:
    """Medians of a group's cost, and the peak memory of the process that built it."""
    words = [sys.executable, str(_HERE / "group_build.py"), *map(str, slides), "--runs", str(runs)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def growth(runs: int, *, small_px: int = SMALL_PX, large_px: int = LARGE_PX, slides: int = SLIDES) -> Figures:
    """Ratios of large to small: CPU time per patch of the cut and of the chain, and peak memory.

    Args:
        runs: Builds of each.
        small_px: Side of the small slide.
        large_px: Side of the large one.
        slides: Of the large group, each as the small slide.
    """
    group = [repeated_phantom(small_px, number=number) for number in range(slides)]
    cases = {"small": group[:1], "slide": [repeated_phantom(large_px)], "group": group}
    found = {name: built(paths, runs) for name, paths in cases.items()}
    small = found.pop("small")
    ratios: Figures = {}
    for name, large in found.items():
        ratios[f"large_{name}_patches"] = large["kept"] / small["kept"]
        ratios[f"large_{name}_cut_per_patch"] = large["cut"] / large["kept"] / (small["cut"] / small["kept"])
        ratios[f"large_{name}_chain_per_patch"] = statistics.median(large["chains"]) / statistics.median(
            small["chains"]
        )
        ratios[f"large_{name}_peak_memory"] = large["peak_mib"] / small["peak_mib"]
    # What the same build differs by from run to run.
    ratios["small_chain_most_over_least"] = max(small["chains"]) / min(small["chains"])
    return ratios
