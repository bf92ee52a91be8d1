"""The CUDA kernels of the stain built by a C++ compiler, as a `Card` of the GPU engine."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from exaone_prep.stain.card import KERNELS

SHIM = Path(__file__).with_name("cuda_on_cpu.cpp")
COMPILER = shutil.which("g++")
LANGUAGE = ("-std=c++20", "-ffp-contract=off", "-fno-strict-aliasing", f'-DKERNELS="{KERNELS}"')

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no g++ here to build the CUDA kernels with")


@cache
def library(folder: Path) -> ctypes.CDLL:
    """The kernels as machine code of this CPU, built into `folder`."""
    built = folder / "kernels.so"
    warnings = ("-Wall", "-Wextra", "-Werror")
    build = ["-O2", *warnings, "-shared", "-fPIC", "-pthread", str(SHIM), "-o", str(built)]
    subprocess.run([str(COMPILER), *LANGUAGE, *build], check=True)
    return ctypes.CDLL(str(built))


def races(program: Path, *options: str) -> str:
    """What the thread sanitizer reports of the kernels run with blocks of several threads."""
    build = ["-O1", "-g", "-fsanitize=thread", "-pthread", *options, str(SHIM.with_name("cuda_races.cpp"))]
    subprocess.run([str(COMPILER), *LANGUAGE, *build, "-o", str(program)], check=True)
    # setarch: the sanitizer needs its addresses where a randomised layout may not leave them.
    command = ["setarch", "--addr-no-randomize", str(program)] if shutil.which("setarch") else [str(program)]
    # The first race is enough: kernels whose threads read each other's half-written numbers may never end.
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stderr


class CpuCard:
    """Host memory, a launch at a time, a block at a time; `threads` of them run one, whatever is asked for."""

    name = "a C++ compiler's"

    def __init__(self, code: ctypes.CDLL, *, threads: int = 1, free_bytes: int = 1 << 40) -> None:
        self.code = code
        self.threads = threads
        self.free = free_bytes
        self.lanes: list[CpuLane] = []
        self.fails_at: str | None = None

    def free_bytes(self) -> int:
        return self.free

    def lane(self) -> CpuLane:
        self.lanes.append(CpuLane(self))
        return self.lanes[-1]


class CpuLane:
    """What a lane promises and no more: memory that grows is lost, copies come late, fresh memory is not empty."""

    def __init__(self, card: CpuCard) -> None:
        self.card = card
        self.launches: list[tuple[str, tuple[int, int]]] = []
        self._staging = np.empty(0, dtype=np.uint8)
        self._memory: dict[str, NDArray[np.uint8]] = {}
        self._downloads: list[tuple[NDArray[np.uint8], NDArray[Any]]] = []

    def staging(self, n_bytes: int) -> NDArray[np.uint8]:
        if n_bytes > len(self._staging):
            self._staging = np.full(n_bytes, 0xA5, dtype=np.uint8)
        return self._staging[:n_bytes]

    def memory(self, name: str, n_bytes: int) -> NDArray[np.uint8]:
        known = self._memory.get(name)
        if known is None or len(known) < n_bytes:
            # 16 bytes more than asked for: the start can then be moved to a multiple of 16, as CUDA's is.
            raw = np.full(n_bytes + 16, 0x5A, dtype=np.uint8)
            start = -raw.ctypes.data % 16
            known = self._memory[name] = raw[start : start + n_bytes]
        return known

    def upload(self, host: NDArray[Any], memory: NDArray[np.uint8]) -> None:
        assert host.flags.c_contiguous
        memory[: host.nbytes] = host.reshape(-1).view(np.uint8)

    def download(self, memory: NDArray[np.uint8], host: NDArray[Any]) -> None:
        assert host.flags.c_contiguous
        self._downloads.append((memory[: host.nbytes].copy(), host))

    def launch(self, kernel: str, blocks: tuple[int, int], threads: int, arguments: Sequence[Any]) -> None:
        assert 0 < threads <= 1024
        assert 0 < blocks[0] < 1 << 31
        assert 0 < blocks[1] < 1 << 16
        if self.card.fails_at == kernel:
            raise RuntimeError("the card has fallen out")
        self.launches.append((kernel, blocks))
        typed = [
            ctypes.c_int(each) if isinstance(each, int) else ctypes.c_void_p(each.ctypes.data) for each in arguments
        ]
        getattr(self.card.code, f"launch_{kernel}")(*blocks, self.card.threads, *typed)

    def wait(self) -> None:
        for memory, host in self._downloads:
            host.reshape(-1).view(np.uint8)[:] = memory
        self._downloads.clear()
