"""How long pages of the dashboard take on tables of EXAONEPath's size: 34,795 slides, 544 groups, 28,500 shards.

Catalog, survey and ledger are the project's own, of stand-ins for slides (`benchmarks/stand_in.py`); shards hold ten
samples each, so that there are as many. Pages are asked for by HTTP from a server in this process. The data set is one
that is being built: 200 builders show themselves, and before each overview a group is committed. With `--json` the last
line is one object: milliseconds per page (median and slowest), reads of a refresh, seconds of the first load, memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Final
from urllib.parse import urljoin
from urllib.request import urlopen

import uvicorn
from group_build import peak_mib
from report import Figures, report
from stand_in import PAPER_SLIDES, Corpus, StandInExecutor

from exaone_prep import layout
from exaone_prep.build import run
from exaone_prep.commands.dashboard import listening_socket
from exaone_prep.dashboard.app import create_app
from exaone_prep.dashboard.source import REFRESH_S
from exaone_prep.dashboard.sources import Sources
from exaone_prep.dataset import create_dataset
from exaone_prep.progress import Progress

SAMPLES_PER_SHARD: Final = 10
SHARDS: Final = 28_500
BUILDERS: Final = 200
PAGES: Final = {
    "overview": "",
    "slides": "slides",
    "slides_last_page_by_patches": "slides?sort=kept&down=1&page=999999",
    "slides_found": "slides?q=dx2-7&sort=kept",
    "quarantine": "quarantine",
    "stain": "stain",
    "shards_by_size": "shards?sort=bytes&down=1",
    "metrics": "../../metrics",
}


def make(folder: Path, slides: int, processes: int) -> Path:
    """Build the stand-ins; the data set is as if its last group were at work."""
    groups = -(-slides // 64)
    # A group's last shard is half full on average; some groups are committed only while it is measured.
    shards = (SHARDS + 600) * slides // PAPER_SLIDES
    manifest = Corpus(slides=slides, patches=SAMPLES_PER_SHARD * (shards - groups // 2)).write(folder / "slides")
    settings = manifest.shards.model_copy(update={"samples_per_shard": SAMPLES_PER_SHARD})
    out = folder / "dataset"
    dataset = create_dataset(out, manifest.model_copy(update={"shards": settings}), base=folder)
    run(sorted(dataset.groups), StandInExecutor(str(out), folder / "scratch", processes), dataset)
    last = max(dataset.groups)
    (out / layout.ledger(last)).unlink()
    (out / "progress").mkdir()
    for number in range(BUILDERS):
        beat = {"worker": f"host-{number}", "time": time.time(), **Progress().snapshot(), "group": last, "stage": "cut"}
        (out / layout.heartbeat(f"host-{number}")).write_text(json.dumps(beat))
    return out


def measure(out: Path, rounds: int) -> Figures:
    """Milliseconds per page, and what it takes to begin and to refresh."""
    latest = sorted((out / layout.LEDGER).iterdir())[-rounds:]
    commits = {file: file.read_bytes() for file in latest}
    for file in latest:
        file.unlink()
    try:
        return _measured(out, commits)
    finally:
        for file, data in commits.items():
            file.write_bytes(data)


def _measured(out: Path, commits: dict[Path, bytes]) -> Figures:
    sources = Sources([str(out)])
    (source,) = sources.by_key.values()
    began = time.perf_counter()
    view = source.load()
    figures: Figures = {"load_s": time.perf_counter() - began}
    assert view is not None
    figures |= {"slides": view.committed.slides.num_rows, "shards": view.committed.shards.num_rows}
    listening = listening_socket("127.0.0.1", 0)
    config = uvicorn.Config(create_app(sources), log_level="error", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
    base = f"http://127.0.0.1:{listening.getsockname()[1]}/d/{source.key}/"
    while not server.started:
        time.sleep(0.01)
    times: dict[str, list[float]] = {name: [] for name in PAGES}
    reads = []
    for file, data in commits.items():
        file.write_bytes(data)  # a group is committed, which the overview, asked for next, reads and counts in
        for name, path in PAGES.items():
            time.sleep(REFRESH_S + 0.05)  # so that each page refreshes first, as for one who looks now and then
            before = source.reads
            began = time.perf_counter()
            with urlopen(urljoin(base, path), timeout=60) as answer:
                answer.read()
            times[name].append(1000 * (time.perf_counter() - began))
            reads.append(source.reads - before)
    server.should_exit = True
    for name, some in times.items():
        figures |= {f"{name}_ms": statistics.median(some), f"{name}_slowest_ms": max(some)}
    return figures | {"most_reads": max(reads), "peak_mib": peak_mib()}


def main() -> None:
    """Make, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, default=PAPER_SLIDES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--dataset", type=Path, help="one that is there already")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.dataset or make(Path(folder), arguments.slides, arguments.processes)
        figures = measure(out, arguments.rounds)
    report("dashboard", figures, {}, as_json=arguments.json)


if __name__ == "__main__":
    main()
