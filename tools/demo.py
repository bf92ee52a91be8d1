"""`make demo`: build a data set from generated slides, or from one's own, and show what came of it."""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "build" / "demo"


def main() -> int:
    """Run the commands a person would type."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", help="glob of one's own slides, instead of generated ones")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    if given.slides:
        # A data set keeps the slides it was begun with, so other slides get another one.
        name = f"own-{hashlib.sha256(given.slides.encode()).hexdigest()[:8]}"
        source = ["--slides", given.slides]
    else:
        name = "dataset"
        slides = DEMO / "slides"
        if not (slides / "data_manifest.yaml").exists():
            print("Generating six slides of three laboratories ...", flush=True)
            run("phantom", "--out", str(slides), "--slides", "6", "--labs", "3", "--workers", str(given.workers))
        source = [str(slides / "data_manifest.yaml")]
    dataset = DEMO / name
    run("build", *source, "--out", str(dataset), "--workers", str(given.workers))
    run("verify", str(dataset), "--deep", "--workers", str(given.workers))
    sheet = DEMO / f"{name}-contact-sheet.png"
    run("sheet", str(dataset), "--out", str(sheet))
    print(f"\nshards         {dataset}/shards\nindex          {dataset}/index\ncontact sheet  {sheet}")
    return 0


def run(*words: str) -> None:
    """Run one `exaone-prep` command; end with its exit code if it fails."""
    ended = subprocess.run([sys.executable, "-m", "exaone_prep.cli", *words], cwd=Path.cwd(), check=False)
    if ended.returncode:
        sys.exit(ended.returncode)


if __name__ == "__main__":
    sys.exit(main())
