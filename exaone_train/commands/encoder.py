"""`exaone-train export` and `embed`: what a run is for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or one of its checkpoints.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    step: Annotated[int | None, typer.Option("--step", help="Of the checkpoint; by default the newest.")] = None,
) -> None:
    """Write the encoder by itself: safetensors and a configuration that timm loads."""
    from exaone_train.export import export as write

    encoder = write(run, out, step)
    sys.stdout.write(
        f"{encoder.name} after {encoder.step:,} steps, {encoder.parameters:,} parameters: "
        f'timm.create_model("local-dir:{out}", pretrained=True)\n'
    )


def embed(
    places: Annotated[list[str], typer.Argument(help="Data sets: directories or fsspec URLs.")],
    *,
    checkpoint: Annotated[Path, typer.Option("--checkpoint", help="An exported encoder, a run, or a checkpoint.")],
    out: Annotated[Path, typer.Option("--out", help="Parquet table to write.")],
    split: Annotated[str, typer.Option("--split", help="Of the data sets.")] = "train",
    per_slide: Annotated[
        int | None, typer.Option("--per-slide", min=1, help="At most so many samples of each slide.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images at a time.")] = 64,
    threads: Annotated[int, typer.Option("--threads", min=1, help="That decode.")] = 4,
    device: Annotated[str, typer.Option("--device", help="Of PyTorch; auto: a GPU if there is one.")] = "auto",
    skip_damaged: Annotated[bool, typer.Option("--skip-damaged", help="Leave damaged samples out.")] = False,
) -> None:
    """Write features of samples as a table, for `collapse` and for whatever else reads Parquet."""
    from exaone_train.embed import embed as write
    from exaone_train.encoder import load_encoder
    from exaone_train.shardset import open_shards

    rows = write(
        open_shards(places, split),
        load_encoder(checkpoint, device),
        out,
        per_slide=per_slide,
        batch_size=batch_size,
        threads=threads,
        on_damage="skip" if skip_damaged else "fail",
    )
    sys.stdout.write(f"features of {rows:,} samples in {out}\n")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("export")(export)
    app.command("embed")(embed)
