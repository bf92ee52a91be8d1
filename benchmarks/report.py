"""What every benchmark shares: the machine, CPU times, real patches to work on, and one line of JSON at the end."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DATA = Path(os.environ.get("EXAONE_PREP_TEST_DATA", str(Path(__file__).resolve().parents[2] / "shared" / "data")))

Figures = dict[str, float | int | str | None]
"""What a benchmark found, by name."""


def machine() -> dict[str, Any]:
    """What the figures depend on: CPU model, usable cores, Python and NumPy."""
    model = platform.processor() or "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def cpu_ms(work: Callable[[], object], *, runs: int = 15, warm_up: int = 2) -> float:
    """Median CPU time of this process over several runs, in milliseconds, all threads together."""
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(runs):
        start = time.process_time_ns()
        work()
        times.append((time.process_time_ns() - start) / 1e6)
    return statistics.median(times)


def real_slides() -> dict[str, list[NDArray[np.uint8]]]:
    """Real 256×256 H&E patches by the slide that they are from; empty where there are none."""
    slides: dict[str, list[NDArray[np.uint8]]] = {}
    for file in sorted((DATA / "tiles" / "camelyon16_patches").rglob("*.png")):
        with Image.open(file) as picture:
            slides.setdefault(file.name[:9], []).append(np.asarray(picture.convert("RGB")))
    return slides


def real_patches(count: int) -> NDArray[np.uint8] | None:
    """Up to `count` real 256×256 H&E patches, spread over their slides, as N×256×256×3; None where there are none."""
    files = sorted((DATA / "tiles" / "camelyon16_patches").rglob("*.png"))
    if not files:
        return None
    patches = []
    for file in files[:: max(1, len(files) // count)][:count]:
        with Image.open(file) as image:
            patches.append(np.asarray(image.convert("RGB")))
    return np.stack(patches)


def document(name: str, figures: Mapping[str, Any], ratios: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a benchmark found, as it is printed and kept."""
    return {"name": name, "machine": machine(), "figures": _rounded(figures), "ratios": _rounded(ratios)}


def write(made: Mapping[str, Any], *, to: Path | None, last_line: bool) -> None:
    """Keep a document in a file, print it as one line, both or neither."""
    text = json.dumps(made, ensure_ascii=False) + "\n"
    if to is not None:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(text, encoding="utf-8")
    if last_line:
        sys.stdout.write(text)


def report(name: str, figures: Mapping[str, Any], ratios: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the figures for people, or as one JSON object on one line, which is then the last line."""
    if as_json:
        write(document(name, figures, ratios), to=None, last_line=True)
        return
    sys.stdout.write(f"{name} on {machine()['cpu']}\n")
    for title, values in (("figures", figures), ("ratios", ratios)):
        for key, value in _rounded(values).items():
            sys.stdout.write(f"  {title}  {key:<40} {value}\n")


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in values.items()}
