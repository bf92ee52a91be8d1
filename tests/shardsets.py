"""Complete data sets made in no time: small images of noise in the format of `docs/format.md`, without any slide."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from numpy.typing import NDArray
from PIL import Image

from exaone_prep.codec import encode
from exaone_prep.manifest import Codec
from exaone_prep.shards.index import SCHEMA, index_parquet
from exaone_prep.shards.sample import EXTENSIONS, sample_json, sample_key, shard_name
from exaone_prep.shards.tar import TarWriter

SIZE_PX = 32
_NEVER_READ = {"read_size_px": 32, "footprint_px": 32.0, "white_fraction": 0.0, "black_fraction": 0.0}
_NOR_THESE = {"pen_fraction": 0.0, "sharpness": 1.0}


def write_data_set(
    folder: Path,
    groups: Sequence[Sequence[int]] = ((20, 20, 20), (20, 20)),
    *,
    split: str = "train",
    slides_per_group: int = 4,
    size_px: int = SIZE_PX,
    image_format: str = "jpeg",
    mpp: float = 0.5,
    stain: dict[str, Any] | None = None,
    name: str = "noise",
) -> Path:
    """Write a data set of one split.

    Args:
        folder: To write it to.
        groups: Per group the samples of each shard; a shard of none is not written, as in a build.
        split: Its name.
        slides_per_group: Slides that take turns in the shards of a group.
        size_px: Side of the images.
        image_format: `jpeg` or `png`.
        mpp: In the manifest.
        stain: Fields of the manifest's section that are not the default.
        name: Begins the slide ids; data sets of other names have other content ids.
    """
    listed: list[tuple[str, int]] = []
    for group, counts in enumerate(groups):
        tables = []
        for number, count in enumerate(counts):
            if count:
                shard = shard_name(group, number)
                ids = [f"{name}-{group}-{sample % slides_per_group}" for sample in range(count)]
                path = folder / "shards" / split / shard
                path.parent.mkdir(parents=True, exist_ok=True)
                tables.append(_write_shard(path, ids, 1000 * number, size_px, image_format))
                listed.append((shard, count))
        index = folder / "index" / split / f"group-{group:06d}.parquet"
        index.parent.mkdir(parents=True, exist_ok=True)
        index.write_bytes(index_parquet(tables))
    manifest = {
        "patch": {"size_px": size_px, "mpp": mpp},
        "codec": {"format": image_format},
        "stain": {"method": "macenko", "reference": "macenko", "fit": "slide", **(stain or {})},
    }
    info = {"filenames": [shard for shard, _ in listed], "shard_lengths": [count for _, count in listed]}
    samples = sum(count for _, count in listed)
    build = {
        "format_version": 1,
        "name": name,
        "content_id": hashlib.sha256(name.encode()).hexdigest(),
        "samples": samples,
        "splits": {split: {"shards": len(listed), "samples": samples}},
    }
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    (folder / "shards" / split / "_info.json").write_text(json.dumps({"splits": {split: info}}))
    (folder / "build.json").write_text(json.dumps(build))
    return folder


def by_tarfile(*folders: Path) -> dict[str, NDArray[np.uint8]]:
    """Every image of data sets by its key: plain tarfile and Pillow."""
    found = {}
    for path in [path for folder in folders for path in sorted(folder.glob("shards/*/*.tar"))]:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                key, _, extension = member.name.partition(".")
                stream = archive.extractfile(member)
                assert stream is not None
                if extension != "json":
                    with Image.open(io.BytesIO(stream.read())) as image:
                        found[key] = np.asarray(image)
    return found


def place_of(folder: Path, key: str) -> tuple[Path, int, int]:
    """The shard that has a sample, and offset and size of its image."""
    for path in sorted(folder.glob("shards/*/*.tar")):
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.name.partition(".")[0] == key and not member.name.endswith(".json"):
                    return path, member.offset_data, member.size
    raise AssertionError(f"no shard has {key}")


def _write_shard(path: Path, slide_ids: Sequence[str], first_x: int, size_px: int, image_format: str) -> pa.Table:
    codec = Codec(format="png" if image_format == "png" else "jpeg")
    rows = []
    with path.open("wb") as stream:
        writer = TarWriter(stream)
        for number, slide_id in enumerate(slide_ids):
            x = first_x + number
            key = sample_key(slide_id, x, 0)
            seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
            noise = np.random.default_rng(seed).integers(0, 256, (size_px // 8, size_px // 8, 3), dtype=np.uint8)
            image = encode(noise.repeat(8, axis=0).repeat(8, axis=1), codec)
            told: dict[str, Any] = {"level": 0, "mpp": 0.5, "tissue_fraction": 1.0, "stain_status": "fitted"}
            text = sample_json(slide_id=slide_id, cohort="c", x_px=x, y_px=0, **told)
            offsets = writer.add_all(((f"{key}.{EXTENSIONS[image_format]}", image), (f"{key}.json", text)))
            places = {"image_offset": offsets[0], "image_size": len(image), "json_offset": offsets[1]}
            told |= {"slide_id": slide_id, "cohort": "c", "patient_id": slide_id, "x": x, "y": 0}
            rows.append({**told, **places, "json_size": len(text), "shard": path.name, **_NEVER_READ, **_NOR_THESE})
        writer.close()
    return pa.Table.from_pylist(rows, schema=SCHEMA)
