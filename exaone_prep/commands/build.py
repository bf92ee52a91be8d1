"""`exaone-prep build`: freeze, build what is missing, publish; with bars for people and lines for logs."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from exaone_prep import control
from exaone_prep.build import LocalExecutor, missing_groups, run
from exaone_prep.dataset import Dataset, create_dataset, open_dataset
from exaone_prep.group import GroupBuilder
from exaone_prep.manifest import Manifest
from exaone_prep.outcomes import earlier
from exaone_prep.pool import WorkerPool
from exaone_prep.progress import Heartbeat, Progress
from exaone_prep.publish import clear_traces, publish, read_build
from exaone_prep.scratch import Scratch, sweep
from exaone_prep.stain.device import resolved

REFRESH_S: Final = 0.2
LINE_EVERY_S: Final = 30.0


def build_command(
    manifest: Manifest,
    *,
    base: Path,
    out: str,
    pool: WorkerPool,
    scratch: Path | None,
    scratch_limit_bytes: int | None,
    after: str | None,
) -> None:
    """Build a data set and say what came of it."""
    console = Console(stderr=True)
    if manifest.stain.method == "macenko":
        resolved(manifest.stain.device)
    before = earlier(open_dataset(after)) if after is not None else None
    with _stamping(console) as on_stamped:
        dataset = create_dataset(out, manifest, base=base, after=before, on_stamped=on_stamped)
    for warning in dataset.catalog.metadata.warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    if (summary := read_build(dataset.storage)) is not None:
        begun = f"{len(dataset.catalog.rows):,} slides that it was begun with"
        console.print(f"This data set is complete already, with the {begun}.", highlight=False)
        clear_traces(dataset.storage)
        sweep(scratch or default_scratch(dataset))
    else:
        summary = build_dataset(
            dataset, pool=pool, scratch=scratch, scratch_limit_bytes=scratch_limit_bytes, console=console
        )
    slides = summary["slides"]
    console.print(
        f"{summary['samples']:,} samples of {slides.get('done', 0):,} slides in {summary['shards']:,} shards; "
        f"{slides.get('empty', 0)} slides empty, {slides.get('quarantined', 0)} quarantined "
        f"(reasons in outcomes.parquet).",
        highlight=False,
        soft_wrap=True,
    )
    sys.stdout.write(f"{dataset.storage.url}\ndigest {summary['digest']}\n")


def build_dataset(
    dataset: Dataset,
    *,
    pool: WorkerPool,
    scratch: Path | None,
    console: Console,
    scratch_limit_bytes: int | None = None,
) -> dict[str, Any]:
    """Build the groups that are missing, one after the other on this machine, and publish."""
    if dataset.manifest.stain.method == "macenko":
        device = resolved(dataset.stain_device, by=f"{dataset.storage.url} was begun with stain.device: gpu")
        dataset = replace(dataset, device=device)
    groups = missing_groups(dataset)
    progress = Progress(groups=len(dataset.groups), groups_done=len(dataset.groups) - len(groups))

    def say(sentence: str) -> None:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    with Scratch(scratch or default_scratch(dataset), scratch_limit_bytes) as space:
        asked = control.Control(dataset.storage, control.new_builder())
        builder = GroupBuilder(dataset=dataset, pool=pool, scratch=space, progress=progress, say=say, control=asked)
        with (
            Heartbeat(dataset.storage, progress),
            _bars(console, progress),
            closing(builder),
        ):
            pool.say = say
            run(groups, LocalExecutor(builder), dataset)
        return publish(dataset, space)


def default_scratch(dataset: Dataset) -> Path:
    """Beside the shards, where there must be room for them anyway; for remote data sets in the temporary folder."""
    local = dataset.storage.local
    # Staged copies keep the names of their slides, which a data set with hashed ids must never hold.
    if local is None or dataset.names.hidden:
        return Path(tempfile.gettempdir()) / "exaone-prep"
    return local / ".scratch"


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
            where = f"group {progress.group}: {progress.stage}" if progress.group is not None else "slides"
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
            console.print(
                f"groups {progress.groups_done}/{progress.groups}, group {progress.group} {progress.stage}: "
                f"slides {progress.slides_done}/{progress.slides}, patches {progress.patches_done}/{progress.patches}",
                highlight=False,
                soft_wrap=True,
            )
