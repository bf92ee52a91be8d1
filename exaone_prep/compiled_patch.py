"""The kernels of `patch_kernels` as machine code."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import NamedTuple

from exaone_prep import patch_kernels


class PatchKernels(NamedTuple):
    """The functions of `exaone_prep.patch_kernels`, compiled."""

    count_quality: Callable[..., None]
    add_channels: Callable[..., None]


_compiling = Lock()


def patch_kernels_compiled() -> PatchKernels:
    """The kernels, compiled once per process at most."""
    with _compiling:
        return _compiled()


@cache
def _compiled() -> PatchKernels:
    # Imported here because numba takes a third of a second, which processes without pixels need not wait for.
    from exaone_prep.compilation import Kernel, compiled, read_only

    rows = read_only("uint8", 2)
    kernels = {
        "count_quality": Kernel(patch_kernels.count_quality, f"void({rows}, {read_only('int64')}, int64[::1])"),
        "add_channels": Kernel(patch_kernels.add_channels, f"void({rows}, int64[::1])"),
    }
    return PatchKernels(**compiled(kernels, "the kernels for patches"))
