"""What the GPU engine needs of a GPU: memory, copies and launches in order, on lanes beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

KERNELS: Final = Path(__file__).with_name("kernels.cu")
"""The CUDA source."""

COMPILER_OPTIONS: Final = ("--std=c++17", "--fmad=false")
"""No fused multiply-adds: each operation is rounded, as on the CPU."""


class Lane(Protocol):
    """A stream of a GPU with buffers of its own: what is asked of it happens in that order, beside other lanes."""

    def staging(self, n_bytes: int) -> NDArray[np.uint8]:
        """Pinned host memory, uint8 (n_bytes,): the same each time, grown where it must."""
        ...

    def memory(self, name: str, n_bytes: int) -> Any:
        """Memory of the card under a name of the lane's own: the same each time, grown where it must.

        What a grown buffer held is lost.
        """
        ...

    def upload(self, host: NDArray[Any], memory: Any) -> None:
        """Copy a contiguous array to the card. The host may change it only after `wait`."""
        ...

    def download(self, memory: Any, host: NDArray[Any]) -> None:
        """Copy into a contiguous array, which is complete only after `wait`."""
        ...

    def launch(self, kernel: str, blocks: tuple[int, int], threads: int, arguments: Sequence[Any]) -> None:
        """Start a kernel of `KERNELS`; arguments are memory of the card or Python integers (as `int`)."""
        ...

    def wait(self) -> None:
        """Until all that was asked for is done."""
        ...


class Card(Protocol):
    """One GPU."""

    name: str

    def free_bytes(self) -> int:
        """Memory of the card that nobody has taken."""
        ...

    def lane(self) -> Lane:
        """A new lane."""
        ...
