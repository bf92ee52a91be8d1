"""From a manifest to its catalog: the only step that looks at where slides lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from exaone_prep.catalog.catalog import (
    CATALOG_FORMAT,
    NO_GROUP,
    SCHEMA,
    Catalog,
    CatalogMetadata,
    CatalogRow,
    content_id_of,
)
from exaone_prep.catalog.exclusion import Exclusion, read_exclusion
from exaone_prep.catalog.grouping import assign_groups, split_of
from exaone_prep.catalog.identity import (
    ID_KEY_VARIABLE,
    PatientSource,
    SlideFile,
    clear_ids,
    gather,
    hashed_id,
    patient_of,
    stem_of,
)
from exaone_prep.catalog.overrides import Override, corrected
from exaone_prep.catalog.place import why
from exaone_prep.catalog.private import PrivateRow, PrivateTable
from exaone_prep.catalog.sources import find_candidates
from exaone_prep.catalog.stamp import Stamp, stamp_slide
from exaone_prep.errors import ManifestError, UnreachableError
from exaone_prep.manifest import Cohort, Manifest

THREADS = 16
"""Stamps wait for storage, not for the processor."""
_NAMED = 3
_TELLING_CHARACTERS = 6

Patients = dict[str, tuple[str, PatientSource]]


def build_catalog(
    manifest: Manifest,
    *,
    base: Path,
    versions: Mapping[str, str],
    key: bytes | None,
    environment: Mapping[str, Any] | None = None,
    done_before: Mapping[str, str] | None = None,
    overrides: Mapping[str, Override] | None = None,
    on_stamped: Callable[[int, int], None] | None = None,
) -> tuple[Catalog, PrivateTable | None]:
    """Find, name, stamp, split and group the slides of a manifest.

    Args:
        manifest: What to build.
        base: The folder of the manifest, where relative paths start.
        versions: Of the packages that touch pixels, by name.
        key: For hashed ids (`privacy.slide_ids: hash`), from `id_key_from_environment`; else unused.
        environment: Of this process, for messages; recorded, but part of no content id.
        done_before: Content stamps, by slide id, of slides that an earlier data set has finished: they are left out,
            and copies of them under other ids are duplicates.
        overrides: Corrections of single slides, by slide id.
        on_stamped: Called after each slide with how many are stamped and how many there are.

    Returns:
        The catalog, and with hashed ids the table that belongs into `private/`.

    Raises:
        ManifestError: Patterns without slides, bad tables, colliding ids, no key, nothing left, a slide that was
            done before with other content, or a correction of a slide that is not there.
        UnreachableError: Slides or folders that cannot be read now; with hashed ids it names only hashed ids once they
            are known.
    """
    hashing_key = _hashing_key(manifest, key)
    cohorts = {cohort.name: cohort for cohort in manifest.cohorts}
    found = clear_ids(gather(find_candidates(manifest.cohorts, base), threads=THREADS))
    patients = {clear: patient_of(slide, cohorts[slide.cohort].patient_regex) for clear, slide in found.items()}
    _check_extra(found, patients, hidden=hashing_key is not None)
    exclusion = read_exclusion(manifest.exclude, base) if manifest.exclude is not None else Exclusion()
    kept_out = exclusion.kept_out({clear: patient for clear, (patient, _) in patients.items()})
    slides = {clear: slide for clear, slide in found.items() if clear not in kept_out}
    if not slides:
        raise ManifestError("The exclude table keeps out every slide of the manifest; nothing is left to build.")
    ids = _ids(slides, patients, hashing_key)
    ordered = sorted(slides, key=lambda clear: ids[clear][0])
    stamps = _stamp_all(
        [slides[clear] for clear in ordered], [ids[clear][0] for clear in ordered], hashing_key, on_stamped
    )
    rows = [
        _row(slides[clear], cohorts[slides[clear].cohort], ids[clear], patients[clear][1], stamp, manifest, hashing_key)
        for clear, stamp in zip(ordered, stamps, strict=True)
    ]
    rows = corrected(rows, overrides or {}, done_before or {})
    fresh = _not_done(rows, done_before or {})
    done_count = len(rows) - len(fresh)
    rows = _grouped(_with_duplicates(fresh, done_before or {}), manifest)
    metadata = CatalogMetadata(
        format_version=CATALOG_FORMAT,
        versions=dict(sorted(versions.items())),
        excluded={
            "patients": len({patients[clear][0] for clear in kept_out}),
            "slides": len(kept_out),
            "done_before": done_count,
        },
        warnings=_warnings(manifest, exclusion, kept_out, rows),
        manifest=manifest.canonical(),
        environment=dict(environment or {}),
        id_key_check=hashed_id("key", "", hashing_key) if hashing_key is not None else "",
    )
    content_id = content_id_of(manifest.content(), rows, versions)
    private = None
    if hashing_key is not None:
        kept = {row.slide_id for row in rows}
        private = PrivateTable(
            rows=tuple(
                PrivateRow(slide_id=ids[clear][0], clear_id=clear, uri=slides[clear].uri, patient=patients[clear][0])
                for clear in ordered
                if ids[clear][0] in kept
            )
        )
    return Catalog(rows=tuple(rows), content_id=content_id, metadata=metadata), private


def _hashing_key(manifest: Manifest, key: bytes | None) -> bytes | None:
    if manifest.privacy.slide_ids == "name":
        return None
    if not key:
        raise ManifestError(
            f"`privacy.slide_ids: hash` needs a secret key: set the environment variable {ID_KEY_VARIABLE}, to the "
            "same value for every build that shall use the same ids."
        )
    return key


def _ids(slides: Mapping[str, SlideFile], patients: Patients, key: bytes | None) -> dict[str, tuple[str, str]]:
    """Slide id and patient id as the data set shows them, by clear slide id."""
    if key is None:
        return {clear: (clear, patients[clear][0]) for clear in slides}
    ids = {clear: (hashed_id("slide", clear, key), hashed_id("patient", patients[clear][0], key)) for clear in slides}
    if len({slide_id for slide_id, _ in ids.values()}) < len(ids):
        raise ManifestError(f"Two slides have one hashed id by chance; choose another {ID_KEY_VARIABLE}.")
    return ids


def _stamp_all(
    slides: Sequence[SlideFile],
    ids: Sequence[str],
    key: bytes | None,
    on_stamped: Callable[[int, int], None] | None,
) -> list[Stamp]:
    stamps: list[Stamp] = []
    failed: list[tuple[str, OSError]] = []
    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        for number, (slide, outcome) in enumerate(zip(slides, pool.map(_try_stamp, slides), strict=True), start=1):
            if isinstance(outcome, Stamp):
                stamps.append(outcome)
            else:
                failed.append((ids[number - 1] if key is not None else slide.uri, outcome))
            if on_stamped is not None:
                on_stamped(number, len(slides))
    if failed:
        named = "; ".join(f"{name} ({why(error)})" for name, error in failed[:_NAMED])
        more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        raise UnreachableError(
            f"{len(failed)} of {len(slides)} slides cannot be read: {named}{more}; mend access and run the "
            "command again."
        ) from (failed[0][1] if key is None else None)
    return stamps


def _try_stamp(slide: SlideFile) -> Stamp | OSError:
    try:
        return stamp_slide(slide.uri, md5=slide.row.md5 if slide.row else None, members=slide.members)
    except OSError as error:
        return error


def _row(
    slide: SlideFile,
    cohort: Cohort,
    ids: tuple[str, str],
    patient_source: PatientSource,
    stamp: Stamp,
    manifest: Manifest,
    key: bytes | None,
) -> CatalogRow:
    slide_id, patient_id = ids
    return CatalogRow(
        slide_id=slide_id,
        cohort=cohort.name,
        patient_id=patient_id,
        patient_source=patient_source,
        split=split_of(patient_id, manifest.splits, seed=manifest.seed),
        group=NO_GROUP,
        stamp=stamp.text,
        size_bytes=stamp.size_bytes,
        uri=slide.uri if key is None else None,
        mpp_override=slide.row.mpp_um if slide.row else None,
        cohort_mpp=cohort.mpp,
        mpp_if_missing=cohort.mpp_if_missing,
        allow_non_he=cohort.allow_non_he,
        problem=stamp.problem,
        extra=dict(slide.row.extra) if slide.row else {},
    )


def _not_done(rows: Sequence[CatalogRow], done: Mapping[str, str]) -> list[CatalogRow]:
    result = []
    for row in rows:
        before = done.get(row.slide_id)
        if before is None:
            result.append(row)
        elif before != row.stamp and before.partition(":")[0] == row.stamp.partition(":")[0]:
            raise ManifestError(
                f"Slide {row.slide_id} was done in the earlier data set with other content; restore it, take it out, "
                "or give it another id (`slide_id` in a table)."
            )
    if not result:
        raise ManifestError("Every slide of the manifest was done in the earlier data set; nothing is left to build.")
    return result


def _with_duplicates(rows: Sequence[CatalogRow], done: Mapping[str, str]) -> list[CatalogRow]:
    first = {stamp: slide_id for slide_id, stamp in sorted(done.items(), reverse=True)}
    result = []
    for row in rows:
        original = row.slide_id if row.problem else first.setdefault(row.stamp, row.slide_id)
        if original != row.slide_id:
            sentence = f"It has the same content as slide {original}, which is in the data instead."
            row = replace(row, duplicate_of=original, problem=("duplicate", sentence))
        result.append(row)
    return result


def _grouped(rows: Sequence[CatalogRow], manifest: Manifest) -> list[CatalogRow]:
    splits = {row.slide_id: row.split for row in rows if row.duplicate_of is None}
    groups = assign_groups(splits, slides_per_group=manifest.shards.slides_per_group, seed=manifest.seed)
    return [replace(row, group=groups.get(row.slide_id, NO_GROUP)) for row in rows]


def _warnings(
    manifest: Manifest, exclusion: Exclusion, kept_out: frozenset[str], rows: Sequence[CatalogRow]
) -> tuple[str, ...]:
    result = []
    for cohort in manifest.cohorts:
        sources = [row.patient_source for row in rows if row.cohort == cohort.name]
        alone = sources.count("slide")
        if alone:
            result.append(
                f"Cohort {cohort.name}: {alone} of {len(sources)} slides have no known patient, so each counts as a "
                "patient of its own and one person may be in two splits; give `patient_regex`, or `patient_id` in a "
                "table."
            )
    if manifest.exclude is not None and not kept_out:
        result.append(
            f"The exclude table keeps nothing out: none of its {len(exclusion.patients)} patients and "
            f"{len(exclusion.slides)} slides is in the manifest; check that ids are written the same way."
        )
    return tuple(result)


def _check_extra(found: Mapping[str, SlideFile], patients: Patients, *, hidden: bool) -> None:
    for clear, slide in found.items():
        for column, value in (slide.row.extra if slide.row else {}).items():
            where = f"Cohort {slide.cohort}: the column `{column}` of the table"
            if column in SCHEMA.names:
                raise ManifestError(f"{where} has the name of a column of the catalog; rename it.")
            if hidden and _tells(value, {clear, stem_of(slide.name), slide.name, slide.uri, patients[clear][0]}):
                raise ManifestError(
                    f"{where} holds a clear name of a slide or patient, which hashed ids are to hide; take it out."
                )


def _tells(value: str, clear_names: set[str]) -> bool:
    return any(value == name or (len(name) >= _TELLING_CHARACTERS and name in value) for name in clear_names)
