"""Memory that is used again."""

from __future__ import annotations

import weakref

import numpy as np
from numpy.typing import NDArray


class Memory:
    """Gives out memory, and the same again once nobody holds it: new pages cost more than reading into them.

    On a virtual machine reading a window into new pages took ten times as long as into used ones.
    """

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []
        self._largest = 0

    def take(self, size: int) -> NDArray[np.uint8]:
        """So many bytes, uint8 (size,), of any values; arrays, tensors and memory views made of them hold them."""
        self._largest = max(self._largest, size)
        whole = self._free.pop() if self._free else np.empty(0, dtype=np.uint8)
        if len(whole) < size:
            whole = np.empty(self._largest + self._largest // 4, dtype=np.uint8)
        # Not a plain slice: views of that would hold `whole`, and not what is watched here.
        taken = np.frombuffer(whole.data[:size], dtype=np.uint8)
        weakref.finalize(taken, self._free.append, whole).atexit = False
        return taken
