"""Optical density of the 256 grey levels: OD = −ln((I + 1) / 240), and which pixels count as stained."""

from __future__ import annotations

from decimal import Context, Decimal
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

IO: Final = 240
"""Grey level of the unstained background, Io."""

BETA: Final = Decimal("0.15")
"""A pixel with any channel below this optical density is not used to find the stain vectors."""

FIXED_POINT_BITS: Final = 21
"""Fractional bits of `OD_FIXED`: 65,536 squares of its largest entry still fit into an int64."""

EXACT_SUM_PIXELS: Final = 1 << 16
"""So many products of two `OD_FIXED` entries can be added in an int64 without overflow."""

_T = TypeVar("_T", bound=np.generic)
_CONTEXT = Context(prec=40)
_OD = tuple(-_CONTEXT.ln(_CONTEXT.divide(Decimal(level + 1), Decimal(IO))) for level in range(256))


def _read_only(table: NDArray[_T]) -> NDArray[_T]:
    table.setflags(write=False)
    return table


# Rounded from 40 decimal digits, because np.log differs in the last bit between SIMD levels.
OD_TABLE: Final[NDArray[np.float64]] = _read_only(np.array([float(od) for od in _OD], dtype=np.float64))
"""Optical density of each grey level, correctly rounded; float64 (256,)."""

OD_FIXED: Final[NDArray[np.int64]] = _read_only(
    np.array([int((od * (1 << FIXED_POINT_BITS)).to_integral_value()) for od in _OD], dtype=np.int64)
)
"""The same in units of 2^−21, for sums that must not depend on their order; int64 (256,)."""

MAX_KEPT_LEVEL: Final = max(level for level in range(256) if _OD[level] >= BETA)
"""The brightest grey level that is not below β (205)."""
