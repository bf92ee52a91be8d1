"""Charts as SVG by matplotlib, for a light or a dark page; Okabe and Ito's colours, and never by colour alone."""

from __future__ import annotations

import io
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from exaone_prep.dashboard.figures import Timeline
from exaone_prep.dashboard.stains import STAINS, Fits
from exaone_prep.stain import MACENKO_REFERENCE, Reference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Theme = Literal["light", "dark"]

BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
_SKY: Final = "#56B4E9"
_INK: Final = {"light": "#1c2026", "dark": "#e8eaed"}
_FAINT: Final = {"light": "#60666e", "dark": "#a9b0b8"}
_RULE: Final = {"light": "#d5d9de", "dark": "#3a4048"}
_FIRST: Final = {"light": BLUE, "dark": _SKY}
_SECOND: Final = {"light": VERMILION, "dark": ORANGE}
_DOTS: Final = 300
"""Slides of a cohort that are drawn as dots."""
_COHORTS: Final = 12
_lock = threading.Lock()


def progress_chart(line: Timeline, theme: Theme) -> bytes:
    """Patches over time, above, and patches per second, below."""
    with _figure(8.0, 3.6, theme, rows=2, sharex=True) as (figure, (above, below)):
        days = line.edges / 86_400
        above.fill_between(days, line.samples, color=_FIRST[theme], alpha=0.25, linewidth=0)
        above.plot(days, line.samples, color=_FIRST[theme], linewidth=2)
        above.set_ylabel("patches")
        below.stairs(line.rates, days, fill=True, color=_SECOND[theme], alpha=0.75)
        below.set_ylabel("patches/s")
        for axes in (above, below):
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(lambda value, _: _short(value))
        _time_axis(below)
        return _svg(figure)


def sizes_chart(bytes_: NDArray[np.int64], theme: Theme) -> bytes:
    """How many shards have which size."""
    with _figure(4.6, 2.6, theme) as (figure, (axes,)):
        axes.hist(bytes_ / 1e6, bins=min(40, max(5, len(bytes_) // 4)), color=_FIRST[theme])
        _whole(axes.yaxis)
        axes.set_xlabel("size of a shard, MB")
        axes.set_ylabel("shards")
        return _svg(figure)


def mixing_chart(found: Sequence[int], expected: Sequence[float], theme: Theme) -> bytes:
    """How many slides a shard holds, and how many it would by chance."""
    with _figure(4.6, 2.6, theme) as (figure, (axes,)):
        most = max([*found, *map(round, expected), 1])
        least = max(0, min([*found, *map(round, expected), most]) - 1)
        step = max(1, round((most - least) / 40))
        edges = [float(edge) - 0.5 for edge in range(least, most + 2 * step, step)]
        axes.hist(found, bins=edges, color=_FIRST[theme], label="found")
        axes.hist(
            expected, bins=edges, histtype="step", color=_SECOND[theme], linestyle="--", linewidth=2, label="by chance"
        )
        _whole(axes.xaxis)
        _whole(axes.yaxis)
        axes.set_xlabel("slides in a shard")
        axes.set_ylabel("shards")
        axes.legend(frameon=False)
        return _svg(figure)


def vectors_chart(fits: Fits, theme: Theme, reference: Reference = MACENKO_REFERENCE) -> bytes:
    """Fitted vectors per cohort, by their red and blue part; the reference's as crosses."""
    cohorts = np.array(fits.slides.column("cohort").to_pylist(), dtype=str)
    names, counts = np.unique(cohorts, return_counts=True)
    shown = sorted(names[np.argsort(-counts, kind="stable")][:_COHORTS].tolist())
    across = min(3, max(1, len(shown)))
    down = max(1, -(-len(shown) // across))
    with _figure(1.0 + 2.6 * across, 0.7 + 2.3 * down, theme, rows=down, columns=across, sharex=True, sharey=True) as (
        figure,
        panels,
    ):
        for axes, name in zip(panels, shown, strict=False):
            here = np.flatnonzero(cohorts == name)
            here = here[:: max(1, -(-len(here) // _DOTS))]
            for number, (marker, colour) in enumerate((("o", _FIRST[theme]), ("^", _SECOND[theme]))):
                red, _, blue = fits.vectors[number, here].T
                axes.scatter(
                    red, blue, s=26, marker=marker, color=colour, alpha=0.6, linewidths=0, label=STAINS[number]
                )
                target = [row[number] for row in reference.stain_matrix]
                axes.scatter(target[0], target[2], s=80, marker="+", color=_INK[theme], linewidths=2)
            axes.set_title(_clip(name), fontsize=10)
            axes.margins(0.15)
        for axes in panels[len(shown) :]:
            axes.set_visible(False)
        figure.supxlabel("red part of the vector", fontsize=9, color=_INK[theme])
        figure.supylabel("blue part", fontsize=9, color=_INK[theme])
        figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, loc="outside upper right", ncols=2)
        return _svg(figure)


def spread_chart(fits: Fits, theme: Theme) -> bytes:
    """Per cohort the spread of the angle between the stains and of both strengths."""
    cohorts = np.array(fits.slides.column("cohort").to_pylist(), dtype=str)
    names, counts = np.unique(cohorts, return_counts=True)
    shown = sorted(names[np.argsort(-counts, kind="stable")][:_COHORTS].tolist(), reverse=True)
    measures = (
        ("angle, degrees", fits.angle_deg, _FIRST[theme]),
        ("maxC haematoxylin", fits.max_concentration[:, 0], _FIRST[theme]),
        ("maxC eosin", fits.max_concentration[:, 1], _SECOND[theme]),
    )
    with _figure(8.0, 0.9 + 0.4 * len(shown), theme, columns=3, sharey=True) as (figure, panels):
        for axes, (title, values, colour) in zip(panels, measures, strict=True):
            axes.boxplot(
                [values[cohorts == name] for name in shown],
                orientation="horizontal",
                tick_labels=[_clip(name) for name in shown],
                widths=0.55,
                patch_artist=True,
                boxprops={"facecolor": colour, "alpha": 0.6, "edgecolor": _INK[theme]},
                medianprops={"color": _INK[theme], "linewidth": 2},
                whiskerprops={"color": _FAINT[theme]},
                capprops={"color": _FAINT[theme]},
                flierprops={"marker": ".", "markersize": 3, "markeredgecolor": _FAINT[theme]},
            )
            axes.set_title(title, fontsize=10)
        return _svg(figure)


@contextmanager
def _figure(
    width_in: float, height_in: float, theme: Theme, *, rows: int = 1, columns: int = 1, **share: bool
) -> Iterator[tuple[Figure, list[Any]]]:
    with _lock:  # settings of matplotlib are those of the whole process
        if not os.access(os.path.expanduser("~"), os.W_OK):  # noqa: PTH111
            os.environ.setdefault("MPLCONFIGDIR", tempfile.gettempdir())
        import matplotlib as mpl
        from matplotlib.figure import Figure

        style: dict[Any, Any] = {
            "svg.fonttype": "none",
            "svg.hashsalt": "exaone-prep",
            "font.family": ["sans-serif"],
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": _RULE[theme],
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": _RULE[theme],
            "grid.linewidth": 0.6,
            **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor"), _INK[theme]),
            **dict.fromkeys(("xtick.color", "ytick.color"), _FAINT[theme]),
        }
        with mpl.rc_context(style):
            figure = Figure(figsize=(width_in, height_in), layout="constrained")
            subplots: Any = figure.subplots
            yield figure, list(subplots(rows, columns, squeeze=False, **share).ravel())


def _svg(figure: Figure) -> bytes:
    sink = io.BytesIO()
    figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return sink.getvalue()


def _time_axis(axes: Any) -> None:
    """Days since 1970, which is what matplotlib counts in, as times."""
    dates: Any = import_module("matplotlib.dates")
    locator = dates.AutoDateLocator(maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    axes.set_xlabel("time, UTC")


def _whole(axis: Any) -> None:
    axis.get_major_locator().set_params(integer=True)


def _short(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"


def _clip(name: str) -> str:
    # A dollar sign would begin a formula.
    return (name if len(name) <= 24 else f"{name[:22]}…").replace("$", r"\$")
