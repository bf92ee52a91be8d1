"""`exaone-prep estimate`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from exaone_prep.dataset import create_dataset
from exaone_prep.estimate import Estimate, estimate
from exaone_prep.manifest import Manifest
from exaone_prep.pool import WorkerPool
from exaone_prep.scratch import Scratch
from exaone_prep.stage import stage


def estimate_command(manifest: Manifest, *, base: Path, sample: int, workers: int, as_json: bool) -> None:
    """Survey a sample and print what a build will need."""
    with (
        Scratch(Path(tempfile.gettempdir()) / "exaone-prep") as space,
        WorkerPool(workers, space.path / "log") as pool,
        space.folder("staged") as staged,
        space.folder("estimate") as folder,
    ):
        dataset = create_dataset(space.path / "dataset", manifest, base=base)
        found = estimate(
            dataset,
            lambda row: stage(row, dataset.names.uris[row.slide_id], staged),
            sample=sample,
            pool=pool,
            folder=folder,
        )
    sys.stdout.write((json.dumps(found.as_dict(), sort_keys=True) if as_json else _text(found)) + "\n")


def _text(found: Estimate) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in found.reasons.items()) or "none"
    return "\n".join(
        (
            f"slides        {found.slides:,} ({found.surveyed} surveyed, {found.usable:.0%} of them usable)",
            f"problems      {reasons}",
            f"groups        {found.groups:,}",
            f"patches       {found.patches:,}",
            f"shards        {found.shards:,}",
            f"shard bytes   {found.bytes:,}",
            f"scratch bytes {found.scratch_bytes:,}",
            f"CPU hours     {found.cpu_hours:g}",
        )
    )
