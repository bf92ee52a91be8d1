"""Corrections of single slides: a table laid over the manifest, mostly a filled-in list of quarantined slides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from exaone_prep.catalog.catalog import CatalogRow
from exaone_prep.catalog.table import positive_mpp, read_rows
from exaone_prep.errors import ManifestError

CORRECTIONS: Final = ("mpp", "allow_non_he")
"""Columns that override; an empty cell overrides nothing."""
NOTES: Final = ("cohort", "reason", "sentence", "what_to_do")
"""Columns for people, as the dashboard's list of quarantined slides has them; passed over."""

_WORDS: Final = {"": None, "true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_NAMED: Final = 3


@dataclass(frozen=True, kw_only=True)
class Override:
    """Corrections of one slide; None where the manifest stands.

    Attributes:
        mpp: µm per pixel of level 0, before anything that cohort or file say.
        allow_non_he: Whether it is built though it does not look stained with H&E.
    """

    mpp: float | None = None
    allow_non_he: bool | None = None

    def over(self, row: CatalogRow) -> CatalogRow:
        """The row with these corrections."""
        return replace(
            row,
            mpp_override=row.mpp_override if self.mpp is None else self.mpp,
            allow_non_he=row.allow_non_he if self.allow_non_he is None else self.allow_non_he,
        )


def read_overrides(location: str, base: Path) -> dict[str, Override]:
    """Read a table with a column `slide_id`, as the data set shows ids, and at least one of `CORRECTIONS`.

    Args:
        location: CSV, TSV or Parquet: a path, relative to `base`, or a URL.
        base: Where relative paths start.

    Returns:
        By slide id; slides whose row corrects nothing are not in it.

    Raises:
        ManifestError: The table is missing, malformed, has other columns, or names a slide twice.
    """
    what = "The overrides table"
    _, columns, rows = read_rows(location, base, what=what)
    unknown = [name for name in columns if name not in ("slide_id", *CORRECTIONS, *NOTES)]
    if unknown:
        raise ManifestError(
            f"{what} {location} has a column `{unknown[0]}`, which overrides nothing; those that do are "
            f"{' and '.join(CORRECTIONS)}."
        )
    if "slide_id" not in columns or not set(CORRECTIONS) & set(columns):
        raise ManifestError(f"{what} {location} needs a column `slide_id` and one of {' and '.join(CORRECTIONS)}.")
    found: dict[str, Override] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{what} {location}, row {number}"
        word = row.get("allow_non_he", "").lower()
        if word not in _WORDS:
            raise ManifestError(f"{where}: `allow_non_he` is {word!r}; write true, false, or leave it empty.")
        override = Override(mpp=positive_mpp(row.get("mpp", ""), where), allow_non_he=_WORDS[word])
        if override == Override():
            continue
        if not row["slide_id"]:
            raise ManifestError(f"{where}: `slide_id` is empty.")
        if found.setdefault(row["slide_id"], override) is not override:
            raise ManifestError(f"{where}: slide {row['slide_id']} is there twice; keep one row.")
    return found


def corrected(
    rows: Sequence[CatalogRow], overrides: Mapping[str, Override], done_before: Mapping[str, str]
) -> list[CatalogRow]:
    """The rows with their corrections.

    Raises:
        ManifestError: A correction is of a slide that the manifest does not have, or that needs none.
    """
    unknown = sorted(set(overrides) - {row.slide_id for row in rows})
    if unknown:
        raise ManifestError(
            f"The overrides table names {_some(unknown)}, which the manifest does not have; ids are those of the data "
            "set, as in outcomes.parquet."
        )
    done = sorted(set(overrides) & set(done_before))
    if done:
        raise ManifestError(
            f"The overrides table names {_some(done)}, which the earlier data set has done; take it out of the table."
        )
    return [overrides[row.slide_id].over(row) if row.slide_id in overrides else row for row in rows]


def differing(rows: Sequence[CatalogRow], overrides: Mapping[str, Override]) -> str:
    """Slides of a frozen catalog that overrides would change, in words; empty if there is none.

    A slide that the catalog has not is one of them: a catalog never grows.
    """
    known = {row.slide_id: row for row in rows}
    return _some(
        sorted(
            slide for slide, own in overrides.items() if slide not in known or own.over(known[slide]) != known[slide]
        )
    )


def _some(slides: Sequence[str]) -> str:
    more = f" and {len(slides) - _NAMED} more" if len(slides) > _NAMED else ""
    return f"slide {', '.join(slides[:_NAMED])}{more}" if slides else ""
