"""Format versions: metadata is brought to the present one, shards are not touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exaone_prep import layout
from exaone_prep.errors import DatasetError
from exaone_prep.ledger import check_format
from exaone_prep.migrate import STEPS, Metadata, migrate
from exaone_prep.storage import LocalStorage
from tests.commandline import run_here


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """What a step finds of a data set of version 1: two ledger entries and a shard."""
    for path, text in {
        "build.json": json.dumps({"format_version": 1, "digest": "d"}),
        "ledger/group-000000.json": json.dumps({"format_version": 1, "group": 0}),
        "ledger/group-000001.json": json.dumps({"format_version": 1, "group": 1}),
        "shards/train/shard-000000-000.tar": "pixels",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def version_of(path: Path) -> int:
    return int(json.loads(path.read_text())["format_version"])


def add_a_field(metadata: Metadata) -> None:
    """A step from version 1 to 2."""
    for name in metadata.names(layout.LEDGER):
        path = f"{layout.LEDGER}/{name}"
        record = json.loads(metadata.read(path))
        metadata.replace(path, json.dumps({**record, "format_version": 2, "colour": "red"}).encode())


def rename_it(metadata: Metadata) -> None:
    """A step from version 2 to 3."""
    for name in metadata.names(layout.LEDGER):
        path = f"{layout.LEDGER}/{name}"
        record = json.loads(metadata.read(path))
        if "colour" in record:
            record["hue"] = record.pop("colour")
        metadata.replace(path, json.dumps({**record, "format_version": 3}).encode())


def test_a_data_set_of_the_present_version_is_left_alone(out: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert "there is nothing to do" in run_here("migrate", str(out)).succeeded().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_every_version_but_the_present_one_has_a_step() -> None:
    assert set(STEPS) == set(range(1, layout.FORMAT_VERSION))


def test_steps_follow_each_other_and_leave_shards_and_what_is_beside_the_version(out: Path) -> None:
    assert migrate(LocalStorage(out), {1: add_a_field, 2: rename_it}, to=3) == (1, 3)
    assert json.loads((out / "build.json").read_text()) == {"format_version": 3, "digest": "d"}
    assert json.loads((out / "ledger/group-000001.json").read_text()) == {"format_version": 3, "group": 1, "hue": "red"}
    assert (out / "shards/train/shard-000000-000.tar").read_text() == "pixels"
    assert migrate(LocalStorage(out), {1: add_a_field, 2: rename_it}, to=3) == (3, 3)


def test_a_step_that_is_interrupted_is_run_again_from_its_beginning(out: Path) -> None:
    def interrupted(metadata: Metadata) -> None:
        path = "ledger/group-000000.json"
        metadata.replace(path, json.dumps({"format_version": 2, "group": 0, "colour": "red"}).encode())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migrate(LocalStorage(out), {1: interrupted}, to=2)
    assert version_of(out / "build.json") == 1
    assert migrate(LocalStorage(out), {1: add_a_field}, to=2) == (1, 2)
    assert [version_of(path) for path in sorted((out / "ledger").iterdir())] == [2, 2]


@pytest.mark.parametrize("path", ["shards/train/shard-000000-000.tar", layout.BUILD])
def test_a_step_cannot_write_a_shard_nor_say_that_it_is_done(out: Path, path: str) -> None:
    def wrong(metadata: Metadata) -> None:
        metadata.replace(path, b"")

    with pytest.raises(AssertionError, match=path):
        migrate(LocalStorage(out), {1: wrong}, to=2)
    assert (out / path).stat().st_size > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"format_version": 99}', "install a later one"),
        ("{", "is damaged"),
        ('{"format_version": "1"}', "no format version"),
        ("[]", "no format version"),
        (None, "no complete data set"),
    ],
)
def test_later_damaged_and_unfinished_data_sets_are_refused_in_a_sentence(
    out: Path, text: str | None, said: str
) -> None:
    (out / "build.json").unlink()
    if text is not None:
        (out / "build.json").write_text(text)
    assert said in run_here("migrate", str(out)).sentence(2)


def test_a_version_that_no_step_leads_on_from_is_refused_before_anything_is_written(out: Path) -> None:
    with pytest.raises(DatasetError, match="no step leads on from version 2"):
        migrate(LocalStorage(out), {1: add_a_field}, to=3)
    assert version_of(out / "ledger/group-000000.json") == 1


@pytest.mark.parametrize(("offset", "accepted"), [(-2, False), (-1, True), (0, True), (1, False)])
def test_readers_take_the_present_version_and_the_one_before(offset: int, accepted: bool) -> None:
    if accepted:
        check_format(layout.FORMAT_VERSION + offset, "here")
    else:
        with pytest.raises(DatasetError, match="format version"):
            check_format(layout.FORMAT_VERSION + offset, "here")
