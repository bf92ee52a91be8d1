"""`exaone-train collapse`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from exaone_train.collapse.table import FeatureTable

CHECKPOINT = ".pt"


def collapse(
    tables: Annotated[
        list[str],
        typer.Argument(
            help="Parquet tables of features, one of each encoder; or, with --shards, exported encoders, runs or "
            "checkpoints; NAME=PATH gives one a name."
        ),
    ],
    shards: Annotated[
        list[str] | None, typer.Option("--shards", help="Data set that encoders look at: directory or URL; several.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Of the data sets.")] = "val",
    per_slide: Annotated[
        int | None, typer.Option("--per-slide", min=1, help="At most so many patches of each slide of them.")
    ] = None,
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
    from exaone_train.collapse.table import subsample

    read = [_features(table, shards or [], split, per_slide) for table in tables]
    options = Options(k=k, patches=patches, seed=seed, resamples=resamples)
    report = measure(read, options)
    if page is not None:
        from exaone_train.collapse.page import page as drawn

        looked_at = [subsample(one, patches, seed) for one in read]
        page.parent.mkdir(parents=True, exist_ok=True)
        local = next((Path(one) for one in shards or [] if Path(one).is_dir()), None)
        page.write_text(drawn(report, looked_at, images or local), encoding="utf-8")
    if as_json:
        sys.stdout.write(json.dumps(report.to_json(), allow_nan=False) + "\n")
    else:
        from exaone_train.collapse.text import text

        sys.stdout.write(text(report))


def _features(table: str, shards: list[str], split: str, per_slide: int | None) -> FeatureTable:
    """A table that is there, or that an encoder makes of shards."""
    from exaone_train.collapse.table import read_features
    from exaone_train.errors import FeatureError

    name, named, path = table.rpartition("=")
    place = Path(path)
    if not place.is_dir() and place.suffix != CHECKPOINT:
        return read_features(path, name if named else None)
    if not shards:
        raise FeatureError(f"{path} is no table of features: say by --shards what this encoder is to look at.")
    from exaone_train.embed import embed
    from exaone_train.encoder import load_encoder
    from exaone_train.shardset import open_shards

    with TemporaryDirectory() as folder:
        out = Path(folder) / "features.parquet"
        embed(open_shards(shards, split), load_encoder(place), out, per_slide=per_slide)
        return read_features(out, name if named else place.name)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("collapse")(collapse)
