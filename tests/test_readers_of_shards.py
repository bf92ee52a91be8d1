"""Others read the shards: plain `tarfile`, webdataset, timm and pyarrow, none of which knows this software."""

from __future__ import annotations

import gc
import io
import json
import tarfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.commandline import run_here
from tests.committed import build_json, samples
from tests.smallslides import small_slides

FIELDS = ["cohort", "level", "mpp", "slide_id", "stain_status", "tissue_fraction", "x", "y"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four slides in two splits, six shards or more."""
    folder = tmp_path_factory.mktemp("readers")
    small_slides(folder / "slides", 4)
    small = ("--set", "shards.samples_per_shard=10", "--set", "shards.slides_per_group=2")
    # With this seed the four slides fall into both splits.
    splits = ("--set", "splits={val: 0.5}", "--set", "seed=1")
    out = folder / "dataset"
    run_here("build", "--slides", folder / "slides", "--out", out, "--workers", 1, *small, *splits).succeeded()
    assert set(build_json(out)["splits"]) == {"train", "val"}
    assert build_json(out)["shards"] >= 5
    return out


@contextmanager
def their_warnings() -> Iterator[None]:
    """Both webdataset and timm call old interfaces, and leave the last shard open until they are collected."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch|webdataset|timm|braceexpand")
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch|webdataset|timm")
        warnings.filterwarnings("ignore", message=r"unclosed file .*shard-\d{6}-\d{3}\.tar", category=ResourceWarning)
        yield
        gc.collect()


def shards(dataset: Path, split: str) -> list[Path]:
    return sorted((dataset / "shards" / split).glob("*.tar"))


def members(shard: Path) -> dict[str, bytes]:
    """Every member of a shard by plain tarfile, in order."""
    found = {}
    with tarfile.open(shard, "r:") as archive:
        for member in archive:
            assert member.isreg()
            assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
            stream = archive.extractfile(member)
            assert stream is not None
            found[member.name] = stream.read()
    return found


def test_the_index_leads_to_the_same_bytes_as_tarfile_and_to_all_of_them(dataset: Path) -> None:
    by_tarfile = {name: data for path in dataset.rglob("*.tar") for name, data in members(path).items()}
    by_index: dict[str, bytes] = {}
    for sample in samples(dataset):
        key = f"{sample.row['slide_id']}-{sample.row['x']}-{sample.row['y']}"
        by_index |= {f"{key}.jpg": sample.image, f"{key}.json": sample.json}
    assert by_index == by_tarfile
    assert len(by_index) == 2 * build_json(dataset)["samples"] > 0


def test_image_and_json_lie_together_and_say_what_the_index_says(dataset: Path) -> None:
    for path in dataset.rglob("*.tar"):
        names = list(members(path))
        assert [name.partition(".")[2] for name in names] == ["jpg", "json"] * (len(names) // 2)
        assert [name.partition(".")[0] for name in names[::2]] == [name.partition(".")[0] for name in names[1::2]]
    for sample in samples(dataset):
        document = json.loads(sample.json)
        assert list(document) == FIELDS
        assert document == {name: sample.row[name] for name in FIELDS}
        assert sample.json == json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
        assert sample.pixels.shape == (256, 256, 3)


def test_the_index_has_a_row_group_per_shard_in_the_order_of_the_tar(dataset: Path) -> None:
    for file in (dataset / "index").rglob("*.parquet"):
        index = pq.ParquetFile(file)
        for number in range(index.num_row_groups):
            rows = index.read_row_group(number).to_pylist()
            (shard,) = {row["shard"] for row in rows}
            order = [f"{row['slide_id']}-{row['x']}-{row['y']}" for row in rows]
            names = list(members(dataset / "shards" / file.parent.name / shard))
            assert [name.partition(".")[0] for name in names[::2]] == order


def test_webdataset_reads_every_sample(dataset: Path) -> None:
    with their_warnings():
        import webdataset

        for split in ("train", "val"):
            urls = [str(path) for path in shards(dataset, split)]
            found: list[dict[str, Any]] = list(
                webdataset.WebDataset(urls, shardshuffle=False, handler=webdataset.reraise_exception)
            )
            expected = {f"{s.row['slide_id']}-{s.row['x']}-{s.row['y']}": s for s in of_split(dataset, split)}
            assert [sample["__key__"] for sample in found] == list(expected)
            for sample in found:
                assert sample["jpg"] == expected[sample["__key__"]].image
                assert sample["json"] == expected[sample["__key__"]].json


def of_split(dataset: Path, split: str) -> list[Any]:
    return [sample for sample in samples(dataset) if sample.row["shard"] in {p.name for p in shards(dataset, split)}]


@pytest.mark.parametrize("split", ["train", "val"])
def test_timm_reads_every_sample_by_its_list_of_shards(dataset: Path, split: str) -> None:
    with their_warnings():
        from timm.data.readers.reader_wds import ReaderWds

        root = dataset / "shards" / split
        reader = ReaderWds(str(root), split=split, is_training=False, batch_size=1)
        expected = of_split(dataset, split)
        assert len(reader) == len(expected)
        found = list(reader)
    assert len(found) == len(expected)
    for (image, label), sample in zip(found, expected, strict=True):
        assert label == sample.row["level"]
        np.testing.assert_array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(sample.image))))
    info = json.loads((root / "_info.json").read_text())["splits"][split]
    lengths = [len(members(root / name)) // 2 for name in info["filenames"]]
    assert lengths == info["shard_lengths"]
    assert info["filenames"] == [path.name for path in shards(dataset, split)]


def test_pyarrow_reads_the_index_of_all_splits_as_one_data_set(dataset: Path) -> None:
    partitioning = pads.partitioning(field_names=["split"])
    table = pads.dataset(dataset / "index", format="parquet", partitioning=partitioning).to_table(
        columns=["slide_id", "split", "x", "mpp", "stain_status"], filter=pads.field("mpp") < 0.6
    )
    assert table.num_rows == build_json(dataset)["samples"]
    assert {split: table["split"].to_pylist().count(split) for split in ("train", "val")} == {
        split: counts["samples"] for split, counts in build_json(dataset)["splits"].items()
    }
    assert set(table["stain_status"].to_pylist()) == {"fitted"}


def test_no_slide_is_in_two_splits(dataset: Path) -> None:
    rows = {split: {s.row["slide_id"] for s in of_split(dataset, split)} for split in ("train", "val")}
    assert not rows["train"] & rows["val"]
    assert len(rows["train"] | rows["val"]) == 4
