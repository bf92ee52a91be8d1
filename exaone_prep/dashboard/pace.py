"""How fast patches are made now, from heartbeats."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

WINDOW_S: Final = 60.0
_COUNTING: Final = frozenset({"stage", "survey", "cut"})
"""Stages in which `patches_done` counts patches that are read; while packing it counts them a second time."""


@dataclass(frozen=True)
class _Gain:
    begin: float
    end: float
    patches: int


class Pace:
    """Patches per second of all builders together."""

    def __init__(self) -> None:
        self._last: dict[str, Mapping[str, Any]] = {}
        self._gains: dict[str, deque[_Gain]] = {}

    def tell(self, builder: str, beat: Mapping[str, Any]) -> None:
        """Take note of a heartbeat; the same one again changes nothing."""
        before = self._last.get(builder)
        if before is not None and beat["time"] <= before["time"]:
            return
        self._last[builder] = beat
        if before is None:
            return
        goes_on = before["group"] == beat["group"] and before["stage"] in _COUNTING
        patches = int(beat["patches_done"]) - (int(before["patches_done"]) if goes_on else 0)
        counted = max(0, patches) if beat["stage"] in _COUNTING else 0
        self._gains.setdefault(builder, deque(maxlen=64)).append(_Gain(before["time"], beat["time"], counted))

    def per_s(self, now: float) -> float | None:
        """Over the last minute; None where no builder has shown itself twice within it."""
        rates = []
        for gains in self._gains.values():
            some = [gain for gain in gains if gain.end >= now - WINDOW_S]
            if some:
                rates.append(sum(gain.patches for gain in some) / sum(gain.end - gain.begin for gain in some))
        return sum(rates) if rates else None
