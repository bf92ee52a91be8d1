"""The kernels of `patch_kernels` as machine code."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import NamedTuple


class PatchKernels(NamedTuple):
    """The functions of `exaone_prep.patch_kernels`, compiled."""

    count_quality: Callable[..., None]
    add_channels: Callable[..., None]


_compiling = Lock()
_compiled: PatchKernels | None = None


def patch_kernels_compiled() -> PatchKernels:
    """The kernels, compiled once per process at most."""
    return _compiled or _compile()


def _compile() -> PatchKernels:
    # Imported here because numba takes a third of a second, which processes without pixels need not wait for.
    from exaone_prep import patch_kernels
    from exaone_prep.compilation import Kernel, compiled, read_only

    global _compiled  # asked for with every patch: no lock, no dictionary
    with _compiling:
        if _compiled is None:
            rows = read_only("uint8", 2)
            kernels = {
                "count_quality": Kernel(patch_kernels.count_quality, f"void({rows}, {read_only('int64')}, int64[::1])"),
                "add_channels": Kernel(patch_kernels.add_channels, f"void({rows}, int64[::1])"),
            }
            _compiled = PatchKernels(**compiled(kernels, "the kernels for patches"))
        return _compiled
