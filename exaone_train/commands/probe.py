"""`exaone-train probe`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def probe(
    tasks: Annotated[
        list[str],
        typer.Argument(help="TASK=FOLDER: pcam, mhist, crc100k, til, msi_crc, msi_stad, or folder for one's own."),
    ],
    encoder: Annotated[
        str, typer.Option("--encoder", help="What `export` made, a run, a checkpoint, or module:function.")
    ],
    catalog: Annotated[
        list[Path] | None,
        typer.Option("--catalog", help="catalog.parquet, or data set directory, that the encoder was trained on."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Pictures at once.")] = 64,
    resamples: Annotated[int, typer.Option("--resamples", min=10, help="Draws for intervals.")] = 1_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of held-out parts and draws.")] = 0,
    plot: Annotated[Path | None, typer.Option("--plot", help="Write accuracy over slides as SVG here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Evaluate a frozen encoder on downstream tasks with a linear probe, beside the published figures."""
    from rich.console import Console
    from rich.progress import Progress

    from exaone_train.probe.evaluate import evaluate
    from exaone_train.probe.leak import trained_on
    from exaone_train.probe.opened import open_encoder
    from exaone_train.probe.report import ProbeReport, accuracy_over_slides, table
    from exaone_train.probe.tasks import open_task

    opened = [open_task(task, seed) for task in tasks]
    frozen = open_encoder(encoder)
    known = trained_on(catalog) if catalog else None
    results = []
    with Progress(console=Console(stderr=True), transient=True) as bars:
        for task in opened:
            ids = {
                part: bars.add_task(f"{task.title}, {part}", total=len(getattr(task, part)))
                for part in ("train", "validation", "test")
            }
            result = evaluate(
                task,
                frozen,
                provenance=known,
                batch_size=batch_size,
                resamples=resamples,
                seed=seed,
                on_batch=_advance(bars, ids),
            )
            results.append(result)
    report = ProbeReport(name=frozen.name, parameters=frozen.parameters, slides=frozen.slides, results=results)
    if plot is not None:
        plot.parent.mkdir(parents=True, exist_ok=True)
        plot.write_text(accuracy_over_slides(report), encoding="utf-8")
    if as_json:
        for warning in (warning for result in results for warning in result.warnings):
            sys.stderr.write(f"warning: {warning}\n")
        sys.stdout.write(json.dumps(report.to_json(), allow_nan=False) + "\n")
    else:
        sys.stdout.write(table(report))


def _advance(bars: Progress, ids: dict[str, TaskID]) -> Callable[[str, int], None]:
    return lambda part, done: bars.update(ids[part], completed=done)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("probe")(probe)
