"""A manifest by its path or URL, and where the relative paths in it start."""

from __future__ import annotations

from pathlib import Path

import fsspec

from exaone_prep.catalog.place import as_os_errors, folder_of, is_url
from exaone_prep.errors import ManifestError
from exaone_prep.manifest import Manifest, load_manifest, parse_yaml


def open_manifest(location: str, settings: dict[str, str] | None = None) -> tuple[Manifest, Path]:
    """Read a manifest and lay single settings over it.

    Args:
        location: Path or fsspec URL of the YAML file.
        settings: See `load_manifest`.

    Returns:
        The manifest, and the folder where its relative paths start; beside a URL they are URLs already.

    Raises:
        ManifestError: Naming the file, the field and what to do.
    """
    if not is_url(location):
        path = Path(location)
        return load_manifest(path, settings), path.resolve().parent
    try:
        with as_os_errors(), fsspec.open(location) as stream:
            data = stream.read()
    except FileNotFoundError as error:
        raise ManifestError(f"There is no manifest at {location}.") from error
    except OSError as error:
        raise ManifestError(f"The manifest {location} cannot be read: {error.strerror or error}.") from error
    manifest = parse_yaml(data, settings or {}, where=location)
    return _beside(manifest, folder_of(location)), Path("/")


def _beside(manifest: Manifest, folder: str) -> Manifest:
    """The manifest with its relative places written out, below the URL of its folder."""

    def full(place: str) -> str:
        return place if is_url(place) or place.startswith(("/", "~")) else f"{folder}/{place}"

    cohorts = tuple(
        cohort.model_copy(
            update={
                "slides": tuple(full(place) for place in cohort.slides),
                "table": None if cohort.table is None else full(cohort.table),
            }
        )
        for cohort in manifest.cohorts
    )
    exclude = None if manifest.exclude is None else full(manifest.exclude)
    return manifest.model_copy(update={"cohorts": cohorts, "exclude": exclude})
