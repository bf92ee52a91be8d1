"""What a flow and a Dask cluster cost over the plain process pool, for groups of about a minute.

The same slides, one per group, are built with the same number of processes at work in three ways: `exaone-prep build`,
`exaone-prep build --dask` on one Dask worker with as many threads, and the flow `tile-and-normalize` on that worker,
against a Prefect server. What a group costs more is given as wall clock that passes between two groups, by the ledger,
and as CPU time of all processes, server and scheduler included, which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inputs import repeated_phantom
from report import report

from flows.server import home_environment, prefect_server

_START_WITHIN_S = 60.0
_FLOW = (
    "import sys; from flows.tile_and_normalize import tile_and_normalize as flow; "
    "flow(sys.argv[1], sys.argv[2], dask=sys.argv[3], depth='quick')"
)


@dataclass(frozen=True, kw_only=True)
class Built:
    """One build.

    Attributes:
        command_s: Wall clock of the command.
        groups_s: From the start of the first group to the end of the last.
        per_group_s: Median of the groups' own.
        between_s: What passed between two groups, on average.
        cpu_s: CPU time of the command, and of server and cluster meanwhile.
    """

    command_s: float
    groups_s: float
    per_group_s: float
    between_s: float
    cpu_s: float
    digest: str


@contextlib.contextmanager
def dask_worker(threads: int, folder: Path) -> Iterator[str]:
    """A scheduler and one worker as processes; yields the scheduler's address."""
    file = folder / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    words = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    started = [subprocess.Popen([sys.executable, "-m", "dask", *words], **quiet)]  # type: ignore[call-overload]
    try:
        until = time.monotonic() + _START_WITHIN_S
        while not file.exists() or not file.read_text().endswith("}"):
            if time.monotonic() > until:
                raise SystemExit("the Dask scheduler did not start")
            time.sleep(0.1)
        address = str(json.loads(file.read_text())["address"])
        words = ["worker", address, "--nthreads", str(threads), "--no-dashboard", "--memory-limit", "0"]
        words += ["--local-directory", str(folder)]
        started.append(subprocess.Popen([sys.executable, "-m", "dask", *words], **quiet))  # type: ignore[call-overload]
        yield address
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()


def build(out: Path, command: list[str], variables: dict[str, str] | None = None) -> Built:
    """Run one build and read from its ledger when its groups began and ended."""
    began, cpu_s = time.monotonic(), _cpu_s()
    subprocess.run(
        [sys.executable, *command],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(variables or {})},
    )
    command_s = time.monotonic() - began
    built = [json.loads(file.read_text())["built"] for file in (out / "ledger").iterdir()]
    groups_s = max(one["ended"] for one in built) - min(one["started"] for one in built)
    own_s = [one["ended"] - one["started"] for one in built]
    return Built(
        command_s=command_s,
        groups_s=groups_s,
        per_group_s=statistics.median(own_s),
        between_s=(groups_s - sum(own_s)) / max(1, len(built) - 1),
        cpu_s=_cpu_s() - cpu_s,
        digest=json.loads((out / "build.json").read_text())["digest"],
    )


def _cpu_s() -> float:
    """CPU time of all processes that this one has started, ended ones included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks, family = 0, {os.getpid()}
    stats: list[list[str]] = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            stats.append([file.parent.name, *file.read_text().rpartition(")")[2].split()])
    while grown := [stat for stat in stats if int(stat[2]) in family and int(stat[0]) not in family]:
        family |= {int(stat[0]) for stat in grown}
        ticks += sum(int(field) for stat in grown for field in stat[12:16])  # own and of children that ended
    return used.ru_utime + used.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def manifest(slides: list[Path], folder: Path) -> Path:
    """A manifest of slides, one per group."""
    path = folder / "manifest.yaml"
    cohort = {"name": "phantoms", "slides": [str(slide) for slide in slides]}
    # JSON is YAML.
    path.write_text(json.dumps({"name": "flows", "cohorts": [cohort], "shards": {"slides_per_group": 1}, "splits": {}}))
    return path


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=3, help="groups of one slide each")
    parser.add_argument("--side-px", type=int, default=49_152, help="of the slides; the default takes about a minute")
    parser.add_argument("--workers", type=int, default=1, help="processes at work")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object, on one line")
    options = parser.parse_args()
    slides = [repeated_phantom(options.side_px, number=number) for number in range(options.groups)]
    ways: dict[str, list[Built]] = {"pool": [], "dask": [], "flow": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        described = str(manifest(slides, folder))
        home = folder / "prefect"
        cli = ["-m", "exaone_prep.cli", "build", described]
        with prefect_server(home) as url, dask_worker(options.workers, folder) as address:
            served = home_environment(home, url)
            # In turn: what else the machine does then meets all of them alike.
            for run in range(options.runs):
                outs = {way: folder / f"{way}-{run}" for way in ways}
                pool = [*cli, "--out", str(outs["pool"]), "--workers", str(options.workers)]
                ways["pool"].append(build(outs["pool"], pool))
                ways["dask"].append(build(outs["dask"], [*cli, "--out", str(outs["dask"]), "--dask", address]))
                ways["flow"].append(build(outs["flow"], ["-c", _FLOW, described, str(outs["flow"]), address], served))
    if len({one.digest for built in ways.values() for one in built}) != 1:
        raise SystemExit("the builds differ")
    figures: dict[str, float | int] = {"load_average": os.getloadavg()[0], "groups": options.groups}
    for way, built in ways.items():
        figures[f"seconds_of_groups_{way}"] = statistics.median(one.groups_s for one in built)
        figures[f"seconds_per_group_{way}"] = statistics.median(one.per_group_s for one in built)
        figures[f"seconds_of_command_{way}"] = statistics.median(one.command_s for one in built)
        figures[f"seconds_between_groups_{way}"] = statistics.median(one.between_s for one in built)
        figures[f"cpu_seconds_{way}"] = statistics.median(one.cpu_s for one in built)
    ratios = {
        f"{way}_over_pool_{what}": figures[f"{what}_{way}"] / figures[f"{what}_pool"]
        for way in ("dask", "flow")
        for what in ("seconds_of_groups", "cpu_seconds")
    }
    report("flow_overhead", figures, ratios, as_json=options.json)


if __name__ == "__main__":
    main()
