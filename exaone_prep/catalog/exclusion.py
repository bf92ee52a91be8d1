"""Patients and slides to keep out: those of downstream test sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from exaone_prep.catalog.glob import has_slide_suffix
from exaone_prep.catalog.identity import clean_id, stem_of
from exaone_prep.catalog.table import read_rows
from exaone_prep.errors import ManifestError


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """Clear ids to keep out."""

    patients: frozenset[str] = frozenset()
    slides: frozenset[str] = frozenset()

    def kept_out(self, patients: Mapping[str, str]) -> frozenset[str]:
        """Which of the slides to leave out, given the patient of each slide id (both clear)."""
        return frozenset(
            slide_id for slide_id, patient in patients.items() if slide_id in self.slides or patient in self.patients
        )


def read_exclusion(location: str, base: Path) -> Exclusion:
    """Read a table with a column `patient_id`, `slide_id` or both; an empty cell excludes nobody.

    A slide may be named by its id or by its file name.

    Raises:
        ManifestError: The table is missing, malformed, or has neither column.
    """
    _, columns, rows = read_rows(location, base, what="The exclude table")
    if not {"patient_id", "slide_id"} & set(columns):
        raise ManifestError(
            f"The exclude table {location} has neither a column `patient_id` nor `slide_id`; it has "
            f"{', '.join(columns) or 'none'}."
        )
    slides = {row["slide_id"] for row in rows if row.get("slide_id")}
    named = {stem_of(slide) for slide in slides if has_slide_suffix(slide)}
    return Exclusion(
        patients=frozenset(row["patient_id"] for row in rows if row.get("patient_id")),
        slides=frozenset(clean_id(slide) for slide in slides | named),
    )
