"""`exaone-prep status`."""

from __future__ import annotations

import json
import sys
from typing import Any

from exaone_prep.dataset import open_dataset
from exaone_prep.status import Status, status_of


def status_command(url: str, *, as_json: bool) -> None:
    """Print how far a data set is."""
    status = status_of(open_dataset(url))
    if as_json:
        sys.stdout.write(json.dumps(status.as_dict(), sort_keys=True) + "\n")
    else:
        sys.stdout.write(_text(status))


def _text(status: Status) -> str:
    slides = ", ".join(f"{count:,} {name}" for name, count in status.slides.items())
    lines = [
        f"state     {status.state}",
        f"groups    {status.groups['done']:,} of {status.groups['total']:,}",
        f"slides    {slides}",
        f"samples   {status.samples:,} in {status.shards:,} shards, {status.bytes:,} bytes",
        f"dropped   {', '.join(f'{count:,} {name}' for name, count in status.dropped.items() if count) or 'none'}",
        f"attempts  {status.attempts_failed} failed",
        f"build_id  {status.build_id}",
        f"digest    {status.digest}",
    ]
    lines += [_worker_line(worker) for worker in status.workers]
    if status.verified:
        found = f"{len(status.verified['problems'])} problems" if status.verified["problems"] else "no problem"
        lines.append(f"verified  {status.verified['depth']}, {found}")
    return "\n".join(lines) + "\n"


def _worker_line(worker: dict[str, Any]) -> str:
    name = worker["worker"].removeprefix("progress/").removesuffix(".json")
    if worker["group"] is None:  # a driver whose groups are built elsewhere
        done = f"driver, {worker['stage'] or 'no group yet'}"
    else:
        done = (
            f"group {worker['group']}, {worker['stage']}, {worker['patches_done']:,} of {worker['patches']:,} patches"
        )
    return f"worker    {name}: {done}, seen {worker['age_s']} s ago"
