"""What a complete build leaves for its readers, recomputed here from the shards themselves."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from exaone_prep.channel_sums import ChannelSums, count_channels
from exaone_prep.dataset import Dataset, open_dataset
from exaone_prep.errors import DatasetError
from exaone_prep.ledger import Sums, index_digest, read_ledger, shards_digest
from exaone_prep.publish import channel_statistics, publish, rebuild_tables
from exaone_prep.scratch import Scratch
from tests.smallslides import build_small, manifest_of, small_slide, small_slides, write_slide

BLANK, WITHOUT_MPP, COPY = "blank", "no-mpp", "slide-00-again"


@dataclass(frozen=True)
class Built:
    """A finished data set with slides of every outcome."""

    root: Path
    dataset: Dataset

    @property
    def summary(self) -> dict[str, Any]:
        """What `build.json` holds."""
        return dict(json.loads((self.root / "build.json").read_text()))

    def shards(self) -> list[Path]:
        """All tars."""
        return sorted(self.root.glob("shards/*/*.tar"))

    def outcomes(self) -> dict[str, dict[str, Any]]:
        """Rows of `outcomes.parquet`, by slide id."""
        return {row["slide_id"]: row for row in pq.read_table(self.root / "outcomes.parquet").to_pylist()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    base = tmp_path_factory.mktemp("publish")
    slides = small_slides(base / "slides", 5)
    shutil.copyfile(slides[0], base / "slides" / f"{COPY}.tiff")
    write_slide(base / "slides" / f"{BLANK}.tiff", np.full((600, 600, 3), 243, dtype=np.uint8))
    small_slide(base / "slides" / f"{WITHOUT_MPP}.tiff", 9, mpp=None)
    manifest = manifest_of(
        base / "slides",
        patch={"size_px": 64, "stride_px": 64},
        quality={"min_sharpness": 0, "max_white": 0.3},
        codec={"format": "png"},
        shards={"samples_per_shard": 120, "slides_per_group": 3},
        splits={"val": 0.4},
    )
    dataset = build_small(manifest, base / "out", workers=2)
    return Built(base / "out", dataset)


def images(built: Built) -> NDArray[np.uint8]:
    """Every patch of every shard, N×64×64×3, by plain tarfile and Pillow."""
    found = []
    for shard in built.shards():
        with tarfile.open(shard) as archive:
            for member in archive:
                if member.name.endswith(".png"):
                    data = archive.extractfile(member)
                    assert data is not None
                    with Image.open(io.BytesIO(data.read())) as image:
                        found.append(np.asarray(image))
    return np.stack(found)


def test_the_data_set_of_these_tests_has_groups_in_two_splits_and_several_shards(built: Built) -> None:
    assert {record.split for record in read_ledger(built.dataset.storage)} == {"train", "val"}
    assert len(built.dataset.groups) >= 3
    assert len(built.shards()) > len(built.dataset.groups)


def test_channel_statistics_are_those_of_all_kept_pixels(built: Built) -> None:
    pixels = images(built).reshape(-1, 3) / 255
    assert built.summary["channel_mean"] == pytest.approx(pixels.mean(axis=0).tolist(), rel=1e-9)
    assert built.summary["channel_std"] == pytest.approx(pixels.std(axis=0).tolist(), rel=1e-9)
    assert 0.2 < min(built.summary["channel_mean"]) < max(built.summary["channel_mean"]) < 0.95


def test_channel_sums_do_not_depend_on_how_patches_are_shared_out() -> None:
    patches = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    parts = [ChannelSums() for _ in range(3)]
    for number, patch in enumerate(patches):
        parts[number % 3].add(32 * 32, count_channels(patch))
    sums = [
        Sums(pixels=part.pixels, sums=tuple(part.sums), squares=tuple(part.squares))  # type: ignore[arg-type]
        for part in parts
    ]
    mean, std = channel_statistics(sums)
    assert mean == pytest.approx((patches.reshape(-1, 3) / 255).mean(axis=0).tolist(), rel=1e-9)
    assert std == pytest.approx((patches.reshape(-1, 3) / 255).std(axis=0).tolist(), rel=1e-9)
    assert channel_statistics(sums[::-1]) == (mean, std)
    assert channel_statistics([]) == (None, None)


def test_the_deviation_of_one_colour_is_zero() -> None:
    """Differences of large sums: in floats this would be some small number, or the root of a negative one."""
    sums = ChannelSums()
    for _ in range(50):
        sums.add(256 * 256, count_channels(np.full((256, 256, 3), 201, dtype=np.uint8)))
    total = Sums(pixels=sums.pixels, sums=tuple(sums.sums), squares=tuple(sums.squares))  # type: ignore[arg-type]
    assert channel_statistics([total]) == ([201 / 255] * 3, [0.0] * 3)


def test_the_digest_is_that_of_sorted_lines_of_split_shard_bytes_and_checksum(built: Built) -> None:
    lines = []
    for shard in built.shards():
        data = shard.read_bytes()
        lines.append(f"{shard.parent.name}/{shard.name} {len(data)} {hashlib.sha256(data).hexdigest()}\n")
    assert built.summary["digest"] == hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def test_digests_do_not_depend_on_the_order_of_groups(built: Built) -> None:
    records = read_ledger(built.dataset.storage)
    assert shards_digest(records[::-1]) == built.summary["digest"]
    assert index_digest(records[::-1]) == built.summary["index_digest"]


def values_sha256(index: Path) -> tuple[int, str]:
    """Rows and checksum of the values of an index file, as `docs/format.md` defines it, column by column."""
    table = pq.read_table(index)
    digest = hashlib.sha256()
    for name in table.column_names:
        column = table.column(name)
        digest.update(f"{name} {column.type} {len(column)}\n".encode())
        if str(column.type) == "string":
            digest.update("\n".join(value.as_py() for value in column).encode())
        else:
            kind = {"int8": "i1", "int32": "<i4", "int64": "<i8", "float": "<f4", "double": "<f8"}[str(column.type)]
            digest.update(np.array(column.to_pylist(), dtype=kind).tobytes())
    return table.num_rows, digest.hexdigest()


def test_the_index_digest_is_that_of_the_values_of_all_indexes(built: Built) -> None:
    lines = []
    for index in built.root.glob("index/*/*.parquet"):
        rows, sha256 = values_sha256(index)
        lines.append(f"{index.parent.name}/{index.stem} {rows} {sha256}\n")
    assert len(lines) == len(built.dataset.groups)
    assert built.summary["index_digest"] == hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def test_every_slide_of_the_catalog_has_an_outcome_duplicates_as_well(built: Built) -> None:
    rows = built.outcomes()
    catalog = pq.read_table(built.root / "catalog.parquet").to_pylist()
    assert sorted(rows) == sorted(row["slide_id"] for row in catalog)
    assert {row["slide_id"]: (row["split"], row["group"]) for row in catalog} == {
        slide_id: (row["split"], row["group"]) for slide_id, row in rows.items()
    }
    expected = {f"slide-{number:02d}": ("done", None) for number in range(5)} | {
        BLANK: ("empty", None),
        WITHOUT_MPP: ("quarantined", "no_mpp"),
        COPY: ("quarantined", "duplicate"),
    }
    assert {slide_id: (row["outcome"], row["reason"]) for slide_id, row in rows.items()} == expected
    assert rows[COPY]["duplicate_of"] == "slide-00"
    for row in rows.values():
        assert (row["sentence"] is None) == (row["outcome"] == "done")


def test_outcomes_count_what_lies_in_the_shards(built: Built) -> None:
    found: dict[str, int] = {}
    for shard in built.shards():
        with tarfile.open(shard) as archive:
            for name in archive.getnames():
                if name.endswith(".json"):
                    slide_id = name.removesuffix(".json").rsplit("-", 2)[0]
                    found[slide_id] = found.get(slide_id, 0) + 1
    rows = built.outcomes()
    assert found == {slide_id: row["kept"] for slide_id, row in rows.items() if row["kept"]}
    for row in rows.values():
        dropped = sum(count for name, count in row.items() if name.startswith("dropped_"))
        by_status = sum(row[f"stain_{status}"] for status in ("fitted", "fallback", "kept", "none"))
        assert (row["planned"] - dropped, by_status) == (row["kept"], row["kept"])
    assert sum(row["dropped_white"] for row in rows.values()) > 0


def test_the_summary_adds_up(built: Built) -> None:
    summary, rows = built.summary, built.outcomes().values()
    assert summary["slides"] == {"done": 5, "empty": 1, "quarantined": 2}
    assert summary["samples"] == sum(row["kept"] for row in rows) == len(images(built))
    assert summary["planned"] == sum(row["planned"] for row in rows)
    assert summary["samples"] == summary["planned"] - sum(summary["dropped"].values())
    assert summary["stain_statuses"]["fitted"] == summary["samples"]
    assert summary["shards"] == len(built.shards())
    assert summary["bytes"] == sum(shard.stat().st_size for shard in built.shards())
    assert summary["groups"] == len(built.dataset.groups)
    for name, counts in summary["splits"].items():
        shards = [shard for shard in built.shards() if shard.parent.name == name]
        assert counts["shards"] == len(shards)
        assert counts["bytes"] == sum(shard.stat().st_size for shard in shards)
    assert sum(counts["samples"] for counts in summary["splits"].values()) == summary["samples"]


def test_the_shard_list_beside_the_shards_says_what_they_hold(built: Built) -> None:
    for split in ("train", "val"):
        info = json.loads((built.root / "shards" / split / "_info.json").read_text())
        assert list(info["splits"]) == [split]
        listed = info["splits"][split]
        shards = [shard for shard in built.shards() if shard.parent.name == split]
        assert listed["filenames"] == [shard.name for shard in shards]
        lengths = []
        for shard in shards:
            with tarfile.open(shard) as archive:
                lengths.append(sum(name.endswith(".png") for name in archive.getnames()))
        assert listed["shard_lengths"] == lengths
        assert listed["num_samples"] == sum(lengths)


def test_the_stain_table_has_the_fits_of_all_surveyed_slides(built: Built) -> None:
    rows = {row["slide_id"]: row for row in pq.read_table(built.root / "stain.parquet").to_pylist()}
    assert sorted(rows) == sorted(set(built.outcomes()) - {COPY})
    for number in range(5):
        row = rows[f"slide-{number:02d}"]
        assert row["fit_status"] == "ok"
        assert 10 < row["fit_angle_deg"] < 25
        assert np.linalg.norm(row["fit_haematoxylin"]) == pytest.approx(1)
    assert rows[BLANK]["fit_haematoxylin"] is None


def test_tables_that_are_lost_are_made_again_with_equal_bytes(built: Built) -> None:
    names = ("outcomes.parquet", "stain.parquet")
    before = {name: (built.root / name).read_bytes() for name in names}
    for name in names:
        (built.root / name).unlink()
    dataset = open_dataset(built.root)
    rebuild_tables(dataset, read_ledger(dataset.storage))
    assert {name: (built.root / name).read_bytes() for name in names} == before


def files_of(root: Path) -> dict[str, bytes]:
    """Everything that lies in a data set."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_publishing_again_changes_nothing(built: Built, tmp_path: Path) -> None:
    before = files_of(built.root)
    assert "README.md" in before
    assert not any(name.startswith(("progress/", ".scratch/")) for name in before)
    with Scratch(tmp_path / "scratch") as scratch:
        summary = publish(open_dataset(built.root), scratch)
    assert files_of(built.root) == before
    assert summary == built.summary


def test_a_build_with_a_group_missing_is_not_published(built: Built, tmp_path: Path) -> None:
    part = tmp_path / "part"
    shutil.copytree(built.root, part)
    (part / "ledger" / "group-000001.json").unlink()
    (part / "build.json").unlink()
    with Scratch(tmp_path / "scratch") as scratch, pytest.raises(DatasetError, match=r"1 groups of .* not built yet"):
        publish(open_dataset(part), scratch)
    assert not (part / "build.json").exists()
