"""Which shards there are: those of one or several complete data sets, as one list."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import yaml

from exaone_train.errors import ShardError
from exaone_train.store import read

FORMAT_VERSIONS: Final = (1,)
"""Of data sets that can be read: the current version, and the one before."""
_STAIN: Final = [("stain", field) for field in ("method", "options", "reference")]
_ALIKE: Final = [("patch", "size_px"), ("patch", "mpp"), ("codec", "format"), *_STAIN]
"""Sections and fields of the manifest that data sets must share to be one."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar of samples.

    Attributes:
        tar: Path or URL.
        index: Path or URL of its group's index.
        row_group: Its own in the index.
        samples: How many it holds.
    """

    tar: str
    index: str
    row_group: int
    samples: int


@dataclass(frozen=True)
class ShardSet:
    """The shards of one split.

    Attributes:
        split: Its name.
        places: Data sets that they are from.
        shards: In the order of content ids, so that it does not matter in which order places are given.
        patch_size_px: Side of the images.
        image_format: `jpeg` or `png`.
        provenance: What the images are, without places: `patch` and `stain` of the manifest, and under `data_sets` the
            `build.json` of each, with its content id, digest, and mean and standard deviation per channel.
    """

    split: str
    places: tuple[str, ...]
    shards: tuple[Shard, ...]
    patch_size_px: int
    image_format: str
    provenance: dict[str, Any]


def open_shards(places: Sequence[str], split: str) -> ShardSet:
    """The shards of a split, by three small files of each data set.

    Args:
        places: Data set directories, or fsspec URLs.
        split: Data sets without it add nothing; if none has it, there are no shards.

    Raises:
        ShardError: There is no data set, or one that is not complete, or they do not belong together.
    """
    opened = sorted((_open(place.rstrip("/")) for place in places), key=lambda one: str(one.build["content_id"]))
    if not opened:
        raise ShardError("No data set is given.")
    for one, other in itertools.pairwise(opened):
        if one.build["content_id"] == other.build["content_id"]:
            raise ShardError(f"{one.place} and {other.place} are the same data set; give it once.")
        for section, field in _ALIKE:
            values = [json.dumps(two.manifest[section].get(field)) for two in (one, other)]
            if values[0] != values[1]:
                unlike = f"{section}.{field} is {values[0]} in the first and {values[1]} in the second"
                raise ShardError(f"{one.place} and {other.place} cannot be trained on together: {unlike}.")
    manifest = opened[0].manifest
    provenance = {"patch": manifest["patch"], "stain": manifest["stain"], "data_sets": [one.build for one in opened]}
    found = tuple(shard for one in opened for shard in _shards(one, split))
    size_px, image_format = manifest["patch"]["size_px"], manifest["codec"]["format"]
    return ShardSet(split, tuple(one.place for one in opened), found, size_px, image_format, provenance)


class _DataSet(NamedTuple):
    place: str
    build: dict[str, Any]
    manifest: dict[str, Any]


def _open(place: str) -> _DataSet:
    build = _load(f"{place}/build.json")
    if build.get("format_version") not in FORMAT_VERSIONS:
        raise ShardError(f"{place} has format version {build.get('format_version')}, which cannot be read here.")
    return _DataSet(place, build, _load(f"{place}/manifest.yaml"))


def _shards(one: _DataSet, split: str) -> list[Shard]:
    if not one.build["splits"].get(split, {}).get("shards"):
        return []
    listed = _load(f"{one.place}/shards/{split}/_info.json")["splits"][split]
    found: list[Shard] = []
    for name, samples in zip(listed["filenames"], listed["shard_lengths"], strict=True):
        # The index of a group has a row group for each of its shards, in the order of this list.
        index = f"{one.place}/index/{split}/group-{name.split('-')[1]}.parquet"
        row_group = found[-1].row_group + 1 if found and found[-1].index == index else 0
        found.append(Shard(f"{one.place}/shards/{split}/{name}", index, row_group, samples))
    return found


def _load(place: str) -> Any:
    try:
        return (json.loads if place.endswith(".json") else yaml.safe_load)(read(place))
    except FileNotFoundError:
        raise ShardError(f"There is no {place}: give the folder or URL of a data set whose build has ended.") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ShardError(f"{place} cannot be understood: {' '.join(str(error).split())}.") from error
