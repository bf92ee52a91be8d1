"""Named steps of the commit. In a test the process dies at one of them; otherwise passing a step costs a look-up."""

from __future__ import annotations

import os
import signal
from typing import Final

STEPS: Final = (
    "catalog-before",
    "catalog-after",
    "group-surveyed",
    "group-cut",
    "group-packed",
    "shard-linked",
    "shards-put",
    "shards-checked",
    "index-put",
    "survey-put",
    "slides-put",
    "ledger-before",
    "ledger-after",
    "derived-put",
    "build-before",
    "build-after",
)
"""In the order in which an undisturbed build passes them."""

KILL_AT: Final = "EXAONE_PREP_KILL_AT"
"""Environment variable of the tests: `<step>` or `<step>:<n>` kills the whole process group at its n-th passing."""

_passed: dict[str, int] = {}


def reach(step: str) -> None:
    """Say that the build stands at a named step."""
    target = os.environ.get(KILL_AT)
    if target is None:
        return
    assert step in STEPS, step
    _passed[step] = _passed.get(step, 0) + 1
    name, _, number = target.partition(":")
    if name == step and _passed[step] == int(number or 1):
        os.killpg(0, signal.SIGKILL)
