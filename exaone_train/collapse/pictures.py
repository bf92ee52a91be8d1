"""What there is to look at: t-SNE maps, and patches beside their nearest neighbours."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from exaone_train.collapse.table import FeatureTable, Ints
from exaone_train.errors import FeatureError
from exaone_train.neighbours import nearest, unit

MAP_PATCHES = 2_000
SHEET_ROWS = 6
SHEET_NEIGHBOURS = 8
THUMBNAIL_PX = 96
ENDINGS = (".jpg", ".jpeg", ".png")


def tsne(table: FeatureTable, seed: int) -> NDArray[np.float32]:
    """A map of features by cosine distance (van der Maaten and Hinton 2008), n×2; the same for the same seed."""
    from sklearn.manifold import TSNE

    features = unit(table.features)
    if len(np.unique(features, axis=0)) == 1:
        return np.zeros((len(features), 2), dtype=np.float32)
    perplexity = min(30.0, (len(features) - 1) / 3)
    mapped = TSNE(metric="cosine", init="pca", perplexity=perplexity, random_state=seed, n_jobs=1)
    return np.asarray(mapped.fit_transform(features), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """A patch and its nearest neighbours, nearest first.

    Attributes:
        row: Of the patch in the table.
        neighbours: Their rows.
        similarity: Their cosines.
    """

    row: int
    neighbours: tuple[int, ...]
    similarity: tuple[float, ...]


def sheet(table: FeatureTable, seed: int) -> list[SheetRow]:
    """Patches by chance, of as many slides as there are rows, each with its nearest neighbours of any slide."""
    random = np.random.default_rng(seed)
    slides = random.permutation(np.unique(table.slide_id))[:SHEET_ROWS]
    rows = np.array([random.choice(np.flatnonzero(table.slide_id == slide)) for slide in slides], dtype=np.int64)
    features = unit(table.features)
    themselves = np.arange(len(table), dtype=np.int64)
    found = nearest(features[rows], features, SHEET_NEIGHBOURS, query_group=rows, reference_group=themselves)
    return [
        SheetRow(
            row=int(row),
            neighbours=tuple(int(one) for one in found.index[number] if one >= 0),
            similarity=tuple(float(one) for one in found.similarity[number] if np.isfinite(one)),
        )
        for number, row in enumerate(rows)
    ]


def pictures_of(table: FeatureTable, rows: Iterable[int], places: Path | None) -> dict[int, str]:
    """Small pictures of some patches as data URIs, by row; those that are not found are missing.

    Args:
        table: With `image`, or with `key` to look for.
        rows: Of the table.
        places: A folder with files called `<key>.jpg` or `.png`, or with shards that hold them; at any depth.

    Raises:
        FeatureError: A picture cannot be decoded, or there is no such folder.
    """
    wanted = list(dict.fromkeys(rows))
    if table.images is not None:
        return {row: _thumbnail(table.images[row], str(table.slide_id[row])) for row in wanted}
    if table.key is None or places is None:
        return {}
    if not places.is_dir():
        raise FeatureError(f"There is no folder of pictures or shards at {places}.")
    by_key = {str(table.key[row]): row for row in wanted}
    return {by_key[key]: _thumbnail(data, key) for key, data in _look_for(by_key, places)}


def _look_for(keys: dict[str, int], places: Path) -> Iterable[tuple[str, bytes]]:
    missing = set(keys)
    for path in sorted(places.rglob("*")):
        if path.suffix.lower() in ENDINGS and path.stem in missing:
            missing.discard(path.stem)
            yield path.stem, path.read_bytes()
    for shard in sorted(places.rglob("*.tar")):
        if not missing:
            return
        with tarfile.open(shard) as members:
            for member in members:
                key = Path(member.name)
                if key.stem in missing and key.suffix.lower() in ENDINGS:
                    content = members.extractfile(member)
                    assert content is not None
                    missing.discard(key.stem)
                    yield key.stem, content.read()


def _thumbnail(data: bytes, name: str) -> str:
    try:
        with Image.open(io.BytesIO(data)) as image:
            small = image.convert("RGB").resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    except (OSError, UnidentifiedImageError) as error:
        raise FeatureError(f"The picture of a patch of {name} cannot be decoded.") from error
    out = io.BytesIO()
    small.save(out, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def spread_out(table: FeatureTable, patches: int, seed: int) -> FeatureTable:
    """At most so many patches, equally many of each slide as far as there are."""
    if len(table) <= patches:
        return table
    random = np.random.default_rng(seed)
    slides = np.unique(table.slide_id)
    each = max(1, patches // len(slides))
    chosen: list[Ints] = [random.permutation(np.flatnonzero(table.slide_id == slide))[:each] for slide in slides]
    return table.rows(np.sort(np.concatenate(chosen))[:patches].astype(np.int64))
