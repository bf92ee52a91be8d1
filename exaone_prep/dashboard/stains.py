"""The stains of many slides: where each cohort's lie, and which fits are farthest from their own."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

STAINS: Final = ("haematoxylin", "eosin")
_ENOUGH: Final = 3
"""Fits that a cohort needs for its own middle; below it the middle of all cohorts is taken."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Fits:
    """The stain fits of slides that could be measured.

    Attributes:
        slides: Table with `dataset`, `slide_id`, `cohort`, `fit_status`, `fit_reason`, in the order of the arrays.
        vectors: float64 (2, N, 3): unit vectors of optical density in red, green, blue, of `STAINS`.
        max_concentration: float64 (N, 2).
        angle_deg: float64 (N,), between the two vectors.
        off_deg: float64 (N,), the larger of the angles by which they are off the middle of their cohort.
    """

    slides: pa.Table
    vectors: Floats
    max_concentration: Floats
    angle_deg: Floats
    off_deg: Floats

    def worst(self, count: int) -> list[dict[str, Any]]:
        """The slides farthest from their cohort, with angles in degrees."""
        places = np.argsort(-self.off_deg, kind="stable")[:count]
        rows = self.slides.take(pa.array(places)).to_pylist()
        return [
            {
                **row,
                "off_deg": float(self.off_deg[place]),
                "angle_deg": float(self.angle_deg[place]),
                "max_concentration": self.max_concentration[place].tolist(),
            }
            for row, place in zip(rows, places.tolist(), strict=True)
        ]


def fits_of(slides: pa.Table) -> Fits:
    """The measured fits among slides (`Committed.slides`)."""
    some = slides.filter(pc.is_valid(slides.column("fit_haematoxylin")))
    some = some.filter(pc.is_valid(some.column("fit_max_concentration")))
    vectors = np.stack([_floats(some.column(f"fit_{stain}"), 3) for stain in STAINS])
    cohorts = np.array(some.column("cohort").to_pylist(), dtype=str)
    off = np.zeros(len(cohorts))
    whole = [_middle(one) for one in vectors]
    for cohort in np.unique(cohorts):
        here = cohorts == cohort
        middles = [_middle(one[here]) for one in vectors] if here.sum() >= _ENOUGH else whole
        angles = [angle_deg(one[here], middle) for one, middle in zip(vectors, middles, strict=True)]
        off[here] = np.maximum(*angles)
    return Fits(
        slides=some.select(["dataset", "slide_id", "cohort", "fit_status", "fit_reason"]),
        vectors=vectors,
        max_concentration=_floats(some.column("fit_max_concentration"), 2),
        angle_deg=np.array(some.column("fit_angle_deg").to_pylist(), dtype=np.float64),
        off_deg=off,
    )


def angle_deg(vectors: Floats, middle: Floats) -> Floats:
    """Degrees between unit vectors, float64 (N, 3), and one of them."""
    degrees: Floats = np.degrees(np.arccos((vectors @ middle).clip(-1, 1)))
    return degrees


def _middle(vectors: Floats) -> Floats:
    """The median of unit vectors per channel, as a unit vector: a few odd slides do not move it."""
    if not len(vectors):
        return np.zeros(3)
    middle: Floats = np.median(vectors, axis=0)
    return middle / max(float(np.linalg.norm(middle)), 1e-12)


def _floats(column: pa.ChunkedArray, width: int) -> Floats:
    values = pc.list_flatten(column).combine_chunks() if column.num_chunks != 1 else pc.list_flatten(column.chunk(0))
    return np.asarray(values, dtype=np.float64).reshape(-1, width)


def unfitted(slides: pa.Table) -> dict[str, int]:
    """Slides whose fit is not `ok`, per reason, the most frequent first."""
    some = slides.filter(
        pc.and_(pc.is_valid(slides.column("fit_status")), pc.not_equal(slides.column("fit_status"), "ok"))
    )
    return dict(Counter(some.column("fit_reason").to_pylist()).most_common())
