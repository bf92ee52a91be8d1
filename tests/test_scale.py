"""A corpus of the paper's size: tables that are made and read back on a laptop, and a store that is asked sparingly."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from exaone_prep import layout
from exaone_prep.dataset import Dataset, create_dataset
from exaone_prep.ledger import FileRecord, GroupRecord, IndexEntry, ShardEntry, Sums
from exaone_prep.publish import summarise
from exaone_prep.shards.sample import shard_name
from tests.builds import Ended, command

ROOT = Path(__file__).resolve().parents[1]
SHARDS_PER_GROUP = 53
SMALL = b"a small object in place of a large one"


@pytest.fixture(scope="module")
def stand_in(suite: Any) -> Any:
    return suite("stand_in")


def scale(*words: str) -> dict[str, Any]:
    """Figures of the scale script."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "scale.py"), "--json", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["figures"]
    return figures


def test_a_small_corpus_is_made_and_read_back_row_by_row() -> None:
    figures = scale("--slides", "130", "--patches", "90001", "--processes", "2")
    assert (figures["slides"], figures["index_rows"], figures["groups"]) == (130, 90_001, 3)
    assert figures["shards"] >= 10
    assert figures["index_bytes"] / figures["index_rows"] < 25
    assert figures["peak_mib"] < 1500


def test_a_slide_of_the_stand_ins_has_its_patches_and_all_add_up(stand_in: Any) -> None:
    counts = stand_in.Corpus().patches_per_slide()
    assert len(counts) == 34_795
    assert counts.sum() == 285_153_903
    assert 300 < (counts == 0).sum() < 700
    assert counts.max() > 5 * counts.mean()


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_tables_of_the_paper_are_made_and_read_back_with_2_gb_in_8_minutes() -> None:
    figures = scale("--within")
    assert (figures["slides"], figures["index_rows"], figures["groups"]) == (34_795, 285_153_903, 544)


@dataclass
class Requests(logging.Handler):
    """Counts what a server was asked."""

    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        """One line for each."""
        self.lines.append(record.getMessage())

    __hash__ = logging.Handler.__hash__


@dataclass(frozen=True)
class Store:
    """A data set of the paper's size in a store that runs in this process."""

    environment: dict[str, str]
    dataset: Dataset
    requests: Requests

    def ask(self, *words: str) -> tuple[Ended, int]:
        """Run a command: how it ended, and how many requests it made."""
        self.requests.lines.clear()
        return command(*words, env=self.environment), len(self.requests.lines)


@pytest.fixture(scope="module")
def store(stand_in: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """544 ledger entries and all the files they speak of, small ones; the catalog is a real one."""
    folder = tmp_path_factory.mktemp("scale")
    manifest = stand_in.Corpus().write(folder / "slides")
    dataset = create_dataset(folder / "dataset", manifest, base=folder)
    records = [record_of(dataset, group) for group in dataset.groups]
    server: Any = importlib.import_module("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    backend: Any = importlib.import_module("moto.s3.models").s3_backends["123456789012"]["aws"]
    backend.create_bucket("scale", "us-east-1")
    put: Callable[[str, bytes], Any] = lambda path, data: backend.put_object("scale", f"dataset/{path}", data)  # noqa: E731
    put(layout.CATALOG, dataset.catalog.to_parquet())
    put(layout.BUILD, json.dumps(summarise(dataset, records)).encode())
    for record in records:
        put(layout.ledger(record.group), record.model_dump_json(indent=1).encode())
        for path in (
            layout.index(record.split, record.group),
            layout.survey(record.group),
            layout.slides(record.group),
        ):
            put(path, SMALL)
        for shard in record.shards:
            put(layout.shard(record.split, shard.name), SMALL)
    requests, log = Requests(), logging.getLogger("werkzeug")
    log.addHandler(requests)
    log.setLevel(logging.INFO)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    yield Store(environment, dataset, requests)
    server.stop()
    log.removeHandler(requests)
    backend.reset()


def record_of(dataset: Dataset, group: int) -> GroupRecord:
    """A ledger entry whose files are all the same small object."""
    size, sha256 = len(SMALL), hashlib.sha256(SMALL).hexdigest()
    small = FileRecord(bytes=size, sha256=sha256)
    rows = dataset.groups[group]
    samples = 10_000 * SHARDS_PER_GROUP
    return GroupRecord(
        content_id=dataset.catalog.content_id,
        group=group,
        split=rows[0].split,
        shards=tuple(
            ShardEntry(name=shard_name(group, number), samples=10_000, bytes=size, sha256=sha256)
            for number in range(SHARDS_PER_GROUP)
        ),
        index=IndexEntry(rows=samples, values_sha256="0" * 64, bytes=size, sha256=sha256),
        survey=small,
        slides=small,
        outcomes={"done": len(rows)},
        planned=samples,
        samples=samples,
        dropped={},
        stain_statuses={"fitted": samples},
        channels=Sums(pixels=65_536, sums=(1, 1, 1), squares=(1, 1, 1)),
        built={"started": 0.0, "ended": 1.0},
    )


def test_the_status_of_544_groups_in_a_store_takes_600_requests_at_most(store: Store) -> None:
    ended, requests = store.ask("status", "s3://scale/dataset", "--json")
    assert ended.code == 0, ended.err
    status = json.loads(ended.out)
    assert status["groups"] == {"done": 544, "total": 544}
    assert (status["shards"], status["slides"]["done"]) == (544 * SHARDS_PER_GROUP, 34_795)
    assert 544 < requests <= 600


# By the clock, on a machine that does nothing else.
@pytest.mark.soak
def test_the_status_of_544_groups_in_a_store_takes_5_seconds_at_most(store: Store) -> None:
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        store.ask("status", "s3://scale/dataset", "--json")
        seconds.append(time.perf_counter() - began)
    assert min(seconds) <= 5


def test_a_quick_verification_of_28832_shards_in_a_store_lists_them(store: Store) -> None:
    ended, requests = store.ask("verify", "s3://scale/dataset", "--quick", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["shards"] == 28_832
    assert 544 < requests <= 700
