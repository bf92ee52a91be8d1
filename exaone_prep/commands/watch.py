"""`exaone-prep status --watch`: the figures of the dashboard on a terminal, until the data set is complete."""

from __future__ import annotations

import time
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from exaone_prep.dashboard import words
from exaone_prep.dashboard.figures import Figures, figures_of
from exaone_prep.dashboard.source import REFRESH_S, Source
from exaone_prep.dashboard.view import View, Worker
from exaone_prep.dataset import open_dataset

LINE_EVERY_S: Final = 30.0
"""Where nobody looks at a terminal."""
_MOST_WORKERS: Final = 20


def watch_command(url: str, *, console: Console | None = None) -> None:
    """Show how far a data set is, again and again; ends when it is complete.

    Raises:
        DatasetError: There is none.
    """
    console = console or Console()
    open_dataset(url)
    source = Source(url)
    view = source.load()
    if not console.is_terminal:
        while view is not None:
            console.print(line_of(_figures(view)), highlight=False, soft_wrap=True)
            if view.state == "complete":
                return
            time.sleep(LINE_EVERY_S)
            view = source.view()
        return
    with Live(console=console, auto_refresh=False) as live:
        while view is not None:
            live.update(screen_of(view, source.trouble), refresh=True)
            if view.state == "complete":
                return
            time.sleep(REFRESH_S + 0.1)
            view = source.view()


def _figures(view: View) -> Figures:
    return figures_of([view], view.committed.slides, time.time())


def line_of(figures: Figures) -> str:
    """The figures on one line, for logs."""
    return (
        f"{figures.state}: groups {figures.groups['done']:,}/{figures.groups['total']:,}, patches {figures.samples:,}, "
        f"{words.number(figures.patches_per_s, 1)} patches/s now, {words.number(figures.mean_patches_per_s, 1)} on "
        f"average, time left {words.duration(figures.eta_s)}"
    )


def screen_of(view: View, trouble: str = "") -> RenderableType:
    """The figures, and what each builder is at."""
    figures = _figures(view)
    facts = Table.grid(padding=(0, 2))
    facts.add_row("", ProgressBar(total=max(1, figures.groups["total"]), completed=figures.groups["done"], width=60))
    for name, value in _facts(figures):
        facts.add_row(Text(name, style="dim"), Text(value))
    parts: list[RenderableType] = [
        Text.assemble((view.name, "bold"), "  ", (figures.state, "bold"), f"  {words.when(view.read_at)}"),
        facts,
    ]
    if view.workers:
        table = Table("builder", "seen", "group", "stage", "slides", "patches", box=None, header_style="dim")
        for worker in view.workers[:_MOST_WORKERS]:
            table.add_row(*map(Text, _cells(worker)))
        parts.append(table)
    if len(view.workers) > _MOST_WORKERS:
        parts.append(Text(f"and {len(view.workers) - _MOST_WORKERS:,} more builders"))
    if trouble:
        parts.append(Text(f"Not up to date: {trouble}", style="yellow"))
    return Group(*parts)


def _facts(figures: Figures) -> list[tuple[str, str]]:
    groups = figures.groups
    facts = [
        ("groups", f"{groups['done']:,} of {groups['total']:,}"),
        ("", f"{groups['running']:,} running, {groups['failed']:,} failed so far, {groups['waiting']:,} waiting"),
        ("slides", ", ".join(f"{count:,} {name}" for name, count in figures.slides.items())),
        ("patches", f"{figures.samples:,} in {figures.shards:,} shards, {words.size(figures.bytes)}"),
        (
            "patches/s",
            f"{words.number(figures.patches_per_s, 1)} now, {words.number(figures.mean_patches_per_s, 1)} on average",
        ),
        ("time left", words.duration(figures.eta_s)),
        ("attempts", f"{figures.attempts_failed:,} failed"),
    ]
    if figures.free_bytes is not None:
        facts.append(("free disk", f"{words.size(figures.free_bytes)}, {words.size(figures.needed_bytes)} to come"))
    return facts


def _cells(worker: Worker) -> tuple[str, ...]:
    seen = f"{words.duration(worker.age_s)} ago" + ("" if worker.alive else ", silent")
    if worker.group is None:
        return worker.name, seen, "", f"driver: {worker.stage or 'no group yet'}", "", ""
    return (
        worker.name,
        seen,
        str(worker.group),
        worker.stage,
        f"{worker.slides_done:,} of {worker.slides:,}",
        f"{worker.patches_done:,} of {worker.patches:,}" if worker.patches else f"{worker.patches_done:,}",
    )
