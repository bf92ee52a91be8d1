"""A data set that is being built or was built: its frozen catalog, its settings, and where its slides lie."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from exaone_prep import layout
from exaone_prep.catalog import (
    ID_KEY_VARIABLE,
    Catalog,
    CatalogRow,
    PrivateTable,
    build_catalog,
    explain_difference,
    id_key_from_environment,
    locations,
)
from exaone_prep.catalog.overrides import Override, differing
from exaone_prep.environment import describe, in_words, pixel_versions, stain_identity
from exaone_prep.errors import DatasetError, StorageConflictError
from exaone_prep.manifest import Manifest, StainReference, frozen_manifest
from exaone_prep.names import Names
from exaone_prep.stain import MACENKO_REFERENCE, Device, Reference, load_reference
from exaone_prep.stain.device import resolved
from exaone_prep.steps import reach
from exaone_prep.storage import Storage, open_storage, put_bytes


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set directory with a catalog.

    Attributes:
        storage: Where it lies.
        catalog: Frozen at the first run.
        manifest: The settings the catalog was frozen with; its cohorts name no places.
        private: Clear names and places, where ids are hashed and `private/` can be read.
        device: What normalises here, as far as that is free.
    """

    storage: Storage
    catalog: Catalog
    manifest: Manifest
    private: PrivateTable | None = None
    device: Device = "auto"

    @property
    def stain_device(self) -> Device:
        """What normalises: with `fit: patch` as the data set was begun, else as this build was asked to."""
        return _begun_on(self.manifest) if self.manifest.stain.device_counts else self.device

    @cached_property
    def groups(self) -> dict[int, tuple[CatalogRow, ...]]:
        """The slides of each group."""
        return self.catalog.groups()

    @cached_property
    def names(self) -> Names:
        """Where slides lie, and what messages may say of it."""
        private = {row.slide_id: row for row in self.private.rows} if self.private else {}
        return Names(
            locations(self.catalog, self.private),
            hidden=self.manifest.privacy.slide_ids == "hash",
            patients={slide_id: row.patient for slide_id, row in private.items()},
        )

    @property
    def reference(self) -> Reference:
        """The stain to normalise to."""
        written = self.manifest.stain.reference
        if isinstance(written, str):
            return load_reference(written)
        return Reference(**written.model_dump())

    @property
    def versions(self) -> dict[str, str]:
        """Of the packages that touch pixels, as the catalog froze them."""
        return self.catalog.metadata.versions

    @property
    def stain_identity(self) -> str | None:
        """Version and package of a stain method that is plugged in, as the catalog froze them."""
        return stain_identity(self.manifest, self.versions)

    @property
    def environment(self) -> dict[str, Any]:
        """In which the catalog was frozen."""
        return self.catalog.metadata.environment


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """A complete data set that another one continues (`exaone_prep.outcomes.earlier`).

    Attributes:
        url: Where it lies.
        manifest: Its settings.
        finished: Slides that need not be built again, by id, with their content stamps.
        id_key_check: Of its catalog.
    """

    url: str
    manifest: Manifest
    finished: dict[str, str]
    id_key_check: str


def open_dataset(url: str | Path, *, private: bool = False) -> Dataset:
    """Open a data set that exists.

    Args:
        url: Local path or fsspec URL.
        private: Whether `private/` is read as well: only what opens slides needs it.

    Raises:
        DatasetError: There is none.
    """
    storage = open_storage(url)
    try:
        catalog = Catalog.from_parquet(storage.read(layout.CATALOG))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatasetError(f"There is no data set at {storage.url} (it has no {layout.CATALOG}).") from error
    manifest = frozen_manifest(catalog.metadata.manifest)
    table = None
    if private and manifest.privacy.slide_ids == "hash":
        table = PrivateTable.from_parquet(storage.read(layout.private(catalog.content_id)))
    return Dataset(storage=storage, catalog=catalog, manifest=manifest, private=table)


def create_dataset(
    url: str | Path,
    manifest: Manifest,
    *,
    base: Path,
    after: Earlier | None = None,
    overrides: Mapping[str, Override] | None = None,
    on_stamped: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Freeze the catalog of a new data set, or go on with the one that is there.

    Args:
        url: Local path or fsspec URL.
        manifest: What to build.
        base: Where the manifest's relative paths start.
        after: A data set whose finished slides are left out.
        overrides: Corrections of single slides, by slide id.
        on_stamped: Called after each slide with how many are stamped and how many there are.

    Raises:
        DatasetError: Another manifest, or other versions of packages, began what is there; or `after` is not complete
            or has other parameters.
        ManifestError: See `build_catalog` and `pixel_versions`; nothing is written then.
    """
    storage = open_storage(url)
    manifest = _with_written_reference(manifest, base)
    versions = pixel_versions(manifest)
    if storage.size(layout.CATALOG) is not None:
        return _continued(url, manifest, versions, overrides or {})
    manifest = _on(resolved(manifest.stain.device) if manifest.stain.device == "auto" else None, manifest)
    _refuse_foreign(storage)
    if after is not None:
        _check_parameters(after, manifest, versions)
    key = id_key_from_environment() if manifest.privacy.slide_ids == "hash" else None
    catalog, private = build_catalog(
        manifest,
        base=base,
        versions=versions,
        environment=describe(versions),
        key=key,
        on_stamped=on_stamped,
        done_before=after.finished if after is not None else None,
        overrides=overrides,
    )
    if after is not None and after.id_key_check != catalog.metadata.id_key_check:
        raise DatasetError(
            f"{after.url} has ids hashed with another key: set {ID_KEY_VARIABLE} to the key it was built with."
        )
    reach("catalog-before")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if private is not None:
            put_bytes(storage, layout.private(catalog.content_id), private.to_parquet(), scratch)
        try:
            put_bytes(storage, layout.CATALOG, catalog.to_parquet(), scratch)
        except StorageConflictError:
            return _continued(url, manifest, versions, overrides or {}, content_id=catalog.content_id)
    reach("catalog-after")
    return _continued(url, manifest, versions, overrides or {})


def _with_written_reference(manifest: Manifest, base: Path) -> Manifest:
    """The manifest with the numbers of its stain reference in place of a file's name: a file may change or go."""
    named = manifest.stain.reference
    if not isinstance(named, str) or named == MACENKO_REFERENCE.name:
        return manifest
    numbers = StainReference.model_validate(load_reference(base / named).to_json())
    return manifest.model_copy(update={"stain": manifest.stain.model_copy(update={"reference": numbers})})


def _begun_on(manifest: Manifest) -> Device:
    """The device of a frozen manifest, which names none but a GPU."""
    return "gpu" if manifest.stain.device == "gpu" else "cpu"


def _on(device: Device | None, manifest: Manifest) -> Manifest:
    """The manifest with `auto` decided, where the device is a part of what the data set is."""
    if device is None or not manifest.stain.device_counts:
        return manifest
    return manifest.model_copy(update={"stain": manifest.stain.model_copy(update={"device": device})})


def _continued(
    url: str | Path,
    manifest: Manifest,
    versions: dict[str, str],
    overrides: Mapping[str, Override],
    content_id: str | None = None,
) -> Dataset:
    dataset = open_dataset(url, private=True)
    where = dataset.storage.url
    asked = manifest.stain.device
    manifest = _on(_begun_on(dataset.manifest) if asked == "auto" else None, manifest)
    changed = explain_difference(dataset.catalog.metadata.manifest, manifest.canonical())
    if changed:
        raise DatasetError(
            f"{where} was begun with another manifest: {', '.join(changed)} differ. "
            "Build into a new directory, or go back to the old settings."
        )
    if others := differing(dataset.catalog.rows, overrides):
        raise DatasetError(
            f"{where} was begun without these overrides of {others}. Build into a new directory, or without them."
        )
    if versions != dataset.versions:
        raise DatasetError(
            f"{where} was begun with other versions of the packages that touch pixels, in this environment: "
            f"{in_words(dataset.environment)}. Install those, or build into a new directory."
        )
    if content_id is not None and content_id != dataset.catalog.content_id:
        raise DatasetError(f"Another build began in {where} meanwhile with other slides; choose another one.")
    # A copy for people; the catalog itself holds the settings.
    text = yaml.safe_dump(dataset.catalog.metadata.manifest, sort_keys=False, allow_unicode=True)
    if dataset.storage.size(layout.MANIFEST) is None:
        dataset.storage.replace(layout.MANIFEST, text.encode())
    return replace(dataset, device=asked)


def _refuse_foreign(storage: Storage) -> None:
    """Not into a folder that holds something else, nor into one that cannot be written."""
    folder = storage.local
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise DatasetError(f"{folder} is not a directory.")
    ours = {layout.MANIFEST, "private", ".scratch"}
    if folder.is_dir() and any(entry.name not in ours for entry in folder.iterdir()):
        raise DatasetError(f"{folder} is not empty and holds no data set; choose another directory.")


def _check_parameters(after: Earlier, manifest: Manifest, versions: dict[str, str]) -> None:
    """Two data sets that a trainer takes as one hold patches made alike, and a patient's slides in one split."""
    changed = explain_difference(_parameters(after.manifest), _parameters(manifest))
    if changed:
        raise DatasetError(
            f"{after.url} was built with other parameters: {', '.join(changed)} differ. "
            "Take those of the earlier data set, or build without it."
        )
    if manifest.stain.plugged_in:
        theirs, ours = open_dataset(after.url).stain_identity, stain_identity(manifest, versions)
        if theirs != ours:
            raise DatasetError(
                f"{after.url} was built with the stain method `{manifest.stain.method}` {theirs}; here it is {ours}. "
                "Install that one, or build without the earlier data set."
            )


def _parameters(manifest: Manifest) -> dict[str, Any]:
    settings = manifest.content()
    # These decide whether a slide is set aside, not how its patches are made: to change them is what repair means.
    del settings["readers"], settings["quality"]["max_unreadable"]
    return settings
