"""What a stain fit is: two stain vectors, two concentrations, how they were found, and the verdict on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Final, Literal, Self, get_args

from exaone_prep.errors import DatasetError
from exaone_prep.stain.algebra import StainMatrix, pseudo_inverse

_LEAST_CONCENTRATION: Final = 1e-3

FitStatus = Literal["ok", "failed", "not_he"]
"""`failed`: no stain could be measured here; `not_he`: measured, and it is not haematoxylin and eosin."""

FitReason = Literal[
    "",
    "too_few_pixels",
    "one_colour",
    "one_stain",
    "concentration_range",
    "non_finite",
    "dark_background",
    "negative_stain",
    "eosin_not_green",
    "angle_too_wide",
]
"""Why a fit is not ok; `exaone_prep.stain.SENTENCES` says it in words."""

_STATUSES: Final = frozenset(get_args(FitStatus))
_REASONS: Final = frozenset(get_args(FitReason))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a gate says of a fit."""

    status: FitStatus = "ok"
    reason: FitReason = ""

    def __post_init__(self) -> None:
        if self.status not in _STATUSES or self.reason not in _REASONS:
            raise ValueError(f"There is no verdict {self.status!r} with the reason {self.reason!r}.")


@dataclass(frozen=True, kw_only=True)
class FitDiagnostics:
    """How a fit came about.

    Attributes:
        n_pixels: Pixels given.
        n_kept: Pixels with all three optical densities at least β, from which the stain vectors come.
        angle_deg: Between the two stain vectors; 0 where there are none.
        eigenvalues: Of the covariance of the kept pixels' optical densities, largest first.
    """

    n_pixels: int
    n_kept: int
    angle_deg: float = 0.0
    eigenvalues: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class StainFit:
    """The stain of a slide or a patch.

    Attributes:
        stain_matrix: Unit OD vectors as columns haematoxylin, eosin; rows red, green, blue. None if not measurable.
        max_concentration: 99th percentile of the concentration of haematoxylin and of eosin; None likewise.
        diagnostics: How it was found.
        status: `ok`, `failed` or `not_he`; only an `ok` fit is ever applied.
        reason: Short word for why it is not `ok`.
    """

    stain_matrix: StainMatrix | None
    max_concentration: tuple[float, float] | None
    diagnostics: FitDiagnostics
    status: FitStatus = "ok"
    reason: FitReason = ""

    def __post_init__(self) -> None:
        if self.status == "ok" and not self._is_applicable():
            raise ValueError("A stain fit without two distinct finite stains of positive concentration cannot be ok.")

    def _is_applicable(self) -> bool:
        if self.stain_matrix is None or self.max_concentration is None:
            return False
        try:
            inverse = pseudo_inverse(self.stain_matrix)
        except ZeroDivisionError:
            return False
        values = [value for row in (*self.stain_matrix, *inverse, self.max_concentration) for value in row]
        return all(isfinite(value) for value in values) and min(self.max_concentration) >= _LEAST_CONCENTRATION

    def judged(self, verdict: Verdict) -> StainFit:
        """The same fit under another verdict, such as `verdict_slide`'s."""
        # `dataclasses.replace` takes three times as long, and every patch is judged.
        return StainFit(
            stain_matrix=self.stain_matrix,
            max_concentration=self.max_concentration,
            diagnostics=self.diagnostics,
            status=verdict.status,
            reason=verdict.reason,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; Python's JSON writes floats so that `from_json` gets the same bits back."""
        document = asdict(self)
        document["stain_matrix"] = None if self.stain_matrix is None else [list(row) for row in self.stain_matrix]
        document["max_concentration"] = None if self.max_concentration is None else list(self.max_concentration)
        document["diagnostics"]["eigenvalues"] = list(self.diagnostics.eigenvalues)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The fit that `to_json` described.

        Raises:
            DatasetError: If the document is not one of a stain fit.
        """
        try:
            matrix, concentration = document["stain_matrix"], document["max_concentration"]
            diagnostics = document["diagnostics"]
            verdict = Verdict(status=document["status"], reason=document["reason"])
            return cls(
                stain_matrix=None if matrix is None else stain_matrix_of(matrix),
                max_concentration=None if concentration is None else pair_of(concentration),
                diagnostics=FitDiagnostics(
                    n_pixels=int(diagnostics["n_pixels"]),
                    n_kept=int(diagnostics["n_kept"]),
                    angle_deg=float(diagnostics["angle_deg"]),
                    eigenvalues=triple_of(diagnostics["eigenvalues"]),
                ),
                status=verdict.status,
                reason=verdict.reason,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"A stored stain fit cannot be read ({error}); build the survey anew.") from error


def stain_matrix_of(rows: Any) -> StainMatrix:
    """A 3×2 nested sequence as a stain matrix; ValueError or TypeError if it is none."""
    red, green, blue = rows
    return pair_of(red), pair_of(green), pair_of(blue)


def pair_of(values: Any) -> tuple[float, float]:
    """Two numbers; ValueError or TypeError if it is something else."""
    first, second = values
    return float(first), float(second)


def triple_of(values: Any) -> tuple[float, float, float]:
    """Three numbers; ValueError or TypeError if it is something else."""
    first, second, third = values
    return float(first), float(second), float(third)
