"""The tables of a fit as a loop for numba: the operations of `tables` and `exponential`, in their order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exaone_prep.stain.density import IO
from exaone_prep.stain.exponential import COEFFICIENTS, LN2_HIGH, LN2_LOW, LOG2_E
from exaone_prep.stain.tables import MAX_ENTRY, MAX_EXPONENT

_LEVELS = 256
_SCALE = float(IO)
_LEAST_ENTRY = 1.0 / MAX_ENTRY


def tables(matrices: NDArray[np.float64], od: NDArray[np.float64], result: NDArray[np.float32]) -> None:
    """Write the tables of `exaone_prep.stain.tables.tables`, bit for bit.

    Args:
        matrices: float64 (N, 3, 3), from `correction`.
        od: float64 (256,), `OD_TABLE`.
        result: float32 (N, 3, 256, 4), zeros.
    """
    entries = np.empty(_LEVELS, np.float64)
    rest = np.empty(_LEVELS, np.float64)
    power_bits = np.empty(_LEVELS, np.int64)
    powers = power_bits.view(np.float64)
    for n in range(len(matrices)):
        for channel in range(3):
            for lane in range(3):
                factor = -matrices[n, lane, channel]
                for level in range(_LEVELS):
                    x = min(max(factor * od[level], -MAX_EXPONENT), MAX_EXPONENT)
                    k = np.rint(x * LOG2_E)
                    rest[level] = (x - k * LN2_HIGH) - k * LN2_LOW
                    power_bits[level] = (np.int64(k) + 1023) << 52
                entries[:] = COEFFICIENTS[0]
                for coefficient in COEFFICIENTS[1:]:
                    for level in range(_LEVELS):
                        entries[level] = entries[level] * rest[level] + coefficient
                for level in range(_LEVELS):
                    entry = entries[level] * powers[level]
                    if channel == 0:
                        entry = entry * _SCALE
                    result[n, channel, level, lane] = np.float32(min(max(entry, _LEAST_ENTRY), MAX_ENTRY))
