"""The trainer's list of shards: what data sets hold, as one; those that do not belong together are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from exaone_train.errors import ShardError
from exaone_train.shardset import open_shards
from tests.shardsets import SIZE_PX, write_data_set
from tests.smallslides import build_small, manifest_of, small_slides


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of four small slides in two splits, some shards to a group."""
    folder = tmp_path_factory.mktemp("built")
    small_slides(folder / "slides", 4)
    # With this seed the four slides fall into both splits.
    shards = {"samples_per_shard": 6, "slides_per_group": 2}
    build_small(manifest_of(folder / "slides", shards=shards, splits={"val": 0.5}, seed=1), folder / "dataset")
    return folder / "dataset"


def sentence(*places: Path | str) -> str:
    """Of the refusal."""
    with pytest.raises(ShardError) as refusal:
        open_shards([str(place) for place in places], "train")
    text = str(refusal.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize("split", ["train", "val"])
def test_each_shard_of_a_build_comes_with_its_row_group_of_the_index(built: Path, split: str) -> None:
    shards = open_shards([str(built)], split).shards
    assert [Path(shard.tar) for shard in shards] == sorted((built / "shards" / split).glob("*.tar"))
    assert len(shards) > 1
    for shard in shards:
        rows = pq.ParquetFile(shard.index).read_row_group(shard.row_group).to_pylist()
        assert {row["shard"] for row in rows} == {Path(shard.tar).name}
        assert len(rows) == shard.samples


def test_it_says_what_the_images_are_but_not_where(built: Path) -> None:
    shards = open_shards([f"{built}/"], "train")
    build = json.loads((built / "build.json").read_text())
    assert (shards.patch_size_px, shards.image_format, shards.places) == (256, "jpeg", (str(built),))
    assert shards.provenance["patch"]["mpp"] == 0.5
    assert shards.provenance["stain"]["reference"] == "macenko"
    assert [one["content_id"] for one in shards.provenance["data_sets"]] == [build["content_id"]]
    assert shards.provenance["data_sets"][0]["channel_mean"] == build["channel_mean"]
    assert str(built) not in json.dumps(shards.provenance)


def test_a_shard_without_samples_leaves_a_gap_in_the_numbers_and_none_in_the_index(tmp_path: Path) -> None:
    shards = open_shards([str(write_data_set(tmp_path, [[3, 0, 2], [0, 4]]))], "train").shards
    assert [(Path(shard.tar).name, shard.row_group, shard.samples) for shard in shards] == [
        ("shard-000000-000.tar", 0, 3),
        ("shard-000000-002.tar", 1, 2),
        ("shard-000001-001.tar", 0, 4),
    ]


def test_shards_and_indexes_are_not_touched_before_they_are_needed(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path)
    shutil.rmtree(folder / "index")
    for tar in folder.glob("shards/*/*.tar"):
        tar.unlink()
    assert len(open_shards([str(folder)], "train").shards) == 5


def test_several_data_sets_are_one_in_whatever_order_they_are_given(tmp_path: Path) -> None:
    one = write_data_set(tmp_path / "one", [[5, 5]], name="one")
    two = write_data_set(tmp_path / "two", [[7], [7]], name="two")
    together = open_shards([str(one), str(two)], "train")
    assert together == open_shards([str(two), str(one)], "train")
    assert sorted(shard.samples for shard in together.shards) == [5, 5, 7, 7]
    assert {one["name"] for one in together.provenance["data_sets"]} == {"one", "two"}


def test_a_split_that_no_data_set_has_is_empty(tmp_path: Path) -> None:
    assert open_shards([str(write_data_set(tmp_path))], "val").shards == ()


def test_a_split_that_one_data_set_has_is_taken_from_it(tmp_path: Path) -> None:
    one = write_data_set(tmp_path / "one", [[5]], name="one")
    two = write_data_set(tmp_path / "two", [[3]], name="two", split="val")
    assert [shard.samples for shard in open_shards([str(one), str(two)], "val").shards] == [3]


def test_no_data_set_is_a_sentence(tmp_path: Path) -> None:
    assert sentence() == "No data set is given."
    for place in (tmp_path, tmp_path / "nowhere"):
        assert f"no {place}/build.json" in sentence(place)


def test_a_data_set_that_is_not_complete_is_refused(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path)
    (folder / "build.json").unlink()
    assert sentence(folder) == (
        f"There is no {folder}/build.json: give the folder or URL of a data set whose build has ended."
    )


@pytest.mark.parametrize("name", ["manifest.yaml", "shards/train/_info.json"])
def test_a_data_set_that_lost_a_file_is_refused(tmp_path: Path, name: str) -> None:
    folder = write_data_set(tmp_path)
    (folder / name).unlink()
    assert name in sentence(folder)


@pytest.mark.parametrize("name", ["build.json", "manifest.yaml", "shards/train/_info.json"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str) -> None:
    folder = write_data_set(tmp_path)
    (folder / name).write_text("a: [b")
    assert f"{folder}/{name} cannot be understood" in sentence(folder)


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path)
    change(folder / "build.json", format_version=3)
    assert "format version 3" in sentence(folder)


def test_a_scheme_that_nobody_knows_is_a_sentence() -> None:
    assert "nosuch://bucket/data" in sentence("nosuch://bucket/data")


def test_a_data_set_is_not_taken_twice(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "one")
    shutil.copytree(folder, tmp_path / "copy")
    said = sentence(folder, tmp_path / "copy")
    assert str(folder) in said
    assert str(tmp_path / "copy") in said


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"size_px": 2 * SIZE_PX}, f"patch.size_px is {SIZE_PX}"),
        ({"mpp": 0.25}, "patch.mpp is 0.5"),
        ({"image_format": "png"}, 'codec.format is "jpeg"'),
        ({"stain": {"method": "none"}}, 'stain.method is "macenko"'),
        ({"stain": {"reference": {"name": "own", "stain_matrix": [[0.6]]}}}, 'stain.reference is "macenko"'),
        ({"stain": {"options": {"strength": 1}}}, "stain.options is null"),
    ],
)
def test_data_sets_that_do_not_belong_together_are_refused(tmp_path: Path, other: dict[str, Any], what: str) -> None:
    one = write_data_set(tmp_path / "one", name="one")
    two = write_data_set(tmp_path / "two", name="three", **other)
    said = sentence(two, one)
    assert str(one) in said
    assert str(two) in said
    assert what in said
    write_data_set(tmp_path / "two", name="three")
    assert len(open_shards([str(two), str(one)], "train").shards) == 10
