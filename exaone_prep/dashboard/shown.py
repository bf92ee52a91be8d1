"""What the tables of the pages show: slides, those that are set aside, shards."""

from __future__ import annotations

from typing import Final

from exaone_prep.dashboard.table import Shown

SLIDES: Final = Shown(
    columns={
        "slide_id": "slide",
        "cohort": "cohort",
        "outcome": "outcome",
        "reason": "reason",
        "kept": "patches",
        "planned": "planned",
        "mpp": "µm/px",
        "mpp_source": "from",
        "tissue_mm2": "tissue mm²",
        "fit_angle_deg": "stain angle",
        "group": "group",
        "split": "split",
    },
    search=("slide_id", "patient_id", "cohort", "sentence"),
    filters=("outcome", "cohort", "reason", "split", "group"),
    sort="slide_id",
)
SET_ASIDE: Final = Shown(
    columns={"slide_id": "slide", "cohort": "cohort", "reason": "reason", "sentence": "what is wrong"},
    search=("slide_id", "patient_id", "sentence"),
    filters=("reason", "cohort"),
    sort="slide_id",
)
SHARDS: Final = Shown(
    columns={
        "shard": "shard",
        "split": "split",
        "group": "group",
        "samples": "samples",
        "bytes": "size",
        "slides": "slides in group",
    },
    search=("shard",),
    filters=("split", "group"),
    sort="shard",
)
