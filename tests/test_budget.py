"""Default numbers of workers: cores, quotas of containers, memory. Control groups are files in a folder here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exaone_prep.budget import WORKER_BYTES, calm_libraries, default_workers, usable_cores, usable_memory_bytes

CORES = 64
GB = 10**9


@pytest.fixture(autouse=True)
def big_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(CORES)))


def machine(root: Path, files: dict[str, str]) -> Path:
    """A root with these files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def memory(available: int) -> dict[str, str]:
    return {"proc/meminfo": f"MemTotal: 999999999 kB\nMemAvailable: {available // 1024} kB\n"}


def test_without_limits_every_core_is_used(tmp_path: Path) -> None:
    root = machine(tmp_path, memory(400 * GB))
    assert usable_cores(root=root) == CORES
    assert default_workers(root=root) == CORES
    assert usable_cores(root=tmp_path / "nothing is known") == CORES


@pytest.mark.parametrize(
    ("quota", "cores"), [("400000 100000", 4), ("max 100000", CORES), ("150000 100000", 1), ("50000 100000", 1)]
)
def test_a_container_has_the_cores_that_its_quota_is_worth(tmp_path: Path, quota: str, cores: int) -> None:
    root = machine(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{quota}\n"})
    assert usable_cores(root=root) == cores


def test_the_least_quota_above_the_process_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/jobs/mine\n",
        "sys/fs/cgroup/jobs/cpu.max": "300000 100000\n",
        "sys/fs/cgroup/jobs/mine/cpu.max": "800000 100000\n",
    }
    assert usable_cores(root=machine(tmp_path, files)) == 3


@pytest.mark.parametrize(("quota", "cores"), [("200000", 2), ("-1", CORES)])
def test_quotas_of_the_older_control_groups_count_too(tmp_path: Path, quota: str, cores: int) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/\n3:cpu,cpuacct:/docker/1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": f"{quota}\n",  # the container's own is the topmost that is there
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    }
    assert usable_cores(root=machine(tmp_path, files)) == cores


def test_a_laptop_gets_no_more_workers_than_fit_into_its_memory(tmp_path: Path) -> None:
    root = machine(tmp_path, memory(5 * GB))
    assert default_workers(root=root) == 5 * GB // WORKER_BYTES == 3
    assert default_workers(root=machine(tmp_path, memory(GB // 10))) == 1


@pytest.mark.parametrize(
    "files",
    [
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": f"{8 * GB}\n",
            "sys/fs/cgroup/memory.current": f"{4 * GB}\n",
            "sys/fs/cgroup/memory.stat": f"anon 1\ninactive_file {2 * GB}\n",
        },
        {
            "proc/self/cgroup": "4:memory:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{8 * GB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{4 * GB}\n",
            "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {2 * GB}\ninactive_file 5\n",
        },
    ],
    ids=["cgroups 2", "cgroups 1"],
)
def test_a_container_has_what_its_limit_leaves_files_in_memory_aside(tmp_path: Path, files: dict[str, str]) -> None:
    root = machine(tmp_path, files | memory(100 * GB))
    assert usable_memory_bytes(root=root) == 6 * GB
    assert default_workers(root=root) == 4


def test_threads_that_a_person_asked_for_are_left_alone() -> None:
    environment = {"OMP_NUM_THREADS": "3"}
    calm_libraries(environment)
    assert (environment["OMP_NUM_THREADS"], environment["OPENBLAS_NUM_THREADS"]) == ("3", "1")
