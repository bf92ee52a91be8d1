"""The nine 256-entry tables that normalisation with one fit is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exaone_prep.stain.algebra import Matrix3, correction_matrix
from exaone_prep.stain.density import IO, OD_TABLE
from exaone_prep.stain.exponential import exp
from exaone_prep.stain.reference import Reference
from exaone_prep.stain.stain_fit import StainFit

MAX_ENTRY: Final = 2.0**42
"""Entries lie within 2^±42: a product of three is then a normal float32, never 0, inf or NaN."""

MAX_EXPONENT: Final = 40.0


def correction(fit: StainFit, reference: Reference) -> Matrix3:
    """The 3×3 matrix on optical densities that turns the stain of a fit into the reference's.

    Raises:
        ValueError: If the fit is not ok.
    """
    if fit.status != "ok" or fit.stain_matrix is None or fit.max_concentration is None:
        raise ValueError(f"A stain fit that is {fit.status} ({fit.reason}) cannot be applied.")
    return correction_matrix(
        fit.stain_matrix, fit.max_concentration, reference.stain_matrix, reference.max_concentration
    )


def tables(corrections: Sequence[Matrix3]) -> NDArray[np.float32]:
    """Tables T with output grey level i = min(255, trunc((T[0][red] · T[1][green]) · T[2][blue])) at lane i.

    T[j][v][i] = exp(−M[i][j] · OD(v)), and T[0] holds the factor Io as well.

    Args:
        corrections: N matrices from `correction`.

    Returns:
        float32 (N, 3 input channels, 256 grey levels, 4 lanes): lanes are red, green, blue and a zero, so that an
        engine fetches the entries of one grey level as one 16-byte word.
    """
    matrices = np.asarray(corrections, dtype=np.float64).reshape(-1, 3, 3)
    by_input = matrices.transpose(0, 2, 1)[:, :, None, :]
    exponents = np.multiply(np.negative(by_input), OD_TABLE[None, None, :, None])
    entries = exp(np.clip(exponents, -MAX_EXPONENT, MAX_EXPONENT))
    np.multiply(entries[:, 0], float(IO), out=entries[:, 0])
    result = np.zeros((len(matrices), 3, 256, 4), dtype=np.float32)
    result[..., :3] = np.clip(entries, 1.0 / MAX_ENTRY, MAX_ENTRY)
    return result
