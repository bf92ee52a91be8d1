"""Outcomes of all slides, derived from catalog, survey and ledger; every slide of the catalog has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from exaone_prep import layout
from exaone_prep.dataset import Dataset, Earlier
from exaone_prep.errors import REMEDIES, DatasetError
from exaone_prep.ledger import GroupRecord, read_ledger
from exaone_prep.storage import read_all
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
SURVEY_COLUMNS: Final = ("slide_id", *(field.name for field in _FROM_SURVEY))
"""What outcomes are made from."""

STAIN_SCHEMA: Final = pa.schema(
    [SURVEY.field("slide_id"), SURVEY.field("cohort")]
    + [SURVEY.field(name) for name in SURVEY.names if name.startswith(("fit_", "stain_"))],
    metadata={"exaone_prep.format_version": str(layout.FORMAT_VERSION)},
)


def read_surveys(dataset: Dataset, records: Sequence[GroupRecord], columns: Sequence[str]) -> pa.Table:
    """Columns of the survey tables of the committed groups as one table, in the order of the groups.

    Groups committed by an earlier version lack columns that were added since: these are null there.
    """
    schema = pa.schema([SURVEY.field(name) for name in columns])
    paths = [layout.survey(record.group) for record in records]
    tables = [read_survey(data, columns) for data in read_all(dataset.storage, paths)]
    return pa.concat_tables([schema.empty_table(), *tables], promote_options="default").combine_chunks()


def outcomes_table(dataset: Dataset, surveys: pa.Table) -> pa.Table:
    """One row per slide of the catalog that has an outcome: committed ones and duplicates.

    Args:
        dataset: With its catalog.
        surveys: At least the columns `SURVEY_COLUMNS`.
    """
    rows = dataset.catalog.rows
    columns = {field.name: pa.array([getattr(row, field.name) for row in rows], field.type) for field in _FROM_CATALOG}
    place = pc.index_in(columns["slide_id"], value_set=surveys.column("slide_id"))
    # What is set aside before its group's turn has no row in a survey.
    problems = [row.problem if row.duplicate_of is not None else None for row in rows]
    aside = {
        "outcome": pa.array(["quarantined" if problem else None for problem in problems], pa.string()),
        "reason": pa.array([problem[0] if problem else None for problem in problems], pa.string()),
        "sentence": pa.array([problem[1] if problem else None for problem in problems], pa.string()),
    }
    for field in _FROM_SURVEY:
        found = surveys.column(field.name).take(place)
        nothing = aside[field.name] if field.name in aside else pa.scalar(None if field.nullable else 0, field.type)
        columns[field.name] = pc.if_else(pc.is_valid(place), found, nothing)
    whole = pa.table(columns)
    return whole.filter(pc.is_valid(whole.column("outcome"))).cast(OUTCOMES_SCHEMA)


def stain_table(surveys: pa.Table) -> pa.Table:
    """Stain fits of all surveyed slides, by id."""
    return surveys.select(STAIN_SCHEMA.names).sort_by("slide_id").cast(STAIN_SCHEMA)


def read_outcomes(dataset: Dataset) -> pa.Table:
    """Outcomes as far as the data set is built, from ledger and survey."""
    return outcomes_table(dataset, read_surveys(dataset, read_ledger(dataset.storage), SURVEY_COLUMNS))


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
    outcomes = read_outcomes(dataset)
    built = outcomes.filter(pc.not_equal(outcomes.column("outcome"), "quarantined"))
    finished = set(built.column("slide_id").to_pylist())
    return Earlier(
        url=dataset.storage.url,
        manifest=dataset.manifest,
        finished={row.slide_id: row.stamp for row in dataset.catalog.rows if row.slide_id in finished},
        id_key_check=dataset.catalog.metadata.id_key_check,
    )
