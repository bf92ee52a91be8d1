"""The tables of a data set of EXAONEPath's size, made, committed, published and read back on one machine.

The slides, their pixels and the shards are stand-ins (`benchmarks/stand_in.py` says what that means); all else is the
project's own code. With `--json` the last line is one object: seconds of each step, peak of memory, bytes of tables.
`--within` fails where the bounds of a laptop are broken: 2 GB of memory, 8 minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final, TypeVar

from group_build import peak_mib
from report import Figures, report
from stand_in import PAPER_PATCHES, PAPER_SLIDES, Corpus, StandInExecutor

from exaone_prep import layout
from exaone_prep.build import run
from exaone_prep.dataset import create_dataset, open_dataset
from exaone_prep.ledger import GroupRecord, read_ledger
from exaone_prep.outcomes import read_outcomes
from exaone_prep.publish import publish
from exaone_prep.scratch import Scratch
from exaone_prep.shards.index import read_shard_tables, values_sha256
from exaone_prep.status import status_of
from exaone_prep.storage import Storage, open_storage
from exaone_prep.verify import verify

MOST_MIB: Final = 2e9 / 2**20
MOST_S: Final = 480.0


Result = TypeVar("Result")


class Steps:
    """Runs one step after the other, and keeps how long each took."""

    def __init__(self) -> None:
        self.figures: Figures = {}

    def run(self, name: str, work: Callable[[], Result]) -> Result:
        """Run a step."""
        began = time.perf_counter()
        result = work()
        self.figures[f"{name}_s"] = time.perf_counter() - began
        return result

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return sum(float(value or 0) for value in self.figures.values())


def scale(corpus: Corpus, folder: Path, processes: int) -> Figures:
    """Make the tables of a corpus and read them back.

    Args:
        corpus: Its size.
        folder: Empty; receives slides and data set.
        processes: That build and read groups at a time.

    Returns:
        Seconds of each step, CPU time of all processes, sizes of the tables, peak of memory: the sum over all
        processes that work at a time.

    Raises:
        PrepError: A step failed; the data set does not verify.
    """
    out, steps = folder / "dataset", Steps()
    manifest = steps.run("slides", lambda: corpus.write(folder / "slides"))
    dataset = steps.run("catalog", lambda: create_dataset(out, manifest, base=folder))
    executor = StandInExecutor(str(out), folder / "scratch", processes)
    steps.run("groups", lambda: run(sorted(dataset.groups), executor, dataset))
    with Scratch(folder / "scratch") as scratch:
        summary = steps.run("publish", lambda: publish(dataset, scratch))
    dataset = steps.run("open", lambda: open_dataset(out))
    status = steps.run("status", lambda: status_of(dataset))
    steps.run("verify_quick", lambda: verify(dataset, "quick").check())
    outcomes = steps.run("outcomes", lambda: read_outcomes(dataset))
    rows, peak = steps.run("read_back", lambda: read_back(str(out), processes))
    assert status.state == "complete"
    assert status.samples == summary["samples"] == rows == corpus.patches
    assert outcomes.num_rows == len(dataset.catalog.rows) == corpus.slides
    return {
        **steps.figures,
        "seconds": steps.seconds,
        "cpu_seconds": sum(os.times()[:4]),
        "peak_mib": peak_mib() + max(peak, executor.peak_mib),
        "slides": corpus.slides,
        "groups": status.groups["done"],
        "shards": status.shards,
        "index_rows": rows,
        **table_bytes(out),
    }


def read_back(url: str, processes: int) -> tuple[int, float]:
    """Read every row of every index and compare the values with the ledger; rows, and peak of memory in MiB."""
    groups = [record.group for record in read_ledger(open_storage(url))]
    parts = [groups[number::processes] for number in range(processes)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(partial(_read_groups, url), parts))
    return sum(rows for rows, _ in found), sum(peak for _, peak in found)


def _read_groups(url: str, groups: Sequence[int]) -> tuple[int, float]:
    storage = open_storage(url)
    wanted = set(groups)
    records = [record for record in read_ledger(storage) if record.group in wanted]
    return sum(_read_index(storage, record) for record in records), peak_mib()


def _read_index(storage: Storage, record: GroupRecord) -> int:
    tables = read_shard_tables(storage.read(layout.index(record.split, record.group)))
    assert values_sha256(tables) == record.index.values_sha256
    assert [table.num_rows for table in tables] == [shard.samples for shard in record.shards]
    return sum(table.num_rows for table in tables)


def table_bytes(out: Path) -> Figures:
    """Bytes of each table, and of each folder of tables."""
    names = (layout.CATALOG, "index", "survey", layout.LEDGER, layout.OUTCOMES, layout.STAIN, layout.BUILD)
    sizes: Figures = {f"{name.partition('.')[0]}_bytes": _bytes_below(out / name) for name in names}
    return sizes | {"shard_info_bytes": sum(file.stat().st_size for file in out.glob("shards/*/_info.json"))}


def _bytes_below(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def main() -> None:
    """Make, read back, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, default=PAPER_SLIDES)
    parser.add_argument("--patches", type=int, default=PAPER_PATCHES)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where 6 GB fit; by default a temporary folder")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--within", action="store_true", help="fail above 2 GB of memory or 8 minutes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        corpus = Corpus(slides=arguments.slides, patches=arguments.patches)
        figures = scale(corpus, Path(folder), arguments.processes)
    report("scale", figures, {}, as_json=arguments.json)
    if arguments.within and (float(figures["peak_mib"] or 0) > MOST_MIB or float(figures["seconds"] or 0) > MOST_S):
        sys.exit(f"{figures['peak_mib']:.0f} MiB or {figures['seconds']:.0f} s are more than a laptop's share.")


if __name__ == "__main__":
    main()
