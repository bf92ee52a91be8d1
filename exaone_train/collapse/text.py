"""The report as a table on the terminal."""

from __future__ import annotations

from exaone_train.collapse.measure import FEW_SLIDES, MEASURES, Report


def text(report: Report) -> str:
    """A row per measure, a column per encoder: the figure, its 95 % interval over slides, and its chance level."""
    columns = [["", *(one.name for one in report.encoders)]]
    for key in MEASURES:
        cells = []
        for one in report.encoders:
            if (got := one.measures.get(key)) is None:
                cells.append("–")
                continue
            low, high = got.interval
            chance = "" if got.chance is None else f"  chance {got.chance:.3f}"
            slides = got.details.get("slides", one.slides)
            of = "" if slides == one.slides else f"  on {slides} slides"
            cells.append(f"{got.value:6.3f} [{low:6.3f}, {high:6.3f}]{chance}{of}")
        if any(cell != "–" for cell in cells):
            columns.append([key, *cells])
    widths = [max(len(row[column]) for row in columns) for column in range(len(columns[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in columns]
    for one in report.encoders:
        few = ", few for intervals" if one.slides < FEW_SLIDES else ""
        lines.append(f"{one.name}: {one.patches:,} patches of {one.slides:,} slides{few}")
        for reason in dict.fromkeys(one.absent.values()):
            keys = ", ".join(key for key, why in one.absent.items() if why == reason)
            lines.append(f"  not measured: {keys}: {reason}")
    return "\n".join(lines) + "\n"
