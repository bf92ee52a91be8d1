"""`make demo-flow`: the build of `make demo` as a Prefect flow on a local Dask cluster; both go at the end."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from flows.server import home_environment, prefect_server

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "build" / "demo"
_FLOW = "import sys; from flows.tile_and_normalize import tile_and_normalize as flow"
_CALL = "print('digest', flow(sys.argv[1], sys.argv[2], dask='local', workers=int(sys.argv[3]), depth='deep'))"


def main() -> int:
    """Generate slides, start a server, run the flow against it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    workers = parser.parse_args().workers
    manifest = DEMO / "slides" / "data_manifest.yaml"
    if not manifest.exists():
        print("Generating six slides of three laboratories ...", flush=True)
        run({}, "-m", "exaone_prep.cli", "phantom", "--out", str(manifest.parent), "--slides", "6", "--labs", "3")
    dataset = DEMO / "flow-dataset"
    home = DEMO / "prefect"
    print("Starting a Prefect server of its own ...", flush=True)
    with prefect_server(home) as url:
        print(f"Prefect's pages, as long as this runs: {url.removesuffix('/api')}", flush=True)
        # Where Dask starts its workers Python imports the main module anew: here that is a line without one.
        run(home_environment(home, url), "-c", f"{_FLOW}; {_CALL}", str(manifest), str(dataset), str(workers))
    print(f"\nshards         {dataset}/shards\nindex          {dataset}/index\nflow run       kept in {home}")
    return 0


def run(variables: dict[str, str], *words: str) -> None:
    """Run this Python in the checkout; end with its exit code if it fails."""
    ended = subprocess.run([sys.executable, *words], cwd=ROOT, env={**os.environ, **variables}, check=False)
    if ended.returncode:
        sys.exit(ended.returncode)


if __name__ == "__main__":
    sys.exit(main())
