"""The survey table: one row per slide of a group, with its outcome."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from exaone_prep import layout
from exaone_prep.cut import DROP_REASONS, SlideCut
from exaone_prep.errors import SlideProblemError
from exaone_prep.parquet import read_parquet
from exaone_prep.shards.sample import STAIN_STATUSES
from exaone_prep.stain import FitDiagnostics, StainFit
from exaone_prep.stain.stain_fit import pair_of, stain_matrix_of
from exaone_prep.survey import SlideSurvey

Outcome = Literal["done", "empty", "quarantined"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("done", "empty", "quarantined")

SCHEMA: Final = pa.schema(
    [
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("cohort", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("sentence", pa.string()),
        pa.field("vendor", pa.string()),
        pa.field("reader", pa.string()),
        pa.field("width_px", pa.int64()),
        pa.field("height_px", pa.int64()),
        pa.field("levels", pa.int16()),
        pa.field("objective_power", pa.float64()),
        pa.field("mpp", pa.float64()),
        pa.field("mpp_source", pa.string()),
        pa.field("level", pa.int8()),
        pa.field("level_mpp", pa.float64()),
        pa.field("reduction", pa.int8()),
        pa.field("read_size_px", pa.int32()),
        pa.field("effective_mpp", pa.float64()),
        pa.field("footprint_px", pa.float64()),
        pa.field("icc_sha256", pa.string()),
        pa.field("properties", pa.map_(pa.string(), pa.string())),
        pa.field("tissue_mm2", pa.float64()),
        pa.field("tissue_threshold", pa.int16()),
        pa.field("planned", pa.int32(), nullable=False),
        pa.field("kept", pa.int32(), nullable=False),
        pa.field("kept_bytes", pa.int64(), nullable=False),
        *(pa.field(f"dropped_{reason}", pa.int32(), nullable=False) for reason in DROP_REASONS),
        *(pa.field(f"stain_{status}", pa.int32(), nullable=False) for status in STAIN_STATUSES),
        pa.field("fit_status", pa.string()),
        pa.field("fit_reason", pa.string()),
        pa.field("fit_haematoxylin", pa.list_(pa.float64(), 3)),
        pa.field("fit_eosin", pa.list_(pa.float64(), 3)),
        pa.field("fit_max_concentration", pa.list_(pa.float64(), 2)),
        pa.field("fit_angle_deg", pa.float64()),
        pa.field("fit_pixels", pa.int64()),
        pa.field("fit_pixels_kept", pa.int64()),
        pa.field("pixels", pa.string()),
        pa.field("jpeg_reduction", pa.int8()),
        pa.field("fit_method", pa.string()),
    ],
    metadata={"exaone_prep.format_version": str(layout.FORMAT_VERSION)},
)


def survey_row(
    survey: SlideSurvey, cohort: str, cut: SlideCut | None, problem: SlideProblemError | None
) -> dict[str, Any]:
    """What is known of a slide when its group is committed.

    Args:
        survey: Of the slide.
        cohort: Of the slide.
        cut: What came out of it, if it was cut.
        problem: Why it is quarantined, if it is.
    """
    choice = survey.choice
    outcome, sentence = _outcome(survey, cut, problem)
    return {
        "slide_id": survey.slide_id,
        "cohort": cohort,
        "outcome": outcome,
        "reason": problem.reason if problem else None,
        "sentence": sentence,
        "vendor": survey.vendor,
        "reader": survey.reader,
        "width_px": survey.width_px,
        "height_px": survey.height_px,
        "levels": survey.levels,
        "objective_power": survey.objective_power,
        "mpp": survey.mpp,
        "mpp_source": survey.mpp_source,
        "level": choice.level if choice else None,
        "level_mpp": choice.level_mpp if choice else None,
        "reduction": choice.reduction if choice else None,
        "read_size_px": choice.read_size_px if choice else None,
        "effective_mpp": choice.effective_mpp if choice else None,
        "footprint_px": choice.footprint_px if choice else None,
        "icc_sha256": survey.icc_sha256,
        "properties": list(survey.properties),
        "tissue_mm2": survey.tissue_mm2,
        "tissue_threshold": survey.tissue_threshold,
        "planned": survey.planned,
        "kept": cut.kept if cut else 0,
        "kept_bytes": cut.bytes if cut else 0,
        **{f"dropped_{reason}": cut.dropped[reason] if cut else 0 for reason in DROP_REASONS},
        **{f"stain_{status}": cut.statuses[status] if cut else 0 for status in STAIN_STATUSES},
        **fit_columns(survey.fit),
        "pixels": survey.pixels.pixels if survey.pixels else None,
        "jpeg_reduction": survey.pixels.jpeg_reduction if survey.pixels else None,
        "fit_method": survey.method_fit.to_text() if survey.method_fit else None,
    }


def fit_columns(fit: StainFit | None) -> dict[str, Any]:
    """A stain fit as columns."""
    matrix = fit.stain_matrix if fit else None
    return {
        "fit_status": fit.status if fit else None,
        "fit_reason": (fit.reason or None) if fit else None,
        "fit_haematoxylin": [row[0] for row in matrix] if matrix else None,
        "fit_eosin": [row[1] for row in matrix] if matrix else None,
        "fit_max_concentration": list(fit.max_concentration) if fit and fit.max_concentration else None,
        "fit_angle_deg": fit.diagnostics.angle_deg if fit else None,
        "fit_pixels": fit.diagnostics.n_pixels if fit else None,
        "fit_pixels_kept": fit.diagnostics.n_kept if fit else None,
    }


def fit_of(row: Mapping[str, Any]) -> StainFit | None:
    """The stain fit in the columns of a row, as `fit_columns` wrote it; eigenvalues are not kept there."""
    if row["fit_status"] is None:
        return None
    pairs = (row["fit_haematoxylin"], row["fit_eosin"])
    return StainFit(
        stain_matrix=None if None in pairs else stain_matrix_of(zip(*pairs, strict=True)),
        max_concentration=None if row["fit_max_concentration"] is None else pair_of(row["fit_max_concentration"]),
        diagnostics=FitDiagnostics(
            n_pixels=row["fit_pixels"], n_kept=row["fit_pixels_kept"], angle_deg=row["fit_angle_deg"]
        ),
        status=row["fit_status"],
        reason=row["fit_reason"] or "",
    )


def survey_parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    """The table as Parquet."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), sink, compression="zstd")
    return sink.getvalue()


def read_survey(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The table, or those of some columns that it has, from Parquet."""
    return read_parquet(data, columns)


def _outcome(
    survey: SlideSurvey, cut: SlideCut | None, problem: SlideProblemError | None
) -> tuple[Outcome, str | None]:
    if problem is not None:
        return "quarantined", str(problem)
    if cut is None:
        return "empty", "No patch of it holds enough tissue."
    if cut.kept == 0:
        causes = ", ".join(f"{count} {reason}" for reason, count in cut.dropped.items() if count)
        return "empty", f"None of its {survey.planned} planned patches passed: {causes}."
    return "done", None
