"""Which engine does the work: the choice of a device, made once."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Literal, get_args

from exaone_prep.errors import ManifestError
from exaone_prep.stain.engine import Engine
from exaone_prep.stain.numpy_engine import NumpyEngine

Device = Literal["auto", "cpu", "gpu"]


def engine_for(device: Device) -> Engine:
    """The engine for a device.

    Args:
        device: `cpu`: compiled by numba, or NumPy where there is no numba. `gpu`: CuPy. `auto`: the best there is.

    Raises:
        ManifestError: If a GPU is asked for and cannot be used.
        ValueError: If there is no such device.
    """
    if device not in get_args(Device):
        raise ValueError(f"The device must be auto, cpu or gpu, not {device!r}.")
    return _gpu() if device == "gpu" else _cpu()


@cache
def _cpu() -> Engine:
    # Imported here because numba takes a third of a second, which commands without pixels need not wait for.
    try:
        import numba
    except ImportError:
        return NumpyEngine()
    if numba.config.DISABLE_JIT:
        return NumpyEngine()
    from exaone_prep.stain.numba_engine import NumbaEngine

    return NumbaEngine()


def _gpu() -> Engine:
    if importlib.util.find_spec("cupy") is None:
        raise ManifestError("There is no CuPy here to use a GPU with; install the extra `gpu`, or choose device: cpu.")
    raise ManifestError("This version normalises stains on the CPU only; choose device: cpu or auto.")
