"""How many workers a machine has room for: cores and memory as far as this process may use them."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Final

WORKER_BYTES: Final = 1_500_000_000
"""What a worker may need at most; `docs/performance.md` says what was measured."""

_LIBRARIES: Final = (
    "OMP_NUM_THREADS",  # OpenMP, and by it also Arrow
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
    "VIPS_CONCURRENCY",
    "ZARR_THREADING__MAX_WORKERS",
)


def default_workers(*, root: Path = Path("/")) -> int:
    """One worker per usable core, as far as the memory that is free now goes; at least one."""
    cores, memory = usable_cores(root=root), usable_memory_bytes(root=root)
    return cores if memory is None else max(1, min(cores, memory // WORKER_BYTES))


def usable_cores(*, root: Path = Path("/")) -> int:
    """Cores this process may run on; in a container that is given fewer, as many as its quota is worth.

    Args:
        root: Of the file system; another one in tests.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *(int(quota) for quota in _cpu_quotas(root))]))


def usable_memory_bytes(*, root: Path = Path("/")) -> int | None:
    """Memory that this process could still get; None where the system does not say.

    Args:
        root: Of the file system; another one in tests.
    """
    rooms = list(_memory_rooms(root))
    lines = _read(root / "proc/meminfo").splitlines()
    rooms += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min(rooms, default=None)


def one_thread_each() -> dict[str, str]:
    """Environment in which libraries start no threads of their own."""
    return dict.fromkeys(_LIBRARIES, "1")


def calm_libraries(environment: MutableMapping[str, str]) -> None:
    """Let libraries of this process start no threads of their own, unless the person asked for some.

    To be called before they are imported.
    """
    for name, value in one_thread_each().items():
        environment.setdefault(name, value)


def _cpu_quotas(root: Path) -> Iterator[float]:
    """Of all control groups above this process, in cores (cgroups 2: `cpu.max`; 1: `cpu.cfs_quota_us`)."""
    for folder in _groups(root, "cpu"):
        quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)


def _memory_rooms(root: Path) -> Iterator[int]:
    """What the control groups above this process leave of their limits, in bytes.

    Their files in memory are given up when memory is needed, so they count as room.
    """
    names = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
    for folder in _groups(root, "memory"):
        for limit_name, used_name in names:
            limit, used = _read(folder / limit_name).strip(), _read(folder / used_name).strip()
            if limit.isdigit() and used.isdigit() and int(limit) < 1 << 60:  # version 1 has no word for "no limit"
                yield max(0, int(limit) - int(used) + _file_bytes(folder))


def _file_bytes(folder: Path) -> int:
    wanted = ("inactive_file", "total_inactive_file")
    values = [line.split() for line in _read(folder / "memory.stat").splitlines()]
    return max([int(words[1]) for words in values if len(words) == 2 and words[0] in wanted], default=0)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the control groups that hold this process, for cgroups 1 and 2, up to the topmost."""
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if names == "":
            top = mounts
        elif controller in names.split(","):
            top = mounts / controller
        else:
            continue
        # In a container the path may be that of the host, which is not there: then the top is the container's own.
        own = top / path.lstrip("/")
        yield own
        yield from (folder for folder in own.parents if folder == top or top in folder.parents)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
