"""Catalogs of small files that stand for slides."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exaone_prep.catalog import Catalog, PrivateTable, build_catalog
from exaone_prep.manifest import parse_manifest

VERSIONS = {"openslide": "4.0.0"}


def slide(path: Path, content: str | bytes | None = None) -> Path:
    """A file that stands for a slide; the catalog does not look into it. Content differs by name unless given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        (content if content is not None else str(path)).encode() if not isinstance(content, bytes) else content
    )
    return path


def table(path: Path, rows: Sequence[Mapping[str, object]]) -> str:
    """A CSV file; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def build(base: Path, *cohorts: dict[str, Any], key: bytes | None = None, **settings: Any) -> Catalog:
    """The catalog of cohorts that are named c0, c1, ... unless they have a name."""
    return build_both(base, *cohorts, key=key, **settings)[0]


def build_both(
    base: Path, *cohorts: dict[str, Any], key: bytes | None = None, done: dict[str, str] | None = None, **settings: Any
) -> tuple[Catalog, PrivateTable | None]:
    """The catalog, and the private table where ids are hashed."""
    named = [{"name": f"c{i}", **cohort} for i, cohort in enumerate(cohorts)]
    manifest = parse_manifest({"name": "set", "cohorts": named, **settings}, {}, where="m.yaml")
    return build_catalog(manifest, base=base, versions=VERSIONS, key=key, done_before=done)


def ids(catalog: Catalog) -> list[str]:
    """Slide ids in the catalog's order."""
    return [row.slide_id for row in catalog.rows]
