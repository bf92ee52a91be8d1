"""Outcomes of all slides, derived from catalog, survey and ledger; every slide of the catalog has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from exaone_prep import layout
from exaone_prep.dataset import Dataset, Earlier
from exaone_prep.errors import REMEDIES, DatasetError
from exaone_prep.ledger import GroupRecord, read_ledger
from exaone_prep.survey_table import SCHEMA as SURVEY
from exaone_prep.survey_table import read_survey

_FROM_CATALOG: Final = [
    pa.field("slide_id", pa.string(), nullable=False),
    pa.field("cohort", pa.string(), nullable=False),
    pa.field("patient_id", pa.string(), nullable=False),
    pa.field("split", pa.string(), nullable=False),
    pa.field("group", pa.int32(), nullable=False),
    pa.field("duplicate_of", pa.string()),
]
_FROM_SURVEY: Final = [
    SURVEY.field(name)
    for name in ("outcome", "reason", "sentence", "mpp", "mpp_source", "effective_mpp", "tissue_mm2", "planned", "kept")
] + [SURVEY.field(name) for name in SURVEY.names if name.startswith(("dropped_", "stain_"))]

OUTCOMES_SCHEMA: Final = pa.schema(
    [*_FROM_CATALOG, *_FROM_SURVEY], metadata={"exaone_prep.format_version": str(layout.FORMAT_VERSION)}
)
STAIN_SCHEMA: Final = pa.schema(
    [SURVEY.field("slide_id"), SURVEY.field("cohort")]
    + [SURVEY.field(name) for name in SURVEY.names if name.startswith(("fit_", "stain_"))],
    metadata={"exaone_prep.format_version": str(layout.FORMAT_VERSION)},
)


def survey_rows(dataset: Dataset, records: Sequence[GroupRecord]) -> dict[str, dict[str, Any]]:
    """Survey rows of the committed groups, by slide id."""
    return {
        row["slide_id"]: row
        for record in records
        for row in read_survey(dataset.storage.read(layout.survey(record.group))).to_pylist()
    }


def outcomes_table(dataset: Dataset, surveys: dict[str, dict[str, Any]]) -> pa.Table:
    """One row per slide of the catalog that has an outcome: committed ones and duplicates."""
    rows = []
    for row in dataset.catalog.rows:
        known = {field.name: getattr(row, field.name) for field in _FROM_CATALOG}
        if row.slide_id in surveys:
            found = surveys[row.slide_id]
            rows.append(known | {field.name: found[field.name] for field in _FROM_SURVEY})
        elif row.duplicate_of is not None:
            assert row.problem is not None
            nothing = {field.name: None if field.nullable else 0 for field in _FROM_SURVEY}
            reason, sentence = row.problem
            rows.append(known | nothing | {"outcome": "quarantined", "reason": reason, "sentence": sentence})
    return pa.Table.from_pylist(rows, schema=OUTCOMES_SCHEMA)


def stain_table(surveys: dict[str, dict[str, Any]]) -> pa.Table:
    """Stain fits of all surveyed slides."""
    # Groups committed by an earlier version lack columns that were added since.
    rows = [{name: surveys[slide_id].get(name) for name in STAIN_SCHEMA.names} for slide_id in sorted(surveys)]
    return pa.Table.from_pylist(rows, schema=STAIN_SCHEMA)


def read_outcomes(dataset: Dataset) -> pa.Table:
    """Outcomes as far as the data set is built, from ledger and survey."""
    return outcomes_table(dataset, survey_rows(dataset, read_ledger(dataset.storage)))


def cohort_rows(outcomes: pa.Table) -> list[dict[str, Any]]:
    """What became of the slides, one row per cohort: counts per outcome, and patches kept."""
    rows = outcomes.select(["cohort", "outcome", "kept"]).to_pylist()
    return [
        {
            "cohort": cohort,
            "slides": len(some),
            **{name: sum(row["outcome"] == name for row in some) for name in ("done", "empty", "quarantined")},
            "patches": sum(row["kept"] for row in some),
        }
        for cohort in sorted({row["cohort"] for row in rows})
        for some in [[row for row in rows if row["cohort"] == cohort]]
    ]


def quarantine_rows(outcomes: pa.Table) -> list[dict[str, str]]:
    """Slides that are set aside, with the reason, a sentence, and what to do."""
    return [
        {
            "slide": row["slide_id"],
            "cohort": row["cohort"],
            "reason": row["reason"],
            "sentence": row["sentence"],
            "what to do": REMEDIES[row["reason"]],
        }
        for row in outcomes.select(["slide_id", "cohort", "outcome", "reason", "sentence"]).to_pylist()
        if row["outcome"] == "quarantined"
    ]


def earlier(dataset: Dataset) -> Earlier:
    """A complete data set as one to be continued: what of it need not be built again.

    Raises:
        DatasetError: It is not complete.
    """
    if dataset.storage.size(layout.BUILD) is None:
        raise DatasetError(
            f"{dataset.storage.url} is not complete: which slides it leaves is known when its build has ended."
        )
    finished = {row["slide_id"] for row in read_outcomes(dataset).to_pylist() if row["outcome"] != "quarantined"}
    return Earlier(
        url=dataset.storage.url,
        manifest=dataset.manifest,
        finished={row.slide_id: row.stamp for row in dataset.catalog.rows if row.slide_id in finished},
        id_key_check=dataset.catalog.metadata.id_key_check,
    )
