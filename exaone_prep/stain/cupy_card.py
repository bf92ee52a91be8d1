"""The GPU that CuPy sees."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exaone_prep.stain.card import COMPILER_OPTIONS, KERNELS


@cache
def why_no_gpu() -> str | None:
    """Why no GPU can be used here, in half a sentence; None where one can. Takes milliseconds, and imports no CuPy."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed (the extra `gpu` has it)"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "this machine has no NVIDIA driver"
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return "the NVIDIA driver does not start"
    return None if count.value else "the NVIDIA driver sees no GPU"


class CupyCard:
    """The current device of CuPy (`CUDA_VISIBLE_DEVICES` chooses), with the kernels compiled for it."""

    def __init__(self) -> None:
        """Compile, or take what CuPy's cache holds.

        Raises:
            RuntimeError: The driver or the compiler does not do it, in CuPy's words.
        """
        self._cupy: Any = importlib.import_module("cupy")
        self._device = self._cupy.cuda.Device()
        code = KERNELS.read_text(encoding="utf-8")
        self._module = self._cupy.RawModule(code=code, options=COMPILER_OPTIONS)
        self._module.compile()
        self.name = str(self._cupy.cuda.runtime.getDeviceProperties(self._device.id)["name"].decode())

    def free_bytes(self) -> int:
        """Memory of the card that nobody has taken."""
        with self._device:
            return int(self._cupy.cuda.runtime.memGetInfo()[0])

    def lane(self) -> CupyLane:
        """A new stream with buffers."""
        return CupyLane(self._cupy, self._device, self._module)


class CupyLane:
    """A stream with buffers of its own."""

    def __init__(self, cupy: Any, device: Any, module: Any) -> None:
        self._cupy = cupy
        self._device = device
        with device:
            self._stream = cupy.cuda.Stream(non_blocking=True)
        self._functions = {
            name: module.get_function(name)
            for name in ("moments", "pseudo_angles", "concentrations", "tables", "apply")
        }
        self._pinned: Any = None
        self._host: NDArray[np.uint8] = np.empty(0, dtype=np.uint8)
        self._memory: dict[str, Any] = {}
        self._in_flight: list[NDArray[Any]] = []

    def staging(self, n_bytes: int) -> NDArray[np.uint8]:
        """Pinned host memory."""
        if n_bytes > len(self._host):
            with self._device:
                self._pinned = self._cupy.cuda.alloc_pinned_memory(n_bytes)
            self._host = np.frombuffer(self._pinned, dtype=np.uint8, count=n_bytes)
        return self._host[:n_bytes]

    def memory(self, name: str, n_bytes: int) -> Any:
        """Memory of the card, as a uint8 array of CuPy's."""
        known = self._memory.get(name)
        if known is None or known.nbytes < n_bytes:
            with self._device, self._stream:
                known = self._memory[name] = self._cupy.empty(max(n_bytes, 1), dtype=np.uint8)
        return known

    def upload(self, host: NDArray[Any], memory: Any) -> None:
        """Copy to the card."""
        self._in_flight.append(host)
        with self._device:
            memory.data.copy_from_host_async(host.ctypes.data, host.nbytes, self._stream)

    def download(self, memory: Any, host: NDArray[Any]) -> None:
        """Copy from the card."""
        self._in_flight.append(host)
        with self._device:
            memory.data.copy_to_host_async(host.ctypes.data, host.nbytes, self._stream)

    def launch(self, kernel: str, blocks: tuple[int, int], threads: int, arguments: Sequence[Any]) -> None:
        """Start a kernel."""
        typed = tuple(np.int32(each) if isinstance(each, int) else each for each in arguments)
        with self._device, self._stream:
            self._functions[kernel](blocks, (threads,), typed)

    def wait(self) -> None:
        """Until the stream is empty."""
        self._stream.synchronize()
        self._in_flight.clear()
