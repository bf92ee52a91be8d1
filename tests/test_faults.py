"""One build, and whatever can happen to it: workers, schedulers and drivers are killed, the store fails, disks fill up.

`make test` lets a handful of faults befall a build; `make soak` fifty, and those of a flow.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from tests.corpus import BROKEN, Corpus, corpus_of
from tests.daskcluster import DaskProcesses, dask_processes, wait_until
from tests.disks import perhaps_mounted
from tests.faults import CommandScene, disturb, plan
from tests.intact import assert_intact
from tests.processes import MARK, kill_all, marked, of_kind
from tests.store import LostAnswers, Store

DISK_MIB = 24
FULL = "the scratch is full"
OF_THE_STORE = (
    "the store fails now and then",
    "the store is gone",
    "the store is slow",
    "the answer to a shard is lost",
    "the answer to a commit is lost",
)
ON_A_CLUSTER = (
    "a worker process of the pool is killed",
    "a process that builds a group is killed",
    "a Dask worker is killed",
    "the Dask scheduler is killed",
    "the driver is killed",
    FULL,
    "a second builder starts",
)


@contextmanager
def scene_of(
    corpus: Corpus, folder: Path, monkeypatch: pytest.MonkeyPatch, *, within_s: float, seed: int, dask: bool
) -> Iterator[CommandScene]:
    """A build of a corpus from a store into it; afterwards it must be intact, and nothing left of it."""
    mark, temporary = secrets.token_hex(8), folder / "tmp"
    temporary.mkdir()
    monkeypatch.setenv(MARK, mark)
    monkeypatch.setenv("TMPDIR", str(temporary))
    disk = folder / "disk"
    with Store() as store, perhaps_mounted(disk, DISK_MIB) as why_not:
        store.upload(corpus.slides, "slides")
        manifest = corpus.write_manifest(folder / "manifest.yaml", store.url("slides/*.tiff"))
        words = ("build", str(manifest), "--out", store.url("dataset"), "--scratch", str(disk))
        with dask_processes(folder) if dask else nullcontext() as cluster:
            scene = CommandScene(
                mark=mark,
                store=store,
                prefix="dataset",
                chance=random.Random(seed),
                until=time.monotonic() + within_s,
                disk=None if why_not else disk,
                words=(*words, *_where(cluster)),
                cluster=cluster,
            )
            try:
                yield scene
            except BaseException:
                kill_all(mark)
                raise
            builders = ("driver", "pool worker", "group builder")
            wait_until(lambda: not any(of_kind(mark, kind) for kind in builders), 30)
        wait_until(lambda: not marked(mark), 30)
        assert list(disk.iterdir()) == []
        assert list(temporary.glob("exaone-prep/*")) == []
        assert store.unfinished_uploads() == []
        assert all(fault.hits == 1 for fault in scene.faults if isinstance(fault, LostAnswers))
        assert_intact(store.download("dataset", folder / "copy"), corpus.undisturbed, BROKEN)


def _where(cluster: DaskProcesses | None) -> tuple[str, ...]:
    return ("--workers", "2") if cluster is None else ("--dask", cluster.address)


def possible(scene: CommandScene, names: tuple[str, ...]) -> tuple[str, ...]:
    """Without what needs a disk of its own, where none can be mounted."""
    return tuple(name for name in names if name != FULL or scene.disk is not None)


def test_a_build_that_a_handful_of_faults_befalls_ends_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = corpus_of(tmp_path / "corpus", slides=5, slides_per_group=1)
    names = (
        "a worker process of the pool is killed",
        "the driver is killed",
        "the answer to a commit is lost",
        FULL,
        "a second builder starts",
    )
    with scene_of(corpus, tmp_path, monkeypatch, within_s=200, seed=1, dask=False) as scene:
        disturb(scene, plan(possible(scene, names), 5, scene.chance), corpus.groups)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_soak_fifty_faults_befall_a_build_on_a_cluster_and_it_ends_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = corpus_of(tmp_path / "corpus", slides=45, slides_per_group=2)
    with scene_of(corpus, tmp_path, monkeypatch, within_s=1000, seed=2, dask=True) as scene:
        names = plan(possible(scene, ON_A_CLUSTER + OF_THE_STORE), 50, scene.chance)
        disturb(scene, names, corpus.groups)
