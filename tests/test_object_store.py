"""Slides and data sets in S3, by the protocol: a build there makes the bytes of a build here."""

from __future__ import annotations

import importlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exaone_prep.steps import KILL_AT
from tests.builds import build, command
from tests.smallslides import small_slides

SMALL = ("--set", "shards.slides_per_group=1", "--set", "shards.samples_per_shard=5", "--workers", "1")


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    small_slides(folder, 3)
    return folder


@pytest.fixture(scope="module")
def store(slides: Path) -> Iterator[dict[str, str]]:
    """The environment of a store whose bucket holds the slides."""
    server: Any = importlib.import_module("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        import s3fs

        files = s3fs.S3FileSystem(skip_instance_cache=True)
        files.mkdir("bucket")
        for slide in sorted(slides.iterdir()):
            files.put_file(str(slide), f"bucket/slides/{slide.name}")
    yield environment
    server.stop()


def test_a_build_in_a_store_makes_the_bytes_of_a_local_one(slides: Path, store: dict[str, str], tmp_path: Path) -> None:
    words = ("build", "--slides", "s3://bucket/slides/*.tiff", "--out", "s3://bucket/dataset", *SMALL)
    killed = command(*words, env={**store, KILL_AT: "index-put:2"})
    assert killed.code == -signal.SIGKILL, killed.err
    ended = command(*words, env=store)
    assert ended.code == 0, ended.err
    assert f"digest {build(slides, tmp_path / 'local', *SMALL)}" in ended.out
    assert command("verify", "s3://bucket/dataset", "--deep", env=store).code == 0
    status = json.loads(command("status", "s3://bucket/dataset", "--json", env=store).out)
    assert (status["state"], status["slides"]["done"], status["workers"]) == ("complete", 3, [])


def test_a_store_that_does_not_answer_is_said_in_a_sentence(store: dict[str, str], tmp_path: Path) -> None:
    nowhere = {**store, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    ended = command("build", "--slides", "s3://bucket/slides/*.tiff", "--out", str(tmp_path / "out"), env=nowhere)
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert len(ended.err.strip().splitlines()) == 1
