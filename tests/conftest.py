"""Fixtures of several test files."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.disks import mounted
from tests.smallslides import small_slides

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    with mounted(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture(scope="module")
def suite() -> Iterator[Any]:
    """Gives the modules of `benchmarks/` by name."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three small slides; files that need others have a fixture of this name themselves."""
    folder = tmp_path_factory.mktemp("slides")
    small_slides(folder, 3)
    return folder
