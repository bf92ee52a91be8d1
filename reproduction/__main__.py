"""`python -m reproduction`: from generated slides to a report; killed at any moment, the same command goes on."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from reproduction.design import MAIN, PILOT, QUICK, ROOT, ReproductionError

SIZES = {size.name: size for size in (MAIN, PILOT, QUICK)}


def main() -> int:
    """Do it."""
    parser = argparse.ArgumentParser(prog="python -m reproduction", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="main")
    parser.add_argument("--quick", dest="size", action="store_const", const=QUICK.name, help="the same as --size quick")
    parser.add_argument("--levers", action="store_true", help="also what this system can turn beyond the paper")
    parser.add_argument("--out", type=Path, help="folder to work in; build/reproduction/<size> if not given")
    parser.add_argument("--report", type=Path, help="folder for the report; <out>/report if not given")
    parser.add_argument("--workers", type=int, help="processes at a time; as cores and free memory allow if not given")
    given = parser.parse_args()
    # Before NumPy is imported: these problems are small, and two threads of BLAS take five times as long as one.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    from exaone_prep.budget import default_workers
    from exaone_prep.errors import PrepError
    from exaone_train.errors import TrainError
    from reproduction.way import reproduce

    out = given.out or ROOT / "build" / "reproduction" / given.size
    try:
        workers = given.workers or default_workers()
        reproduce(SIZES[given.size], out, given.report or out / "report", workers=workers, levers=given.levers)
    except (ReproductionError, PrepError, TrainError, OSError) as error:
        print(f"reproduction: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
