"""The data set card: key figures in Markdown, and a picture beside it."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
from PIL import Image

from exaone_prep import layout
from exaone_prep.dataset import Dataset
from exaone_prep.outcomes import cohort_rows
from exaone_prep.sheet import contact_sheet


def card(dataset: Dataset, summary: dict[str, Any], outcomes: pa.Table) -> tuple[str, bytes | None]:
    """The text of `README.md` and the JPEG it shows (None without a sample)."""
    manifest = dataset.manifest
    sheet = contact_sheet(dataset, slides=3)
    slides = summary["slides"]
    lines = [
        f"# {manifest.name}",
        "",
        f"{summary['samples']:,} patches of {manifest.patch.size_px}×{manifest.patch.size_px} px at "
        f"{manifest.patch.mpp:g} µm/px from {slides.get('done', 0):,} whole-slide images, in "
        f"{summary['shards']:,} WebDataset shards ({_size(summary['bytes'])}).",
        "",
    ]
    if sheet is not None:
        lines += [f"![Slides with their kept patches, and patches before and after]({layout.CARD_PICTURE})", ""]
    lines += [
        "| | |",
        "| --- | --- |",
        f"| digest | `{summary['digest']}` |",
        f"| content id | `{summary['content_id']}` |",
        f"| slides | {_counts(slides)} |",
        f"| planned patches | {summary['planned']:,} |",
        f"| dropped | {_counts(summary['dropped'])} |",
        f"| stain | {_method(dataset)}, fit per {manifest.stain.fit} |",
        f"| stain status of samples | {_counts(summary['stain_statuses'])} |",
        f"| channel mean | {_numbers(summary['channel_mean'])} |",
        f"| channel standard deviation | {_numbers(summary['channel_std'])} |",
        "",
        "| split | shards | samples | bytes |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {name} | {counts['shards']:,} | {counts['samples']:,} | {_size(counts['bytes'])} |"
            for name, counts in summary["splits"].items()
        ),
        "",
        "| cohort | slides | done | empty | quarantined | patches |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *_cohort_lines(outcomes),
        "",
        "Shards are read with webdataset, timm or plain `tarfile`; `index/` finds every patch by slide and "
        "position. `outcomes.parquet` says for every slide what became of it, and why.",
        "",
    ]
    return "\n".join(lines), _jpeg(sheet) if sheet is not None else None


def _method(dataset: Dataset) -> str:
    return " ".join(filter(None, (dataset.manifest.stain.method, dataset.stain_identity)))


def _cohort_lines(outcomes: pa.Table) -> list[str]:
    lines = []
    for row in cohort_rows(outcomes):
        cohort, *counts = row.values()
        lines.append(f"| {cohort} | {' | '.join(f'{count:,}' for count in counts)} |")
    return lines


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "none"


def _numbers(values: list[float] | None) -> str:
    return ", ".join(f"{value:.4f}" for value in values) if values else "-"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
