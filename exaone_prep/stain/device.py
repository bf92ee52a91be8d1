"""Which engine does the work: the choice of a device, made once."""

from __future__ import annotations

from functools import cache
from typing import Literal, get_args

from exaone_prep.errors import ManifestError
from exaone_prep.stain.cupy_card import CupyCard, why_no_gpu
from exaone_prep.stain.engine import Engine
from exaone_prep.stain.gpu_engine import GpuEngine
from exaone_prep.stain.numpy_engine import NumpyEngine
from exaone_prep.stain.one_by_one import OneByOne

Device = Literal["auto", "cpu", "gpu"]


def engine_for(device: Device) -> Engine:
    """The engine for a device.

    Args:
        device: `cpu`: compiled by numba, or NumPy where there is no numba. `gpu`: CuPy. `auto`: the best there is.

    Raises:
        ManifestError: If a GPU is asked for and cannot be used.
        ValueError: If there is no such device.
    """
    return _gpu() if resolved(device) == "gpu" else _cpu()


def resolved(device: Device, *, by: str = "A GPU is asked for") -> Literal["cpu", "gpu"]:
    """`auto` as what it means on this machine; takes milliseconds.

    Args:
        device: What is wanted.
        by: Why a GPU is, for the message.

    Raises:
        ManifestError: If a GPU is asked for and there is none.
        ValueError: If there is no such device.
    """
    if device not in get_args(Device):
        raise ValueError(f"The device must be auto, cpu or gpu, not {device!r}.")
    if device == "cpu":
        return "cpu"
    reason = why_no_gpu()
    if reason is None:
        return "gpu"
    if device == "gpu":
        raise ManifestError(f"{by}, and {reason}; choose device: cpu or auto, or a machine that has one.")
    return "cpu"


@cache
def _cpu() -> Engine:
    # Imported here because numba takes a third of a second, which commands without pixels need not wait for.
    try:
        import numba
    except ImportError:
        return OneByOne(NumpyEngine())
    if numba.config.DISABLE_JIT:
        return OneByOne(NumpyEngine())
    from exaone_prep.stain.numba_engine import NumbaEngine

    return OneByOne(NumbaEngine())


@cache
def _gpu() -> Engine:
    try:
        return GpuEngine(CupyCard())
    # CuPy raises its own kinds of RuntimeError, and ImportError or OSError where a library of CUDA's is missing.
    except (RuntimeError, ImportError, OSError) as error:
        raise ManifestError(
            f"There is a GPU, but CuPy cannot use it ({error}); mend that, or choose device: cpu."
        ) from error
