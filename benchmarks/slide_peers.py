"""Other tools on the same patches of the same slide, each run by a Python that has it (`peers/slides.py`)."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peer_python import answers
from surveyed import Surveyed

ROOT = Path(__file__).resolve().parents[1]
PEERS_PYTHON = ROOT / "build" / "peers" / "bin" / "python"
TOOLS = {"hs2p": 512, "openslide": 96, "tiatoolbox": 96}
"""The tools, with the number of patches that they are measured on at least."""

_ABSENT = 3


class PeerFailedError(Exception):
    """Another tool is installed and did not make the patches."""


@dataclass(frozen=True, kw_only=True)
class PeerCost:
    """What a tool costs, in ms of CPU time per patch.

    Attributes:
        ways: By the name of each way it was measured in.
        for_comparison: Ways that leave out what the tool is measured for, such as normalisation.
        version: Of the tool.
    """

    ways: dict[str, float]
    for_comparison: tuple[str, ...]
    version: str


def job_of(slide: Surveyed, positions: NDArray[np.int64]) -> dict[str, Any]:
    """What `peers/slides.py` is told: the fields of its `Job`."""
    info, choice = slide.survey, slide.choice
    return {
        "slide": str(slide.path),
        "mpp": choice.level_mpp,
        "width_px": info.width_px,
        "height_px": info.height_px,
        "positions": positions.tolist(),
        "reduction": choice.reduction,
        "size_px": choice.size_px,
        "quality": slide.manifest.codec.quality,
    }


def peer_cost(tool: str, slide: Surveyed, positions: NDArray[np.int64], runs: int, python: Path) -> PeerCost | None:
    """Measure one tool; None where no Python at hand has it.

    Args:
        tool: Of `TOOLS`.
        slide: The patches' slide; they are taken from its level 0.
        positions: int64 (N, 2), the patches.
        runs: How often.
        python: Of the environment of the peers; this Python is asked next.

    Raises:
        PeerFailedError: It is there and does not work.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.json"
        file.write_text(json.dumps(job_of(slide, positions)))
        for done in answers("slides.py", tool, str(file), "--runs", str(runs), python=python):
            if done.returncode == _ABSENT:
                continue
            if done.returncode:
                raise PeerFailedError(f"{tool} failed: {done.stderr.strip().splitlines()[-1]}")
            found = json.loads(done.stdout.splitlines()[-1])
            left_out = tuple(found["for_comparison"])
            return PeerCost(ways=found["ways"], for_comparison=left_out, version=found["version"])
    return None
