"""Whether a data set is what it would be had nothing happened: nothing lost or doubled, nobody blamed, no trace."""

from __future__ import annotations

import tarfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from tests.builds import command, digest_of, files_of
from tests.committed import results


def keys_in_tars(root: Path) -> Counter[str]:
    """How often each sample lies in the shards, by its key; its image and its JSON must lie side by side."""
    found: Counter[str] = Counter()
    for tar in sorted((root / "shards").rglob("*.tar")):
        with tarfile.open(tar) as archive:
            names = archive.getnames()
        assert [name.rpartition(".")[2] for name in names] == ["jpg", "json"] * (len(names) // 2)
        assert [name.rpartition(".")[0] for name in names[::2]] == [name.rpartition(".")[0] for name in names[1::2]]
        found.update(name.removesuffix(".jpg") for name in names[::2])
    return found


def keys_in_index(root: Path) -> Counter[str]:
    """How often each sample stands in the index, by its key."""
    rows = (
        row for file in sorted((root / "index").rglob("*.parquet")) for row in pq.ParquetFile(file).read().to_pylist()
    )
    return Counter(f"{row['slide_id']}-{row['x']}-{row['y']}" for row in rows)


def assert_intact(root: Path, undisturbed: Path, aside: dict[str, str]) -> None:
    """Compare a data set with one that was built undisturbed.

    Args:
        root: Of a local data set, or of the copy of a remote one.
        undisturbed: Of the other.
        aside: Reasons of the slides that are really broken.
    """
    assert digest_of(root) == digest_of(undisturbed)
    wanted = keys_in_tars(undisturbed)
    assert set(wanted.values()) == {1}
    for keys in (keys_in_tars(root), keys_in_index(root)):
        assert sorted((wanted - keys).elements()) == [], "samples are lost"
        assert sorted((keys - wanted).elements()) == [], "samples are doubled"
    assert {slide: result for slide, result in results(root).items() if result != "done"} == aside
    found, same = files_of(root), files_of(undisturbed)
    assert found.keys() == same.keys()
    assert [name for name in same if found[name] != same[name]] == []
    assert list(root.rglob("*.partial")) == []
    assert [path for folder in ("progress", "control") for path in root.glob(f"{folder}/*")] == []
    ended = command("verify", str(root), "--deep")
    assert ended.code == 0, ended.err
