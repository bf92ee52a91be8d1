"""Packages that bring a stain method: installed as pip would leave them, in a folder that Python looks into."""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "stain.md"


def documented() -> tuple[str, str]:
    """The example of the stain page: its module, and the entry point in TOML."""
    section = PAGE.read_text(encoding="utf-8").split("\n## Other methods\n")[1].split("\n## ")[0]
    code, points = re.findall(r"```(?:python|toml)\n(.*?)```", section, flags=re.DOTALL)
    return code, points


def install(folder: Path, module: str, code: str, points: dict[str, str], *, version: str = "0.1") -> Path:
    """Install a package of one module.

    Args:
        folder: To be put on Python's path.
        module: Name of the module, and of the package with `-stains` behind it.
        code: Of the module.
        points: Entry points: name, and what stands behind the module's (`Tint`).
        version: Of the package.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(textwrap.dedent(code))
    info = folder / f"{module}_stains-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}-stains\nVersion: {version}\n")
    lines = [f"{name} = {module}:{thing}" for name, thing in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[exaone_prep.stain_methods]", *lines, ""]))
    return folder


def path_with(folder: Path) -> dict[str, str]:
    """Variables under which a process and its workers find what is installed in a folder."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))}
