"""Small slides of which some are really broken, and the data set that an undisturbed build makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from tests.builds import command
from tests.committed import results
from tests.smallslides import small_slide, small_slides

BROKEN: Final = {"cut-off": "unreadable", "no-scale": "no_mpp", "words": "not_a_slide"}
"""Slides that are broken, and the reason of each."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Slides in a folder.

    Attributes:
        slides: The folder.
        slides_per_group: Of every data set of them.
        groups: How many that makes.
        undisturbed: A local data set of them.
    """

    slides: Path
    slides_per_group: int
    groups: int
    undisturbed: Path

    def write_manifest(self, path: Path, pattern: str) -> Path:
        """The manifest of all data sets of them, wherever they lie."""
        document = {
            "name": "small",
            "cohorts": [{"name": "lab", "slides": [pattern]}],
            "shards": {"slides_per_group": self.slides_per_group, "samples_per_shard": 7},
            "splits": {},
        }
        path.write_text(yaml.safe_dump(document))
        return path


def corpus_of(folder: Path, *, slides: int, slides_per_group: int) -> Corpus:
    """Generate so many slides and the broken ones, and build them."""
    files = folder / "slides"
    small_slides(files, slides)
    whole = small_slide(files / "cut-off.tiff", 100).read_bytes()
    (files / "cut-off.tiff").write_bytes(whole[: len(whole) // 3])
    small_slide(files / "no-scale.tiff", 101, mpp=None)
    (files / "words.tiff").write_text("The slide is on the other disk.\n")
    out = folder / "undisturbed"
    found = Corpus(
        slides=files,
        slides_per_group=slides_per_group,
        groups=-(-(slides + len(BROKEN)) // slides_per_group),
        undisturbed=out,
    )
    manifest = found.write_manifest(folder / "manifest.yaml", f"{files}/*.tiff")
    ended = command("build", str(manifest), "--out", str(out))
    assert ended.code == 0, ended.err
    assert {slide: result for slide, result in results(out).items() if result != "done"} == BROKEN
    assert len(list((out / "ledger").iterdir())) == found.groups
    return found
