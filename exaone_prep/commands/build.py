"""`exaone-prep build`: freeze, build what is missing, publish; with bars for people and lines for logs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from exaone_prep.build import Watch
from exaone_prep.catalog.overrides import read_overrides
from exaone_prep.dataset import Dataset, create_dataset, open_dataset
from exaone_prep.manifest import Manifest
from exaone_prep.outcomes import earlier
from exaone_prep.progress import Heartbeat, Progress
from exaone_prep.publish import clear_traces, in_a_sentence, read_build
from exaone_prep.scratch import sweep
from exaone_prep.site import Site, build_missing

REFRESH_S: Final = 0.2
LINE_EVERY_S: Final = 30.0


def build_command(
    manifest: Manifest, *, base: Path, out: str, site: Site, after: str | None, overrides: str | None = None
) -> None:
    """Build a data set and say what came of it."""
    console = Console(stderr=True)
    site.check(manifest)
    corrections = read_overrides(overrides, Path.cwd()) if overrides is not None else None
    before = earlier(open_dataset(after)) if after is not None else None
    with _stamping(console) as on_stamped:
        dataset = create_dataset(out, manifest, base=base, after=before, overrides=corrections, on_stamped=on_stamped)
    for warning in dataset.catalog.metadata.warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    if (summary := read_build(dataset.storage)) is not None:
        begun = f"{len(dataset.catalog.rows):,} slides that it was begun with"
        console.print(f"This data set is complete already, with the {begun}.", highlight=False)
        clear_traces(dataset.storage)
        sweep(site.scratch_root(dataset))
    else:
        summary = build_dataset(dataset, site, console)
    console.print(in_a_sentence(summary), highlight=False, soft_wrap=True)
    sys.stdout.write(f"{dataset.storage.url}\ndigest {summary['digest']}\n")


def build_dataset(dataset: Dataset, site: Site, console: Console) -> dict[str, Any]:
    """Build the groups that are missing, and publish, with bars or lines."""
    progress = Progress()

    def say(sentence: str) -> None:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    with Heartbeat(dataset.storage, progress), _bars(console, progress):
        return build_missing(dataset, site, progress, Watch(say=say))


@contextmanager
def _stamping(console: Console) -> Iterator[Callable[[int, int], None]]:
    with Bars(*_columns(), console=console, transient=True) as bars:
        task = bars.add_task("catalog: slides stamped", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def _bars(console: Console, progress: Progress) -> Iterator[None]:
    """Show progress until the block ends: bars on a terminal, a line now and then elsewhere."""
    ended = threading.Event()
    target = _draw if console.is_terminal else _print_lines
    thread = threading.Thread(target=target, args=(console, progress, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _columns() -> tuple[TextColumn, BarColumn, MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn]:
    return (
        TextColumn("{task.description:32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


def _draw(console: Console, progress: Progress, ended: threading.Event) -> None:
    with Bars(*_columns(), console=console) as bars:
        groups = bars.add_task("groups", total=progress.groups)
        slides = bars.add_task("slides", total=None)
        patches = bars.add_task("patches", total=None)
        stage = None
        while True:
            if stage != (progress.group, progress.stage):
                stage = (progress.group, progress.stage)
                bars.reset(patches)
            bars.update(groups, completed=progress.groups_done)
            where = f"group {progress.group}: {progress.stage}" if progress.group is not None else progress.stage
            bars.update(slides, completed=progress.slides_done, total=progress.slides or None, description=where)
            bars.update(patches, completed=progress.patches_done, total=progress.patches or None)
            if ended.wait(REFRESH_S):
                bars.update(groups, completed=progress.groups_done)
                return


def _print_lines(console: Console, progress: Progress, ended: threading.Event) -> None:
    last = time.monotonic()
    while not ended.wait(REFRESH_S):
        if time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            console.print(_line(progress), highlight=False, soft_wrap=True)


def _line(progress: Progress) -> str:
    groups = f"groups {progress.groups_done}/{progress.groups}"
    if progress.group is None:  # they are built elsewhere
        return f"{groups}, {progress.stage}" if progress.stage else groups
    return (
        f"{groups}, group {progress.group} {progress.stage}: slides {progress.slides_done}/{progress.slides}, "
        f"patches {progress.patches_done}/{progress.patches}"
    )
