"""`exaone-prep verify`."""

from __future__ import annotations

import json
import sys

from rich.console import Console
from rich.progress import Progress as Bars

from exaone_prep.dataset import open_dataset
from exaone_prep.verify import Depth, verify


def verify_command(url: str, depth: Depth, *, workers: int, as_json: bool) -> None:
    """Verify a data set and say what was found; raises `VerificationError` for damage."""
    with Bars(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("shards", total=None)
        result = verify(
            open_dataset(url),
            depth,
            workers=workers,
            on_shard=lambda done, total: bars.update(task, completed=done, total=total),
        )
    if as_json:
        sys.stdout.write(json.dumps({**vars(result), "problems": list(result.problems)}, sort_keys=True) + "\n")
    elif not result.problems:
        sys.stdout.write(
            f"verified ({depth}): {result.samples:,} samples in {result.shards:,} shards, {result.bytes:,} bytes\n"
            f"digest {result.digest}\n"
        )
    result.check()
