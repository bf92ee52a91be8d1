"""`exaone-prep estimate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from exaone_prep.cost import Cost, cost_of, load_prices
from exaone_prep.dataset import create_dataset
from exaone_prep.estimate import Estimate, estimate
from exaone_prep.manifest import Manifest
from exaone_prep.pool import WorkerPool
from exaone_prep.scratch import TEMPORARY, Scratch
from exaone_prep.stage import stage
from exaone_prep.store_requests import StoreRequests


def estimate_command(
    manifest: Manifest, *, base: Path, sample: int, workers: int, prices: Path | None, as_json: bool
) -> None:
    """Survey a sample and print what a build will need, and cost."""
    asked = None if prices is None else load_prices(prices)
    with (
        Scratch(TEMPORARY) as space,
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
    cost = None
    if asked is not None:
        cost = cost_of(
            asked,
            requests=found.requests,
            staged_bytes=found.staged_bytes,
            shard_bytes=found.bytes,
            cpu_hours=found.cpu_hours,
        )
    if as_json:
        document = found.as_dict() | ({"cost": cost.as_dict()} if cost is not None else {})
        sys.stdout.write(json.dumps(document, sort_keys=True) + "\n")
    else:
        sys.stdout.write(_text(found) + (_in_money(cost) if cost is not None else "") + "\n")


def _in_money(cost: Cost) -> str:
    return (
        f"\ncost          {cost.once:,.2f} {cost.currency}: {cost.compute:,.2f} for cores, {cost.requests:,.2f} for "
        f"requests, {cost.egress:,.2f} for egress; and {cost.per_month:,.2f} a month for the shards"
    )


def _requests(requests: StoreRequests) -> str:
    return f"{requests.put:,} PUT, {requests.get:,} GET, {requests.list:,} LIST"


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
            f"staged bytes  {found.staged_bytes:,}",
            f"CPU hours     {found.cpu_hours:g}",
            f"requests      {_requests(found.requests)} ({_requests(found.requests_per_group)} per group) "
            "if the data set lies in a store",
        )
    )
