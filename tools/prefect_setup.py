"""`make prefect-setup`: work pools, then deployments, on the Prefect server that is configured; safe to repeat."""

from __future__ import annotations

import argparse
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import get_current_settings
from prefect.workers.process import ProcessWorker

ROOT = Path(__file__).resolve().parents[1]
HERE = "http://127.0.0.1:4200/api"
AT_ONCE = 4
"""Runs of a pool. More than one: after a power failure a dead run holds its place until the next run of its data set,
which must be able to start, says that it crashed."""


def main() -> int:
    """Run the commands a person would type."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", action="store_true", help="the pool exaone-gpu and its deployments as well")
    wanted = {"exaone-cpu"} | ({"exaone-gpu"} if parser.parse_args().gpu else set())
    if not get_current_settings().api.url:
        if not answers(HERE):
            print(
                f"prefect-setup: no Prefect server is configured and none answers at {HERE}: "
                "start one with `prefect server start`, or set PREFECT_API_URL.",
                file=sys.stderr,
            )
            return 2
        # What `prefect server start` tells people to do: without it every worker would start a server of its own.
        prefect("config", "set", f"PREFECT_API_URL={HERE}")
    make_pools(wanted)
    # `prefect deploy --all` would stop at the first missing pool.
    names = [name for name, pool in deployments() if pool in wanted]
    prefect("--no-prompt", "deploy", *(word for name in names for word in ("--name", name)))
    return 0


def make_pools(wanted: set[str]) -> None:
    """Make the work pools that are missing; those that are there are left as they are."""
    with get_client(sync_client=True) as client:
        there = {pool.name for pool in client.read_work_pools()}
        for name in sorted(wanted - there):
            template = ProcessWorker.get_default_base_job_template()
            pool = WorkPoolCreate(name=name, type="process", base_job_template=template, concurrency_limit=AT_ONCE)
            client.create_work_pool(pool)
            print(f"Work pool {name} is made.", flush=True)


def deployments() -> list[tuple[str, str]]:
    """Flow and name of each deployment in prefect.yaml, with its work pool."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    return [
        (f"{one['entrypoint'].rpartition(':')[2].replace('_', '-')}/{one['name']}", one["work_pool"]["name"])
        for one in document["deployments"]
    ]


def answers(url: str) -> bool:
    """Whether a Prefect server is there."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2):
            return True
    except OSError:
        return False


def prefect(*words: str) -> None:
    """Run one command of Prefect; end with its exit code if it fails."""
    ended = subprocess.run([sys.executable, "-m", "prefect", *words], cwd=ROOT, check=False)
    if ended.returncode:
        sys.exit(ended.returncode)


if __name__ == "__main__":
    sys.exit(main())
