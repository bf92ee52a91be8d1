"""What a build depends on besides its slides and its settings: versions of the packages that touch pixels."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from exaone_prep import __version__
from exaone_prep.errors import ManifestError
from exaone_prep.manifest import Manifest
from exaone_prep.stain.method import plug_in

PIXEL_PACKAGES: Final = ("numpy", "openslide-bin", "pillow", "scipy", "simplejpeg", "tifffile")
"""Find tiles, decode, reduce, judge, encode. Their versions are part of the content id."""

_TABLE_PACKAGES: Final = ("numcodecs", "pyarrow", "zarr")
"""They decide the bytes of tables and pictures, not of shards: named where two environments do not agree."""

_BY_READER: Final = {"openslide": (), "tiatoolbox": ("tiatoolbox", "tifffile", "imagecodecs", "wsidicom", "zarr")}


def pixel_versions(manifest: Manifest) -> dict[str, str]:
    """Versions of this package, of those that touch pixels, and of a stain method that is plugged in.

    Raises:
        ManifestError: A reader or a stain method that the manifest asks for is not installed.
    """
    versions = {"exaone-prep": __version__}
    for name in PIXEL_PACKAGES:
        versions[name] = version(name)
    for reader in manifest.readers:
        for name in _BY_READER[reader]:
            try:
                versions[name] = version(name)
            except PackageNotFoundError as error:
                raise ManifestError(
                    f"readers: `{reader}` needs the package {name}, which is not installed; "
                    f"install the extra `{reader}` or take the reader out."
                ) from error
    if manifest.stain.plugged_in:
        name = manifest.stain.method
        versions[_stain_key(name)] = plug_in(name, manifest.stain.options).identity
    return versions


def stain_identity(manifest: Manifest, versions: Mapping[str, str]) -> str | None:
    """What `pixel_versions` found of the manifest's stain method; None where it is built in."""
    return versions[_stain_key(manifest.stain.method)] if manifest.stain.plugged_in else None


def _stain_key(name: str) -> str:
    return f"stain.{name}"


def describe(versions: dict[str, str]) -> dict[str, object]:
    """This process's environment, for commit records and for messages about conflicts."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpu": _cpu_model(),
        "versions": {**versions, **_table_versions()},
    }


@cache
def _table_versions() -> dict[str, str]:
    return {name: version(name) for name in _TABLE_PACKAGES}  # ten milliseconds of reading metadata


def in_words(environment: dict[str, object]) -> str:
    """An environment in a line."""
    versions = environment.get("versions")
    packages = " ".join(f"{name}={number}" for name, number in versions.items()) if isinstance(versions, dict) else "?"
    return f"{environment.get('host')} ({environment.get('cpu')}; {packages})"


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:  # noqa: PTH123 (a line of a kernel file)
            for line in stream:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        return platform.processor()
    return platform.processor()
