"""A build on a Dask cluster: the bytes of a local one, whatever dies; what cannot work is said in a sentence."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from exaone_prep.build import UNWATCHED, Failure
from exaone_prep.cluster import builder
from exaone_prep.cluster.executor import DaskExecutor
from exaone_prep.cluster.order import Order
from exaone_prep.dataset import Dataset, create_dataset
from exaone_prep.errors import UnreachableError
from exaone_prep.progress import Progress
from tests.builds import build, build_words, command, digest_of, files_of, finish, start
from tests.daskcluster import DaskProcesses, dask_processes, wait_until
from tests.processes import children_of, kill
from tests.smallslides import manifest_of
from tests.store import Errors, Store

SMALL = ("--set", "shards.slides_per_group=1", "--set", "shards.samples_per_shard=5", "--set", "splits={}")
STOPS_WITHIN_S = 30


@pytest.fixture(scope="module")
def local(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set as one machine builds it."""
    out = tmp_path_factory.mktemp("local") / "dataset"
    build(slides, out, *SMALL)
    return out


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    with dask_processes(tmp_path_factory.mktemp("dask")) as started:
        yield started


@pytest.fixture
def cluster(processes: DaskProcesses) -> Iterator[DaskProcesses]:
    """A scheduler; each test starts the workers that it needs, and leaves none to the next, also if it fails."""
    yield processes
    processes.kill_workers()


def builders_of(worker: subprocess.Popen[bytes]) -> set[int]:
    return children_of(worker.pid, "group builder")


def attempts(out: Path) -> list[str]:
    return [json.loads(file.read_text())["sentence"] for file in sorted((out / "attempts").glob("*.json"))]


def order_of(dataset: Dataset, scratch: Path) -> Order:
    return Order(
        group=0,
        url=dataset.storage.url,
        content_id=dataset.catalog.content_id,
        builder="driver",
        workers=1,
        device="cpu",
        folder=scratch,
        limit_bytes=None,
    )


def test_a_cluster_makes_the_bytes_of_one_machine_also_when_a_worker_is_killed(
    slides: Path, local: Path, cluster: DaskProcesses, tmp_path: Path
) -> None:
    first = cluster.start_worker(threads=1)
    out = tmp_path / "dataset"
    driver = start(*build_words(slides, out), *SMALL, "--dask", cluster.address)
    wait_until(lambda: bool(builders_of(first)), 60)
    cluster.start_worker(threads=2)
    builders = builders_of(first)
    first.kill()
    for builder_pid in builders:  # as a lost machine does; left alone, it might commit before it notices
        kill(builder_pid)
    ended = finish(driver)
    assert ended.code == 0, ended.err
    assert files_of(out) == files_of(local)
    (sentence,) = attempts(out)
    assert "was lost while it built group" in sentence
    assert list((out / "progress").iterdir()) == []
    # All by the other worker, with as many processes as that has threads.
    assert {json.loads(file.read_text())["built"]["workers"] for file in (out / "ledger").iterdir()} == {2}
    assert command("verify", str(out), "--deep").code == 0


def test_a_driver_that_is_interrupted_ends_its_groups_everywhere_within_half_a_minute(
    slides: Path, cluster: DaskProcesses, tmp_path: Path
) -> None:
    worker = cluster.start_worker(threads=1)
    out = tmp_path / "dataset"
    words = (*build_words(slides, out), *SMALL, "--dask", cluster.address, "--scratch", str(tmp_path / "scratch"))
    driver = start(*words)
    wait_until(lambda: bool(builders_of(worker)) and any(tmp_path.glob("scratch/*/group-*")), 60)
    began = time.monotonic()
    driver.send_signal(signal.SIGTERM)
    assert finish(driver).code == 130
    wait_until(lambda: not builders_of(worker), STOPS_WITHIN_S - (time.monotonic() - began))
    assert not any(tmp_path.glob("scratch/*/group-*"))


def test_groups_of_a_driver_that_was_killed_end_by_themselves(
    slides: Path, cluster: DaskProcesses, tmp_path: Path
) -> None:
    worker = cluster.start_worker(threads=1)
    driver = start(*build_words(slides, tmp_path / "dataset"), *SMALL, "--dask", cluster.address)
    wait_until(lambda: bool(builders_of(worker)), 60)
    driver.kill()
    finish(driver)
    wait_until(lambda: not builders_of(worker), STOPS_WITHIN_S)


def test_a_worker_with_other_versions_is_refused_naming_both_environments(
    slides: Path, cluster: DaskProcesses, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata as metadata\n"
        "found = metadata.version\n"
        "metadata.version = lambda name: '0.0.1' if name == 'simplejpeg' else found(name)\n"
    )
    cluster.start_worker(variables={"PYTHONPATH": str(tmp_path)})
    ended = command(*build_words(slides, tmp_path / "dataset"), *SMALL, "--dask", cluster.address)
    assert ended.code == 2, ended.err
    sentence = ended.err.strip().splitlines()[-1]
    assert "No worker of the Dask cluster can build this data set" in sentence
    assert "simplejpeg=0.0.1" in sentence
    assert not (tmp_path / "dataset" / "ledger").exists()


def test_a_scheduler_that_is_lost_or_not_there_is_said_in_a_sentence(slides: Path, local: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    with dask_processes(tmp_path) as cluster:
        words = (*build_words(slides, out), *SMALL, "--dask", cluster.address)
        worker = cluster.start_worker()
        driver = start(*words)
        wait_until(lambda: bool(builders_of(worker)), 60)
        cluster.scheduler.kill()
        ended = finish(driver)
        assert ended.code == 1, ended.err
        assert "scheduler at" in ended.err.strip().splitlines()[-1]
        assert "Traceback" not in ended.err
        wait_until(lambda: not builders_of(worker), STOPS_WITHIN_S)
    ended = command(*words)
    assert ended.code == 1
    assert "There is no Dask scheduler at" in ended.err


def test_a_client_that_gave_its_scheduler_up_meanwhile_is_a_lost_scheduler(
    slides: Path, cluster: DaskProcesses, tmp_path: Path
) -> None:
    dataset = create_dataset(tmp_path / "dataset", manifest_of(slides), base=tmp_path)
    with Client(cluster.address, set_as_default=False) as client:
        order = order_of(dataset, tmp_path)
        executor = DaskExecutor(client=client, dataset=dataset, order=order, progress=Progress(), watch=UNWATCHED)
        client.close()
        with pytest.raises(UnreachableError, match=f"{cluster.address} was lost"):
            list(executor.run([0]))


def test_what_a_worker_cannot_reach_is_named_by_the_attempt_that_failed(slides: Path, tmp_path: Path) -> None:
    with Store() as store:
        store.upload(slides, "slides")
        dataset = create_dataset(store.url("dataset"), manifest_of(slides), base=tmp_path)
        with store.failing(Errors(statuses=(403,))):
            answer = builder.build(order_of(dataset, tmp_path))
    assert isinstance(answer, Failure)
    assert "denies access" in str(answer.error)


@pytest.mark.soak
def test_a_cluster_on_this_machine_makes_the_same_bytes(slides: Path, local: Path, tmp_path: Path) -> None:
    assert build(slides, tmp_path / "dataset", *SMALL, "--dask", "local", "--workers", "2") == digest_of(local)
