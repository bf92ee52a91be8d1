"""Slides that are set aside, and the table that a person fills in to mend them."""

from __future__ import annotations

import csv
import io
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from exaone_prep.catalog.overrides import CORRECTIONS, NOTES
from exaone_prep.dashboard.figures import counts_of
from exaone_prep.errors import REMEDIES

_BEGIN_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")


def quarantined(slides: pa.Table) -> pa.Table:
    """Those of the slides (`Committed.slides`) that are set aside."""
    return slides.filter(pc.equal(slides.column("outcome"), "quarantined"))


def reasons(some: pa.Table) -> list[dict[str, Any]]:
    """How many per reason, the most frequent first, and what to do about each."""
    found = sorted(counts_of(some.column("reason")).items(), key=lambda one: (-one[1], one[0]))
    return [
        {"reason": reason, "slides": count, "remedy": REMEDIES.get(reason, "")}  # type: ignore[call-overload]
        for reason, count in found
    ]


def as_csv(some: pa.Table) -> str:
    """The slides as a table that `build --overrides` takes, once the cells that override are filled in."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(["slide_id", *CORRECTIONS, *NOTES])
    for row in some.select(["slide_id", "cohort", "reason", "sentence"]).to_pylist():
        notes = (row["cohort"], row["reason"], row["sentence"], REMEDIES.get(row["reason"], ""))
        writer.writerow([row["slide_id"], *("" for _ in CORRECTIONS), *map(_harmless, notes)])
    return sink.getvalue()


def _harmless(text: str | None) -> str:
    """Text that a spreadsheet takes for text."""
    return f"'{text}" if text and text.startswith(_BEGIN_FORMULAS) else text or ""
