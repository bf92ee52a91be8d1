"""What encoders make of the held-out patches, with the truth about each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from exaone_train.collapse.table import FeatureTable, read_features
from exaone_train.config import Config
from exaone_train.config_file import load_config
from exaone_train.embed import embed
from exaone_train.encoder import Encoder, load_encoder
from exaone_train.model import Network
from exaone_train.shardset import open_shards
from reproduction.design import CONFIG, HELD_OUT, MPP, PATCH_PX, Arm, Places
from reproduction.slides import Truth


def untrained(places: Places, shown: str, seed: int) -> Encoder:
    """The encoder that a run of this seed begins with."""
    config = load_config(CONFIG, [f"run.seed={seed}"])
    shards = open_shards([str(places.data(shown))], HELD_OUT)
    return Encoder(fresh_weights(config), config=config, step=0, provenance=shards.provenance, device="cpu")


def fresh_weights(config: Config) -> dict[str, Tensor]:
    """Of the encoder of a run that has not made a step."""
    torch.manual_seed(config.run.seed)
    weights: dict[str, Tensor] = Network(config).encoder.state_dict()
    return weights


def trained(places: Places, arm: Arm, seed: int) -> Encoder:
    """The teacher's encoder at the end of a run."""
    return load_encoder(places.run(arm, seed), "cpu")


def held_out(places: Places, encoder: Encoder, shown: str, truth: Truth, out: Path) -> FeatureTable:
    """Features of all held-out patches of a data set, in the order of their keys; `centre` is the lab.

    Args:
        places: Where the data set lies.
        encoder: What looks at them.
        shown: Name of the data set.
        truth: Of the slides; `label` is the compartment that most of what the encoder sees belongs to.
        out: Parquet table to write, for `exaone-train collapse`.
    """
    embed(open_shards([str(places.data(shown))], HELD_OUT), encoder, out)
    table = read_features(out)
    if table.key is None or table.place is None:
        raise ValueError(f"{out} has no keys or no places")
    table = table.rows(np.argsort(table.key).astype(np.int64))
    return labelled(table, encoder.size_px, truth)


def labelled(table: FeatureTable, seen_px: int, truth: Truth) -> FeatureTable:
    """A table with the tissue in the middle of each patch, which is what an encoder sees of it."""
    if table.place is None:
        raise ValueError("without places nothing is known of the tissue")
    level = MPP / truth.mpp
    margin, side = (PATCH_PX - seen_px) / 2 * level, seen_px * level
    label = [
        truth.tissue(str(slide), round(x + margin), round(y + margin), round(side))
        for slide, (x, y) in zip(table.slide_id, table.place, strict=True)
    ]
    centre = [truth.labs[str(slide)] for slide in table.slide_id]
    return replace(table, label=np.array(label), centre=np.array(centre), patient_id=None)
