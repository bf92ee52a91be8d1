"""`exaone-train collapse`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def collapse(
    tables: Annotated[
        list[str], typer.Argument(help="Parquet tables of features, one of each encoder; NAME=PATH gives it a name.")
    ],
    k: Annotated[int, typer.Option("--k", min=1, help="Neighbours of the same-slide share.")] = 10,
    patches: Annotated[
        int | None, typer.Option("--patches", min=3, help="Look at so many patches at most, drawn by the seed.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything drawn.")] = 0,
    resamples: Annotated[int, typer.Option("--resamples", min=10, help="Draws of slides for intervals.")] = 1_000,
    page: Annotated[
        Path | None, typer.Option("--page", help="Write an HTML page with maps and neighbours here.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of pictures called by `key`, or of shards, for the page.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Measure how far features cluster by slide, centre and scanner instead of by tissue."""
    from exaone_train.collapse.measure import measure
    from exaone_train.collapse.scene import Options
    from exaone_train.collapse.table import read_features, subsample

    read = []
    for table in tables:
        name, named, path = table.rpartition("=")
        read.append(read_features(path, name if named else None))
    options = Options(k=k, patches=patches, seed=seed, resamples=resamples)
    report = measure(read, options)
    if page is not None:
        from exaone_train.collapse.page import page as drawn

        looked_at = [subsample(one, patches, seed) for one in read]
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(drawn(report, looked_at, images), encoding="utf-8")
    if as_json:
        sys.stdout.write(json.dumps(report.to_json(), allow_nan=False) + "\n")
    else:
        from exaone_train.collapse.text import text

        sys.stdout.write(text(report))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("collapse")(collapse)
