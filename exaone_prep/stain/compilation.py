"""The kernels of the stain as machine code."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Final, NamedTuple

from exaone_prep import compilation
from exaone_prep.compilation import Kernel, read_only
from exaone_prep.stain import apply_kernel, fit_kernels, table_kernel

_BYTES: Final = read_only("uint8")
_KERNELS: Final = {
    "apply": Kernel(apply_kernel.apply, f"void({_BYTES}, {read_only('float32')}, uint8[::1], int64[::1])"),
    "tables": Kernel(table_kernel.tables, f"void(float64[:, :, ::1], {read_only('float64')}, float32[:, :, :, ::1])"),
    "sum_products": Kernel(
        fit_kernels.sum_products,
        f"void({_BYTES}, {read_only('int32')}, int64, int16[:, ::1], uint8[::1], int64[:, ::1])",
    ),
    "pseudo_angles": Kernel(
        fit_kernels.pseudo_angles,
        f"void({_BYTES}, int16[:, ::1], uint8[::1], {read_only('float64')}, int64, int64, "
        "float64[:, ::1], int64[::1], float64[::1])",
    ),
    "concentrations": Kernel(
        fit_kernels.concentrations,
        f"void({_BYTES}, int16[:, ::1], uint8[::1], {read_only('float64')}, float64[:, ::1], int64, float64[::1])",
    ),
}


class Kernels(NamedTuple):
    """The compiled functions of `apply_kernel`, `table_kernel` and `fit_kernels`."""

    apply: Callable[..., None]
    tables: Callable[..., None]
    sum_products: Callable[..., None]
    pseudo_angles: Callable[..., None]
    concentrations: Callable[..., None]


_compiling = Lock()


def compiled() -> Kernels:
    """The kernels, compiled once per process at most."""
    with _compiling:
        return _compiled()


@cache
def _compiled() -> Kernels:
    return Kernels(**compilation.compiled(_KERNELS, "the stain kernels"))
