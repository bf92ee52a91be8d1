"""Results of one's own encoder beside the published ones: a table, JSON, and accuracy over slides as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from exaone_train.charts import Point, named_points
from exaone_train.probe.evaluate import TaskResult
from exaone_train.probe.published import TABLE, TASKS, TITLES
from exaone_train.probe.scores import Score


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """An encoder on some of the tasks.

    Attributes:
        name: Of the encoder.
        parameters: It has.
        slides: It was trained on, or None.
        results: Of the tasks that were there.
    """

    name: str
    parameters: int
    slides: int | None
    results: Sequence[TaskResult]

    @property
    def mean(self) -> float | None:
        """Mean top-1 over the six tasks; None unless all are there."""
        top1 = {result.key: result.linear["top1"].value for result in self.results}
        return sum(top1[key] for key in TASKS) / len(TASKS) if set(TASKS) <= set(top1) else None

    def to_json(self) -> dict[str, Any]:
        """Of plain values."""
        return {
            "encoder": {"name": self.name, "parameters": self.parameters, "slides": self.slides},
            "tasks": {result.key: result.to_json() for result in self.results},
            "mean_top1": self.mean,
            "published": [asdict(row) for row in TABLE],
        }


def table(report: ProbeReport) -> str:
    """The published table with a row for one's own encoder, its scores in full, and what to warn of."""
    own = {result.key: result for result in report.results}
    rows = [["top-1, linear", *TITLES, "mean", "parameters", "slides"]]
    for row in TABLE:
        parameters = "" if row.parameters_m is None else f"{row.parameters_m:,.0f} M"
        slides = "" if row.slides is None else f"{row.slides:,}"
        rows.append([row.name, *map(_figure, row.top1), _figure(row.mean), parameters, slides])
    figures = [
        f"{own[key].linear['top1'].value:.3f}{'' if own[key].comparable else '*'}" if key in own else "–"
        for key in TASKS
    ]
    slides = "" if report.slides is None else f"{report.slides:,}"
    rows.append([report.name, *figures, _own_mean(report), f"{report.parameters / 1e6:,.1f} M", slides])
    lines = [_aligned(rows), ""]
    detail = [["task", "probe", "top-1", "balanced accuracy", "AUROC", "decay", "test"]]
    for result in report.results:
        for probe, judged in (("linear", result.linear), ("k-NN", result.knn)):
            cells = [_with_interval(score) for score in judged.values()]
            test = f"{result.pictures['test']:,} pictures" + (
                ""
                if result.unit == "image"
                else f" of {result.units:,} {result.unit}{'s' if result.units != 1 else ''}"
            )
            decay = f"{result.decay:g}" if probe == "linear" else ""
            detail.append([result.title, probe, *cells, decay, test if probe == "linear" else ""])
    lines.append(_aligned(detail))
    said = [f"* {warning}" for result in report.results for warning in result.warnings]
    said += [note for result in report.results for note in result.notes]
    if said:
        lines += ["", *said]
    return "\n".join(lines) + "\n"


def accuracy_over_slides(report: ProbeReport) -> str:
    """Mean top-1 over the number of slides, as SVG; one's own encoder only with all six tasks and its slides known."""
    points = [
        Point(name=row.name, x=row.slides, y=row.mean)
        for row in TABLE
        if row.slides is not None and row.mean is not None
    ]
    if report.mean is not None and report.slides:
        points.append(Point(name=report.name, x=report.slides, y=report.mean, own=True))
    return named_points(
        points,
        title="Mean top-1 accuracy of linear evaluation over slides trained on",
        x_title="whole-slide images trained on",
        y_title="mean top-1 of six tasks",
    )


def _own_figure(result: TaskResult | None) -> str:
    """With a star where there is something to warn of."""
    return "–" if result is None else f"{result.linear['top1'].value:.3f}{'' if result.comparable else '*'}"


def _with_interval(score: Score) -> str:
    if score.value != score.value:
        return "–"
    return f"{score.value:.3f}" + (f" [{score.low:.3f}, {score.high:.3f}]" if score.low == score.low else "")


def _own_mean(report: ProbeReport) -> str:
    careful = any(not result.comparable for result in report.results if result.key in TASKS)
    return f"{_figure(report.mean)}{'*' if careful and report.mean is not None else ''}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) if number == 0 else cell.rjust(width)
                  for number, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    )  # fmt: skip
