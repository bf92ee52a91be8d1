"""Asking a script of `peers/` in every Python that may have the tool."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_PEERS = Path(__file__).resolve().parent / "peers"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VIPS_CONCURRENCY"), "1")


def answers(script: str, *words: str, python: Path) -> Iterator[subprocess.CompletedProcess[str]]:
    """How the script ended in the environment of the peers, then in this one, on one thread as ours runs.

    Args:
        script: Of `benchmarks/peers`.
        words: Of its command line.
        python: Of the environment of the peers.
    """
    for candidate in (python, Path(sys.executable)):
        if candidate.exists():
            yield subprocess.run(
                [str(candidate), str(_PEERS / script), *words],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, **_ONE_THREAD},
            )
