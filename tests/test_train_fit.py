"""A run: what it writes down, how it goes on, and what it refuses."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from exaone_train.config import Config
from exaone_train.errors import CheckpointError, ShardError, TrainError
from exaone_train.fit import fit
from tests.trainruns import DROPPING, build_tinted, checkpoints_of, different, last_of, learned, log_of, tiny

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_tinted(tmp_path_factory.mktemp("tinted"), slides=8))


@pytest.fixture(scope="module")
def undisturbed(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed")
    assert fit(DROPPING, [shards], run)
    return run


def test_a_run_writes_down_what_it_did(undisturbed: Path) -> None:
    log = log_of(undisturbed)
    assert [entry["step"] for entry in log] == list(range(1, 21))
    assert {"epoch", "loss", "gradient_norm", "learning_rate", "weight_decay", "teacher_momentum"} <= log[0].keys()
    assert {"teacher_temperature", "images_per_s", "wait_share", "slides", "substituted"} <= log[0].keys()
    watched = {"teacher_entropy", "prototype_entropy", "information", "centre_norm", "feature_std", "same_slide"}
    assert [entry["step"] for entry in log if watched <= entry.keys()] == [10, 20]
    assert all(0 <= entry["wait_share"] <= 1 and entry["images_per_s"] > 0 for entry in log)
    assert all(1 <= entry["slides"] <= 8 and entry["substituted"] == 0 for entry in log)


def test_tensorboard_shows_the_same(undisturbed: Path) -> None:
    board = EventAccumulator(str(undisturbed / "tensorboard"))
    board.Reload()
    shown = [(event.step, event.value) for event in board.Scalars("loss")]
    assert shown == [(entry["step"], pytest.approx(entry["loss"])) for entry in log_of(undisturbed)]
    assert len(board.Scalars("information")) == 2


def test_the_newest_checkpoints_stay_and_the_last_is_of_the_last_step(undisturbed: Path) -> None:
    assert checkpoints_of(undisturbed) == ["step-00000018.pt", "step-00000020.pt"]
    state = last_of(undisturbed)
    assert state["step"] == 20
    assert Config.model_validate(state["config"]) == DROPPING
    assert state["shards"]["stain"]["method"] == "none"


def test_a_finished_run_does_nothing_when_it_is_started_again(undisturbed: Path, shards: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}
    assert fit(DROPPING, [shards], undisturbed)
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()} == before


def test_after_a_damaged_checkpoint_it_goes_on_from_the_one_before(
    undisturbed: Path, shards: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    newest = run / "checkpoints" / "step-00000020.pt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    assert fit(DROPPING, [shards], run)
    assert f"The checkpoint {newest} is damaged. An older one is looked for." in caplog.messages
    assert different(last_of(run), last_of(undisturbed)) == []
    assert learned(run) == learned(undisturbed)


def test_a_run_that_another_process_is_at_is_left_as_it_is(undisturbed: Path, shards: str, tmp_path: Path) -> None:
    run = Path(shutil.copytree(undisturbed, tmp_path / "run"))
    (run / "checkpoints" / "step-00000020.pt").unlink()
    before = (run / "log.jsonl").read_bytes()
    with (run / "log.jsonl").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(TrainError, match=f"^Another process is training {run}: wait for it, or give"):
            fit(DROPPING, [shards], run)
    assert (run / "log.jsonl").read_bytes() == before
    assert len([*(run / "tensorboard").iterdir()]) == len([*(undisturbed / "tensorboard").iterdir()])
    assert fit(DROPPING, [shards], run)
    assert different(last_of(run), last_of(undisturbed)) == []


def test_how_it_is_computed_may_change_on_the_way(undisturbed: Path, shards: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    (run / "checkpoints" / "step-00000020.pt").unlink()
    changed = {"data": {"decode_threads": 2, "prefetch": 1}, "run": {"log_every": 2, "checkpoint_every": 1}}
    fields = DROPPING.model_dump()
    config = Config.model_validate(fields | {name: fields[name] | part for name, part in changed.items()})
    assert fit(config, [shards], run)
    assert different(last_of(run)["student"], last_of(undisturbed)["student"]) == []


def test_another_configuration_is_refused_and_nothing_is_touched(undisturbed: Path, shards: str) -> None:
    before = checkpoints_of(undisturbed), log_of(undisturbed)
    with pytest.raises(CheckpointError, match=r"at step 20 of another one \(run.max_steps was 20 and is 30 now\)"):
        fit(tiny(model__drop_path_rate=0.2, run__max_steps=30), [shards], undisturbed)
    assert (checkpoints_of(undisturbed), log_of(undisturbed)) == before


def test_other_shards_are_refused(undisturbed: Path, tmp_path: Path) -> None:
    other = build_tinted(tmp_path, slides=5)
    with pytest.raises(CheckpointError, match=r"of another one \(the shards' .*data_sets\): give what it began with"):
        fit(DROPPING, [str(other)], undisturbed)


def test_a_loss_that_is_no_number_stops_the_run_and_good_checkpoints_stay(shards: str, tmp_path: Path) -> None:
    config = tiny(optimizer__learning_rate=1e38, optimizer__warmup_steps=8, run__checkpoint_every=1)
    with pytest.raises(TrainError, match=r"The loss of step . is nan, its gradient .*: the run has diverged") as caught:
        fit(config, [shards], tmp_path)
    assert "\n" not in str(caught.value)
    state = last_of(tmp_path)
    assert all(weight.isfinite().all() for weight in state["student"].values())


def test_without_held_out_patients_nothing_is_watched(shards: str, tmp_path: Path) -> None:
    assert fit(tiny(run__max_steps=2, run__watch_every=1, data__held_out_split="test"), [shards], tmp_path)
    assert [entry["step"] for entry in log_of(tmp_path)] == [1, 2]
    assert not [entry for entry in log_of(tmp_path) if "information" in entry]


def test_parts_of_a_batch_change_nothing_but_rounding(shards: str, tmp_path: Path) -> None:
    for parts in (1, 4):
        assert fit(tiny(run__accumulate=parts, run__max_steps=10), [shards], tmp_path / str(parts))
    losses = [[entry["loss"] for entry in log_of(tmp_path / str(parts))] for parts in (1, 4)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_a_place_without_shards_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=str(tmp_path)):
        fit(tiny(), [str(tmp_path)], tmp_path / "run")
    assert not (tmp_path / "run" / "log.jsonl").exists()
