"""Checkpoints: whole or not there, the newest kept, damage passed over, nothing executed, and of one run only."""

from __future__ import annotations

import logging
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from exaone_train.checkpoint import ensure_same_run, load, load_newest, save
from exaone_train.config import Config
from exaone_train.errors import CheckpointError
from tests.trainruns import tiny

SHARDS = {"stain": {"method": "macenko"}, "data_sets": [{"name": "one", "content_id": "ab12"}]}


def state_at(step: int, config: Config | None = None) -> dict[str, Any]:
    weights = torch.arange(4_000, dtype=torch.float32) + step
    config_now = (config or tiny()).model_dump(mode="json")
    return {"step": step, "config": config_now, "shards": SHARDS, "student": {"weight": weights}}


def saved(folder: Path, steps: range, keep: int = 9) -> list[Path]:
    return [save(folder, state_at(step), keep=keep) for step in steps]


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoints", state_at(7), keep=3)
    assert path == tmp_path / "checkpoints" / "step-00000007.pt"
    found = load(path)
    assert torch.equal(found.pop("student")["weight"], state_at(7)["student"]["weight"])
    assert found == {"format": 1, "step": 7, "config": tiny().model_dump(mode="json"), "shards": SHARDS}


def test_only_the_newest_stay(tmp_path: Path) -> None:
    saved(tmp_path, range(8, 13), keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{step:08d}.pt" for step in (10, 11, 12)]
    newest = load_newest(tmp_path)
    assert newest is not None
    assert newest["step"] == 12


def test_a_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "none") is None


def test_a_checkpoint_that_cannot_be_written_leaves_the_older_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, range(1, 2))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, state_at(2), keep=1)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.glob("*.pt")] == ["step-00000001.pt"]
    save(tmp_path, state_at(2), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002.pt"]


@pytest.mark.parametrize("kept", [0, 1, 100, 9_000, -1])
def test_a_half_written_checkpoint_is_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: int
) -> None:
    path = saved(tmp_path, range(1, 4))[-1]
    path.write_bytes(path.read_bytes()[:kept])
    newest = load_newest(tmp_path)
    assert newest is not None
    assert newest["step"] == 2
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, f"The checkpoint {path} is damaged. An older one is looked for.")
    ]


def test_no_flipped_bit_goes_unseen(tmp_path: Path) -> None:
    path = saved(tmp_path, range(1, 2))[0]
    whole, choose = path.read_bytes(), random.Random(0)
    seen = 0
    for _ in range(200):
        place = choose.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << choose.randrange(8)]) + whole[place + 1 :])
        try:
            found = load(path)
        except CheckpointError:
            seen += 1
        else:  # in the padding between the members of the archive
            assert torch.equal(found["student"]["weight"], state_at(1)["student"]["weight"])
            assert {key: found[key] for key in ("step", "config", "shards")} == {
                key: state_at(1)[key] for key in ("step", "config", "shards")
            }
    assert seen > 150


def test_where_all_are_damaged_nothing_begins_anew_by_itself(tmp_path: Path) -> None:
    for path in saved(tmp_path, range(1, 3)):
        path.write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"None of the checkpoints in .* can be read: begin again with another"):
        load_newest(tmp_path)


class _Trap:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (os.system, ("touch executed",))


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "step": 3, "trap": _Trap()}, tmp_path / "step-00000003.pt")
    with zipfile.ZipFile(tmp_path / "step-00000003.pt") as archive:
        pickled = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        assert b"touch executed" in archive.read(pickled)
    with pytest.raises(CheckpointError):
        load(tmp_path / "step-00000003.pt")
    assert not (tmp_path / "executed").exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "step-00000003.pt", weights_only=True)


def test_a_checkpoint_of_another_version_is_said_to_be_one(tmp_path: Path) -> None:
    torch.save({"format": 2}, tmp_path / "step-00000001.pt")
    with pytest.raises(CheckpointError, match="is not one that this version of the trainer reads"):
        load(tmp_path / "step-00000001.pt")


def test_a_run_goes_on_with_its_configuration_and_shards() -> None:
    ensure_same_run(state_at(5), tiny(), SHARDS)
    ensure_same_run(state_at(5), tiny(run__log_every=7, run__accumulate=2, data__decode_threads=3), SHARDS)


def test_another_configuration_is_refused_by_the_names_of_its_fields() -> None:
    with pytest.raises(CheckpointError) as caught:
        ensure_same_run(state_at(5), tiny(run__max_steps=40, model__head_outputs=128), SHARDS)
    assert str(caught.value) == (
        "The run stands at step 5 of another one (model.head_outputs was 64 and is 128 now; run.max_steps was 20 and "
        "is 40 now): give what it began with, or another --out."
    )


def test_other_shards_are_refused() -> None:
    other = {**SHARDS, "data_sets": [{"name": "one", "content_id": "cd34"}]}
    with pytest.raises(CheckpointError, match=r"of another one \(the shards' data_sets\): give what it began with"):
        ensure_same_run(state_at(5), tiny(), other)
