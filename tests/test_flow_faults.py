"""Flows while servers and processes around them die, or a person cancels them: nothing of it harms the data set."""

from __future__ import annotations

import json
import os
import random
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from prefect.client.schemas.objects import StateType
from prefect.states import Cancelling, Suspended

from flows.server import PrefectServer
from tests.builds import command, digest_of
from tests.corpus import BROKEN, Corpus, corpus_of
from tests.daskcluster import wait_until
from tests.disks import perhaps_mounted
from tests.faults import disturb, plan
from tests.flowscene import FlowScene
from tests.intact import assert_intact
from tests.prefectserver import Server, worker
from tests.processes import MARK, kill_all, marked, of_kind
from tests.smallslides import tissue_rgb, write_slide
from tests.store import Store

STOPS_WITHIN_S = 30


@dataclass(frozen=True)
class Prefect:
    """A server with the deployments, that may be killed and started again."""

    process: PrefectServer
    asked: Server


@pytest.fixture(scope="module")
def mark() -> Iterator[str]:
    """Of all processes of these tests; none may be left."""
    mark = secrets.token_hex(8)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(MARK, mark)
        yield mark
        left = marked(mark)
        kill_all(mark)
    assert left == {}


@pytest.fixture(scope="module")
def prefect(mark: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    process = PrefectServer(tmp_path_factory.mktemp("prefect"))
    process.start()
    try:
        process.wait()
        asked = Server(process.url, process.home)
        asked.run("tools/prefect_setup.py")
        yield Prefect(process, asked)
    finally:
        process.stop()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_of(tmp_path_factory.mktemp("corpus"), slides=6, slides_per_group=1)


def test_a_server_that_is_killed_holds_up_no_group_and_the_flow_ends_when_it_is_back(
    prefect: Prefect, mark: str, corpus: Corpus, tmp_path: Path
) -> None:
    manifest = corpus.write_manifest(tmp_path / "manifest.yaml", f"{corpus.slides}/*.tiff")
    out = tmp_path / "dataset"
    with worker(prefect.asked):
        run = prefect.asked.start_run("tile-and-normalize/local", manifest=str(manifest), out=str(out))
        wait_until(lambda: any(out.glob("ledger/*.json")), 120)
        for pid in of_kind(mark, "prefect server"):
            os.kill(pid, 9)
        assert prefect.process.process is not None
        prefect.process.process.wait()
        assert not (out / "build.json").exists()
        wait_until((out / "build.json").exists, 60)
        assert not prefect.process.answers()
        prefect.process.start()
        prefect.process.wait()
        wait_until(lambda: not of_kind(mark, "flow"), 150)
        state = prefect.asked.flow_run(run).state
    assert state is not None
    assert state.is_completed(), state
    assert state.state_details.deployment_concurrency_lease_id is None, "a server that was started again ends such runs"
    assert json.loads((out / "verification.json").read_text())["problems"] == []
    assert_intact(out, corpus.undisturbed, BROKEN)


def test_a_run_that_is_cancelled_ends_within_half_a_minute_and_a_further_one_goes_on(
    prefect: Prefect, mark: str, tmp_path: Path
) -> None:
    """9,000 patches of 32 px: whole seconds of work in the slide that a run is at when it is cancelled."""
    write_slide(tmp_path / "slides" / "large.tiff", np.tile(tissue_rgb(1), (4, 3, 1)))
    document = {
        "name": "small",
        "cohorts": [{"name": "lab", "slides": [f"{tmp_path}/slides/*.tiff"]}],
        "patch": {"size_px": 32, "stride_px": 32},
        "stain": {"fit": "patch"},
    }
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(document))
    out, scratch = tmp_path / "dataset", tmp_path / "scratch"
    places = {"manifest": str(tmp_path / "manifest.yaml"), "out": str(out), "scratch": str(scratch)}
    with worker(prefect.asked):
        run = prefect.asked.start_run("tile-and-normalize/local", **places)
        wait_until(lambda: any(scratch.rglob("*.spool")), 120)
        with prefect.asked.client() as client:
            client.set_flow_run_state(run, Cancelling())
        wait_until(lambda: not (of_kind(mark, "flow") or of_kind(mark, "pool worker")), STOPS_WITHIN_S)
        assert not scratch.exists()
        assert not (out / "shards").exists()
        assert list(out.rglob("*.partial")) == []
        assert list(out.glob("progress/*")) == []

        def state() -> str:
            found = prefect.asked.flow_run(run).state
            return found.name if found is not None and found.name else ""

        wait_until(lambda: state() == "Cancelled", STOPS_WITHIN_S)
        again = prefect.asked.deployment_run("tile-and-normalize/local", **places)
    assert prefect.asked.groups(again) == {"group-000000": "COMPLETED"}
    ended = command("build", places["manifest"], "--out", str(tmp_path / "undisturbed"))
    assert ended.code == 0, ended.err
    assert digest_of(out) == digest_of(tmp_path / "undisturbed")


def test_a_run_that_is_suspended_ends_with_its_group_and_resumed_redoes_none(
    prefect: Prefect, mark: str, tmp_path: Path
) -> None:
    for number in range(10):
        write_slide(tmp_path / "slides" / f"slide-{number}.tiff", np.tile(tissue_rgb(number), (3, 1, 1)))
    document = {
        "name": "small",
        "cohorts": [{"name": "lab", "slides": [f"{tmp_path}/slides/*.tiff"]}],
        "patch": {"size_px": 32, "stride_px": 32},
        "stain": {"fit": "patch"},
        "shards": {"slides_per_group": 1},
        "splits": {},
    }
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(document))
    out = tmp_path / "dataset"
    places = {"manifest": str(tmp_path / "manifest.yaml"), "out": str(out)}
    with worker(prefect.asked):
        run = prefect.asked.start_run("tile-and-normalize/local", **places)
        wait_until(lambda: (out / "progress").exists(), 120)
        with prefect.asked.client() as client:
            client.set_flow_run_state(run, Suspended(timeout_seconds=300), force=True)  # as Prefect's pages do
        wait_until(lambda: not of_kind(mark, "flow"), 120)
        found = prefect.asked.flow_run(run).state
        assert found is not None
        assert found.is_paused(), found
        before = {path.name: path.read_bytes() for path in (out / "ledger").iterdir()}
        assert 0 < len(before) < 10
        assert list(out.glob("progress/*")) == []
        with prefect.asked.client() as client:
            client.resume_flow_run(run)
        wait_until(lambda: prefect.asked.flow_run(run).state_type == StateType.COMPLETED, 120)
        wait_until(lambda: not of_kind(mark, "flow"), 30)
    assert {name: (out / "ledger" / name).read_bytes() for name in before} == before
    assert set(prefect.asked.groups(run).values()) == {"COMPLETED"}
    assert json.loads((out / "verification.json").read_text())["problems"] == []


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_soak_faults_befall_a_deployment_and_its_data_set_is_as_if_nothing_had_happened(
    prefect: Prefect, mark: str, tmp_path: Path
) -> None:
    corpus = corpus_of(tmp_path / "corpus", slides=21, slides_per_group=2)
    disk = tmp_path / "disk"
    names = (
        "the flow's process is killed",
        "the Prefect server is killed",
        "a worker process of the pool is killed",
        "the answer to a commit is lost",
        "the store is gone",
        "a second builder starts",
        "the flow's process is killed",
        "the Prefect server is killed",
    )
    with Store() as store, perhaps_mounted(disk, 24):
        store.upload(corpus.slides, "slides")
        manifest = str(corpus.write_manifest(tmp_path / "manifest.yaml", store.url("slides/*.tiff")))
        places = {"manifest": manifest, "out": store.url("dataset"), "scratch": str(disk)}
        words = ("build", manifest, "--out", places["out"], "--scratch", str(disk), "--workers", "2")
        scene = FlowScene(
            mark=mark,
            words=words,
            store=store,
            prefix="dataset",
            chance=random.Random(3),
            until=time.monotonic() + 1000,
            server=prefect.process,
            prefect=prefect.asked,
            parameters={**places, "depth": "deep"},
        )
        with worker(prefect.asked):
            disturb(scene, plan(names, len(names), scene.chance), corpus.groups)
            wait_until(lambda: not any(of_kind(mark, kind) for kind in ("flow", "driver", "pool worker")), 60)
        assert list(disk.iterdir()) == []
        assert_intact(store.download("dataset", tmp_path / "copy"), corpus.undisturbed, BROKEN)
    states = [prefect.asked.flow_run(run).state_type for run in scene.runs]
    assert all(state is not None and state.value in {"COMPLETED", "CRASHED", "FAILED"} for state in states), states
    assert set(prefect.asked.groups(scene.runs[-1]).values()) <= {"COMPLETED"}
