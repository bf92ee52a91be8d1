"""What a flow leaves in Prefect when it ends: tables of outcomes, and a summary with a small picture."""

from __future__ import annotations

import base64
import io

from PIL import Image
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from exaone_prep import layout
from exaone_prep.dataset import Dataset
from exaone_prep.outcomes import cohort_rows, quarantine_rows, read_outcomes
from exaone_prep.publish import in_a_sentence, read_build
from exaone_prep.verify import Verification

PICTURE_PX = 640
MOST_SHOWN = 1000
MOST_PROBLEMS = 20


def show_outcomes(dataset: Dataset) -> None:
    """Two tables: outcomes per cohort, and slides that are set aside, with reasons and what to do."""
    outcomes = read_outcomes(dataset)
    create_table_artifact(cohort_rows(outcomes), key="cohorts", description="What became of the slides, per cohort.")
    aside = quarantine_rows(outcomes)
    about = "Slides that are set aside, and why."
    if len(aside) > MOST_SHOWN:
        about += f" The first {MOST_SHOWN:,} of {len(aside):,}; all are in outcomes.parquet."
    create_table_artifact(aside[:MOST_SHOWN], key="quarantine", description=about)


def show_verification(dataset: Dataset, result: Verification) -> None:
    """Key figures in Markdown, what a verification found, and the picture of the data set's card."""
    rows = {
        "place": f"`{dataset.storage.url}`",
        "digest": f"`{result.digest}`",
        "shards": f"{result.shards:,}",
        "bytes": f"{result.bytes:,}",
        "verified": f"{result.depth}, {len(result.problems)} problems",
    }
    lines = [f"# {dataset.manifest.name}", ""]
    build = read_build(dataset.storage)
    if build is not None:
        lines += [in_a_sentence(build), ""]
    lines += ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items()), ""]
    lines += [f"- {problem}" for problem in result.problems[:MOST_PROBLEMS]]
    picture = _picture(dataset)
    if picture is not None:
        lines += ["", f"![Slides, and patches before and after](data:image/jpeg;base64,{picture})"]
    create_markdown_artifact("\n".join(lines), key="summary", description="The data set, and its verification.")


def _picture(dataset: Dataset) -> str | None:
    try:
        data = dataset.storage.read(layout.CARD_PICTURE)
    except FileNotFoundError:  # a data set without a sample
        return None
    with Image.open(io.BytesIO(data)) as picture:
        picture.thumbnail((PICTURE_PX, PICTURE_PX))
        small = io.BytesIO()
        picture.save(small, "JPEG", quality=80)
    return base64.b64encode(small.getvalue()).decode()
