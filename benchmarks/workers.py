"""How a build of one group scales with its workers, and what builder and workers need of memory.

Whole builds by the command line, from start-up to the published data set. Speed-ups are of wall clock, so the machine
must be quiet: another program on one of two cores takes half of what a second worker can gain. CPU times show on any
machine how much of a build is shared out to workers. A build of one tiny slide is timed beside them: start-up and
publishing, which small builds consist of. The slides are generated, without
artefacts, and kept in `build/benchmarks`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from report import report

from exaone_prep.phantom import PhantomSettings, write_phantoms

CACHE = Path(__file__).resolve().parents[1] / "build" / "benchmarks"
_LOOK_EVERY_S = 0.02
_TINY_PX = 1024


@dataclass(frozen=True, kw_only=True)
class Built:
    """One build: wall clock and CPU time in s, and the largest resident sets in MB of the builder and of a worker."""

    seconds: float
    builder_cpu_s: float
    workers_cpu_s: float
    builder_mb: float
    worker_mb: float
    threads: int


def phantom_slides(count: int, side_px: int) -> Path:
    """Generated slides of one laboratory, made once."""
    folder = CACHE / f"phantoms-{count}-{side_px}"
    if not (folder / "truth.json").exists():
        settings = PhantomSettings(
            slides=count, labs=1, width_px=side_px, height_px=side_px, pen_fraction=0, blur_fraction=0
        )
        write_phantoms(folder, settings)
    return folder


def build(slides: str, workers: int) -> Built:
    """Build the slides as one group into a folder that goes afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "exaone_prep.cli", "build", "--slides", slides, "--out", f"{folder}/dataset"]
        command += ["--set", "splits={}", "--set", "shards.slides_per_group=100000", "--workers", str(workers)]
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        builder_kb, worker_kb, threads = 0, 0, 0
        cpu_s: dict[int, float] = {}
        while process.poll() is None:
            builder_kb = max(builder_kb, _status(process.pid, "VmHWM"))
            for pid in (process.pid, *_children(process.pid)):
                cpu_s[pid] = max(cpu_s.get(pid, 0.0), _cpu_s(pid))
            for child in _children(process.pid):
                worker_kb = max(worker_kb, _status(child, "VmHWM"))
                threads = max(threads, _status(child, "Threads"))
            time.sleep(_LOOK_EVERY_S)
        seconds = time.monotonic() - began
        if process.returncode != 0:
            raise SystemExit(process.stderr.read() if process.stderr else "the build failed")
    builder_cpu_s = cpu_s.pop(process.pid)
    return Built(
        seconds=seconds,
        builder_cpu_s=builder_cpu_s,
        workers_cpu_s=sum(cpu_s.values()),
        builder_mb=builder_kb / 1000,
        worker_mb=worker_kb / 1000,
        threads=threads,
    )


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _cpu_s(pid: int) -> float:
    """User and system time of a process, without its children."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, default=6, help="generated slides of the group")
    parser.add_argument("--side-px", type=int, default=8192)
    parser.add_argument("--glob", help="slides of your own instead")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of workers to compare")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object, on one line")
    options = parser.parse_args()
    slides = options.glob or f"{phantom_slides(options.slides, options.side_px)}/**/*.tiff"
    tiny = f"{phantom_slides(1, _TINY_PX)}/**/*.tiff"
    builds: dict[int, list[Built]] = {count: [] for count in options.workers}
    tiny_builds: dict[int, list[Built]] = {count: [] for count in options.workers}
    # In turn: what else the machine does then meets all of them alike.
    for _ in range(options.runs):
        for count, done in builds.items():
            done.append(build(slides, count))
            tiny_builds[count].append(build(tiny, count))
    first = options.workers[0]
    seconds = {count: statistics.median(one.seconds for one in done) for count, done in builds.items()}
    start_up = {count: statistics.median(one.seconds for one in done) for count, done in tiny_builds.items()}
    figures: dict[str, float | int] = {"load_average": os.getloadavg()[0]}
    for count, done in builds.items():
        figures[f"seconds_{count}_workers"] = seconds[count]
        figures[f"seconds_tiny_{count}_workers"] = start_up[count]
        figures[f"builder_cpu_seconds_{count}_workers"] = statistics.median(one.builder_cpu_s for one in done)
        figures[f"workers_cpu_seconds_{count}_workers"] = statistics.median(one.workers_cpu_s for one in done)
        figures[f"builder_peak_mb_{count}_workers"] = max(one.builder_mb for one in done)
        figures[f"worker_peak_mb_{count}_workers"] = max(one.worker_mb for one in done)
        figures[f"threads_per_worker_{count}_workers"] = max(one.threads for one in done)
    ratios = {}
    for count in options.workers[1:]:
        ratios[f"speed_up_{count}_over_{first}_workers"] = seconds[first] / seconds[count]
        work = {some: seconds[some] - start_up[some] for some in (first, count)}
        ratios[f"speed_up_without_start_up_{count}_over_{first}_workers"] = work[first] / max(work[count], 1e-9)
    report("workers", figures, ratios, as_json=options.json)


if __name__ == "__main__":
    main()
