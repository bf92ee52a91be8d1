"""Whole commands as a person runs them: a build with one worker, `verify`, and how long things take to begin."""

from __future__ import annotations

import pickle
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from surveyed import Surveyed

from exaone_prep.cut import CutJob

_CLI = ("-m", "exaone_prep.cli")
_FIRST_PATCH = """
import pickle, sys
job = pickle.load(open(sys.argv[1], "rb"))
def tell(number):
    if number == 1:  # the first patch is done
        raise SystemExit
job.run(tell)
"""


def command_ms(*words: str) -> float:
    """CPU time of this Python with arguments, and of all the processes that it starts.

    Raises:
        CalledProcessError: It fails.
    """

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (used.ru_utime + used.ru_stime) * 1000

    before = spent()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return spent() - before


def seconds(*words: str) -> float:
    """Wall clock of this Python with arguments."""
    began = time.monotonic()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - began


def build_ms(slide: Path, out: Path, fit: str) -> float:
    """CPU time of `exaone-prep build` of one slide with one worker, from start-up to the published data set."""
    shutil.rmtree(out, ignore_errors=True)
    settings = ("--set", f"stain.fit={fit}", "--set", "splits={}")
    return command_ms(*_CLI, "build", "--slides", str(slide), "--out", str(out), "--workers", "1", *settings)


def verify_ms(out: Path, *more: str) -> float:
    """CPU time of `exaone-prep verify`."""
    return command_ms(*_CLI, "verify", str(out), "--workers", "1", *more)


def start_up_ms() -> float:
    """CPU time of what a builder and one worker import before the first slide is opened."""
    builder = command_ms("-c", "import exaone_prep.commands.build, zarr")
    return builder + command_ms("-c", "import exaone_prep.worker, exaone_prep.group")


def help_s() -> float:
    """Wall clock of `exaone-prep --help`."""
    return seconds(*_CLI, "--help")


def first_patch_s(slide: Surveyed, folder: Path) -> float:
    """Wall clock from the start of a Python process until it has cut its first patch; kernels are compiled already."""
    job = cut_job(slide, folder / "first.spool")
    file = folder / "job.pickle"
    file.write_bytes(pickle.dumps(job))
    return seconds("-c", _FIRST_PATCH, str(file))


def cut_job(slide: Surveyed, spool: Path) -> CutJob:
    """What a worker is given to cut the slide."""
    return CutJob(
        path=slide.path,
        manifest=slide.manifest,
        reference=slide.dataset.reference,
        choice=slide.choice,
        reader=slide.survey.reader or "",
        pixels=slide.pixels,
        fit=slide.fit,
        pictures=slide.pictures,
        spool=spool,
    )


def median_of(runs: int, work: Callable[[], float]) -> float:
    """Median of several measurements."""
    return statistics.median(work() for _ in range(runs))
