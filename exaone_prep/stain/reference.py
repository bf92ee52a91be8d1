"""What patches are normalised to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path
from typing import Any, Final

from exaone_prep.errors import ManifestError
from exaone_prep.stain.algebra import StainMatrix, columns, cosine_between, dot
from exaone_prep.stain.stain_fit import FitDiagnostics, StainFit, pair_of, stain_matrix_of

_MAX_COSINE: Final = 0.9961946980917455  # cos 5°
_LENGTH_TOLERANCE: Final = 0.02


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The stain that every patch is given.

    Attributes:
        name: For people.
        stain_matrix: Unit OD vectors as columns haematoxylin, eosin; rows red, green, blue.
        max_concentration: 99th percentile of the concentrations of haematoxylin and eosin.
    """

    name: str
    stain_matrix: StainMatrix
    max_concentration: tuple[float, float]

    def __post_init__(self) -> None:
        values = [value for row in self.stain_matrix for value in row] + list(self.max_concentration)
        if not all(isfinite(value) for value in values):
            raise ValueError("all of its numbers must be finite")
        if min(self.max_concentration) <= 0.0:
            raise ValueError("its maximal concentrations must be above 0")
        h, e = columns(self.stain_matrix)
        if any(abs(sqrt(dot(vector, vector)) - 1.0) > _LENGTH_TOLERANCE for vector in (h, e)):
            raise ValueError("the columns of its stain matrix must have length 1 (rows are red, green, blue)")
        if cosine_between(h, e) > _MAX_COSINE:
            raise ValueError("its two stain vectors are less than 5° apart")

    def as_fit(self) -> StainFit:
        """The reference as if it had been fitted: what `on_failure: reference` applies."""
        return StainFit(
            stain_matrix=self.stain_matrix,
            max_concentration=self.max_concentration,
            diagnostics=FitDiagnostics(n_pixels=0, n_kept=0),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `load_reference` reads them."""
        return {
            "name": self.name,
            "stain_matrix": [list(row) for row in self.stain_matrix],
            "max_concentration": list(self.max_concentration),
        }


MACENKO_REFERENCE: Final = Reference(
    name="macenko",
    stain_matrix=((0.5626, 0.2159), (0.7201, 0.8012), (0.4062, 0.5581)),
    max_concentration=(1.9705, 1.0308),
)
"""The stain vectors and concentrations that came with Macenko et al. (ISBI 2009), in Veta's reference code."""


def load_reference(path: str | Path) -> Reference:
    """The reference called `macenko`, or the one that a JSON file describes.

    The file holds `stain_matrix` (3×2) and `max_concentration` (2), as `Reference.to_json` and `StainFit.to_json`
    give them, so that the fit of a chosen slide can serve; `name` is optional.

    Raises:
        ManifestError: If the file is missing, not JSON, or not a usable reference.
    """
    if str(path) == MACENKO_REFERENCE.name:
        return MACENKO_REFERENCE
    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Reference(
            name=str(document.get("name", path.stem)),
            stain_matrix=stain_matrix_of(document["stain_matrix"]),
            max_concentration=pair_of(document["max_concentration"]),
        )
    except OSError as error:
        raise ManifestError(f"The stain reference {path} cannot be read: {error.strerror}.") from error
    except KeyError as error:
        raise ManifestError(f"The stain reference {path} lacks the field {error}.") from error
    except (AttributeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ManifestError(f"The stain reference {path} is not usable: {error}.") from error
