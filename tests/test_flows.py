"""Flows against a real Prefect server: they show what the ledger says, and a killed one goes on where it was."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from exaone_prep.errors import DatasetError, ManifestError, VerificationError
from exaone_prep.steps import KILL_AT
from flows.pretrain import TrainingError, pretrain
from flows.served import NoServerError, ServedFlow
from flows.tile_and_normalize import tile_and_normalize
from flows.verify_shards import verify_shards
from tests.builds import command, digest_of
from tests.committed import results
from tests.daskcluster import wait_until
from tests.prefectserver import ROOT, Server, server_of_tests, worker
from tests.processes import children_of
from tests.smallslides import small_slide, small_slides
from tests.store import Store
from tests.trainruns import checkpoints_of, tiny, write_config

SHARDS = {"slides_per_group": 1, "samples_per_shard": 5}
COHORT = "lab"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server_of_tests(tmp_path_factory.mktemp("prefect")) as found:
        yield found


@pytest.fixture(scope="module")
def store(slides: Path) -> Iterator[Store]:
    """An S3 server whose bucket holds slides and manifest."""
    with Store() as found:
        found.upload(slides, "corpus/slides")
        text = manifest_text("slides/*.tiff")
        found.client().put_object(Bucket=found.bucket, Key="corpus/manifest.yaml", Body=text.encode())
        yield found


def read(store: Store, key: str) -> bytes:
    data: bytes = store.client().get_object(Bucket=store.bucket, Key=key)["Body"].read()
    return data


def manifest_text(pattern: str) -> str:
    cohort = {"name": COHORT, "slides": [pattern]}
    return yaml.safe_dump({"name": "small", "cohorts": [cohort], "shards": SHARDS, "splits": {}})


def write_manifest(folder: Path, slides: Path) -> Path:
    path = folder / "manifest.yaml"
    path.write_text(manifest_text(f"{slides}/*.tiff"))
    return path


def run_of(server: Server, out: Path) -> UUID:
    """The only flow run that built a data set."""
    with server.client() as client:
        (run,) = (run for run in client.read_flow_runs() if f"dataset:{out}" in run.tags)
        return run.id


def state_of(server: Server, run: UUID) -> str:
    found = server.flow_run(run).state_type
    assert found is not None
    return found.value


def test_a_killed_run_is_shown_as_crashed_and_the_next_one_redoes_no_committed_group(
    server: Server, store: Store
) -> None:
    server.run("tools/prefect_setup.py")
    places = {"manifest": store.url("corpus/manifest.yaml"), "out": store.url("dataset")}
    with worker(server, {**store.environment, KILL_AT: "ledger-after:1"}) as process:
        killed = server.start_run("tile-and-normalize/local", **places)
        # A power failure takes both: the worker is frozen, so that it cannot report the death of the flow.
        wait_until(lambda: state_of(server, killed) == "RUNNING", 120)
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: not children_of(process.pid), 120)
    assert state_of(server, killed) == "RUNNING"
    (committed,) = store.keys("dataset/ledger")
    before = read(store, committed)

    with worker(server, store.environment):
        again = server.deployment_run("tile-and-normalize/local", **places)
    assert state_of(server, again) == "COMPLETED"
    assert read(store, committed) == before
    assert state_of(server, killed) == "CRASHED"
    assert set(server.groups(killed).values()) <= {"COMPLETED", "CRASHED"}
    assert sorted(server.groups(again).values()) == ["COMPLETED", "COMPLETED"]
    verification = json.loads(read(store, "dataset/verification.json"))
    assert (verification["depth"], verification["problems"]) == ("full", [])


def test_a_flow_leaves_a_verified_data_set_and_shows_what_became_of_the_slides(server: Server, tmp_path: Path) -> None:
    small_slides(tmp_path / "slides", 2)
    (tmp_path / "slides" / "broken.tiff").write_bytes(b"")
    out = tmp_path / "dataset"
    with server.here():
        digest = tile_and_normalize(str(write_manifest(tmp_path, tmp_path / "slides")), str(out), depth="deep")
        assert digest == digest_of(out)
        assert verify_shards(str(out)) == digest
        train = {"config": write_config(tmp_path / "tiny.yaml", tiny()), "out": str(tmp_path / "run")}
        with pytest.raises(TrainingError, match=r"exit code 2: exaone-train: .* no shards of the split 'test'"):
            pretrain([str(out)], **train, settings={"data.split": "test"})
        pretrain([str(out)], **train, settings={"run.max_steps": "2"})
        assert checkpoints_of(tmp_path / "run") == ["step-00000002.pt"]
        (out / "verification.json").unlink()
        with pytest.raises(DatasetError, match="was not verified yet"):
            pretrain([str(out)], **train)
        next((out / "shards" / "train").glob("*.tar")).write_bytes(b"x" * 512)
        with pytest.raises(VerificationError, match="bytes, the ledger says"):
            verify_shards(str(out))
        with pytest.raises(DatasetError, match="is damaged"):
            pretrain([str(out)], **train)
    artifacts = server.artifacts(run_of(server, out))
    assert artifacts["groups"] == 100.0
    (cohort,) = json.loads(artifacts["cohorts"])
    assert (cohort["cohort"], cohort["slides"], cohort["done"], cohort["quarantined"]) == (COHORT, 3, 2, 1)
    (aside,) = json.loads(artifacts["quarantine"])
    assert (aside["slide"], aside["reason"]) == ("broken", "empty_file")
    assert aside["what to do"]
    assert "data:image/jpeg;base64," in artifacts["summary"]
    assert f"`{digest}`" in artifacts["summary"]


def test_a_slide_that_was_set_aside_is_mended_by_a_further_run(server: Server, tmp_path: Path) -> None:
    for number, mpp in enumerate((0.5, None)):
        small_slide(tmp_path / "slides" / f"slide-{number}.tiff", number, mpp=mpp)
    manifest, first, second = (
        str(write_manifest(tmp_path, tmp_path / "slides")),
        tmp_path / "first",
        tmp_path / "second",
    )
    (tmp_path / "fix.csv").write_text("slide_id,mpp\nslide-1,0.5\n")
    with server.here():
        tile_and_normalize(manifest, str(first))
        tile_and_normalize(manifest, str(second), after=str(first), overrides=str(tmp_path / "fix.csv"))
    assert results(first) == {"slide-0": "done", "slide-1": "no_mpp"}
    assert results(second) == {"slide-1": "done"}


def test_a_group_that_fails_three_times_is_failed_and_the_others_are_completed(server: Server, tmp_path: Path) -> None:
    files = small_slides(tmp_path / "slides", 2)
    manifest, out = str(write_manifest(tmp_path, tmp_path / "slides")), tmp_path / "dataset"
    from exaone_prep.dataset import create_dataset
    from exaone_prep.manifest import load_manifest

    create_dataset(out, load_manifest(Path(manifest)), base=tmp_path)
    os.rename(files[0], tmp_path / "away.tiff")  # noqa: PTH104
    with server.here(), pytest.raises(Exception, match="1 of 2 groups could not be built"):
        tile_and_normalize(manifest, str(out))
    states = server.groups(run_of(server, out))
    assert sorted(states.values()) == ["COMPLETED", "FAILED"]
    assert state_of(server, run_of(server, out)) == "FAILED"
    assert len(list((out / "attempts").iterdir())) == 3


def test_a_relative_manifest_is_refused_naming_the_host_where_it_was_looked_for(server: Server) -> None:
    with server.here(), pytest.raises(ManifestError) as refused:
        tile_and_normalize("data_manifest.yaml", "/tmp/never")
    assert socket.gethostname() in str(refused.value)
    assert str(Path.cwd()) in str(refused.value)


@pytest.mark.parametrize("flow", [tile_and_normalize, verify_shards, pretrain])
def test_a_flow_without_a_server_refuses_instead_of_starting_one(flow: ServedFlow[..., Any]) -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(NoServerError, match="PREFECT_API_URL"):
        flow()


def test_deployments_give_parameters_that_their_flows_have_and_every_parameter_is_described() -> None:
    document = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    names = set()
    for deployment in document["deployments"]:
        module, _, name = deployment["entrypoint"].removesuffix("").partition(":")
        flow = getattr(importlib.import_module(module.removesuffix(".py").replace("/", ".")), name)
        names.add(f"{flow.name}/{deployment['name']}")
        properties = flow.parameters.properties
        assert set(deployment["parameters"]) <= set(properties)
        assert all(one["description"] for one in properties.values())
        assert set(properties) == set(inspect.signature(flow.fn).parameters)
        assert deployment["tags"]
        assert flow.retries == 0
    assert names == {
        "tile-and-normalize/local",
        "tile-and-normalize/cpu-cluster",
        "tile-and-normalize/gpu-cluster",
        "verify-shards/local",
        "pretrain/local",
    }


@pytest.mark.soak
def test_setting_up_may_be_repeated_and_knows_gpus_only_when_asked(server: Server) -> None:
    server.run("tools/prefect_setup.py")
    with server.client() as client:
        assert [pool.name for pool in client.read_work_pools()] == ["exaone-cpu"]
        assert not [one for one in client.read_deployments() if one.name == "gpu-cluster"]
    for _ in range(2):
        server.run("tools/prefect_setup.py", "--gpu")
    with server.client() as client:
        assert sorted(pool.name for pool in client.read_work_pools()) == ["exaone-cpu", "exaone-gpu"]
        assert len(client.read_deployments()) == 5


@pytest.mark.soak
def test_a_deployment_on_a_local_cluster_makes_the_bytes_of_the_command_line(
    server: Server, slides: Path, tmp_path: Path
) -> None:
    server.run("tools/prefect_setup.py")
    manifest, out = str(write_manifest(tmp_path, slides)), tmp_path / "dataset"
    with worker(server):
        run = server.deployment_run(
            "tile-and-normalize/local", manifest=manifest, out=str(out), dask="local", workers="2"
        )
    assert sorted(server.groups(run).values()) == ["COMPLETED"] * 3
    assert json.loads((out / "verification.json").read_text())["problems"] == []
    ended = command("build", manifest, "--out", str(tmp_path / "other"))
    assert ended.code == 0, ended.err
    assert digest_of(out) == digest_of(tmp_path / "other")
