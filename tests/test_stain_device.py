"""What normalises: free where every device gives the same bytes by promise, fixed where it is part of the data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from exaone_prep.dataset import Dataset, create_dataset, open_dataset
from exaone_prep.errors import DatasetError
from exaone_prep.manifest import Manifest
from exaone_prep.stain import Device, device
from exaone_prep.stain.cupy_card import why_no_gpu
from tests.builds import digest_of
from tests.commandline import run_here
from tests.smallslides import manifest_of, small_slides

WITHOUT = "this machine has no NVIDIA driver"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says it has a GPU."""
    monkeypatch.setattr(device, "why_no_gpu", lambda: None)


def begun(folder: Path, out: str, **stain: str) -> Dataset:
    return create_dataset(folder / out, manifest_of(folder, stain=stain), base=folder)


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    small_slides(tmp_path, 1)
    return tmp_path


def test_with_a_fit_per_slide_the_device_is_no_part_of_the_content(slides: Path) -> None:
    content = [begun(slides, name, device=name).catalog.content_id for name in ("cpu", "gpu", "auto")]
    assert len(set(content)) == 1
    assert "device" not in open_dataset(slides / "gpu").catalog.metadata.manifest["stain"]


def test_with_a_fit_per_slide_a_build_goes_on_with_any_device(slides: Path) -> None:
    for name in ("cpu", "gpu", "auto"):
        assert begun(slides, "out", device=name).stain_device == name


def test_with_a_fit_per_patch_the_device_is_part_of_the_content(slides: Path) -> None:
    content = {name: begun(slides, name, fit="patch", device=name).catalog.content_id for name in ("cpu", "gpu")}
    assert content["cpu"] != content["gpu"]
    with pytest.raises(DatasetError, match=r"stain\.device differ"):
        begun(slides, "gpu", fit="patch", device="cpu")


def test_with_a_fit_per_patch_auto_is_decided_when_the_data_set_is_begun(
    slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided: dict[str, Device] = {"here": "cpu", "there": "gpu"}
    for out, why in (("here", WITHOUT), ("there", None)):
        monkeypatch.setattr(device, "why_no_gpu", lambda why=why: why)
        assert begun(slides, out, fit="patch").stain_device == decided[out]
    # Another machine goes on as it was begun.
    for out, why in (("here", None), ("there", WITHOUT)):
        monkeypatch.setattr(device, "why_no_gpu", lambda why=why: why)
        assert begun(slides, out, fit="patch").stain_device == decided[out]


@pytest.mark.usefixtures("gpu")
def test_a_data_set_begun_on_a_gpu_is_refused_by_a_machine_without(
    slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = slides / "out"
    words = ("build", "--slides", f"{slides}/*.tiff", "--out", out, "--set", "stain.fit=patch")
    create_dataset(out, Manifest.model_validate(_as_the_command_reads(slides)), base=slides)
    monkeypatch.setattr(device, "why_no_gpu", lambda: WITHOUT)
    sentence = run_here(*words).sentence(2)
    assert "was begun with stain.device: gpu" in sentence
    assert WITHOUT in sentence
    assert not (out / "shards").exists()


def _as_the_command_reads(slides: Path) -> dict[str, object]:
    cohort = {"name": "slides", "slides": [f"{slides}/*.tiff"]}
    return {"name": "slides", "cohorts": [cohort], "stain": {"fit": "patch"}}


@pytest.mark.skipif(why_no_gpu() is None, reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_a_sentence_before_anything_is_written(slides: Path) -> None:
    out = slides / "out"
    ended = run_here("build", "--slides", f"{slides}/*.tiff", "--out", out, "--set", "stain.device=gpu")
    assert "A GPU is asked for" in ended.sentence(2)
    assert not out.exists()


def test_the_control_group_asks_for_no_device(slides: Path) -> None:
    out = slides / "out"
    words = ("build", "--slides", f"{slides}/*.tiff", "--out", out, "--set", "stain.device=gpu")
    run_here(*words, "--set", "stain.method=none").succeeded()
    assert digest_of(out)
