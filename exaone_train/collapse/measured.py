"""One figure with its interval, and why there may be none."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from exaone_train.collapse.interval import Floats64, Share, limits


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A measure of one encoder.

    Attributes:
        value: On all patches.
        drawn: For each resample of slides.
        chance: What features that know nothing of slides, centres or classes would get, where that is known.
        details: Further figures and settings, by name; `slides` are those that tell anything.
    """

    value: float
    drawn: Floats64
    chance: float | None = None
    details: dict[str, float | int | str | None] = field(default_factory=dict)

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 %, over slides."""
        return limits(self.drawn)


class AbsentError(Exception):
    """Something cannot be measured on this table; its text says why."""


def measured(
    share: Share,
    weights: Floats64,
    *,
    chance: float | None = None,
    **details: float | str | None,
) -> Measured:
    """A measure that is a share, with what the resamples make of it; of one slide alone they make nothing."""
    slides = int((share.below > 0).sum())
    if not slides:
        raise AbsentError("no patch tells anything of it")
    drawn = share.drawn(weights) if slides > 1 else np.full(len(weights), np.nan)
    return Measured(value=share.value, drawn=drawn, chance=chance, details={**details, "slides": slides})
