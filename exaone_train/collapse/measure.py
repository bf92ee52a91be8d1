"""All measures of one or several encoders, side by side, as one report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from exaone_train.collapse.clustering import clustering_score
from exaone_train.collapse.confounder import (
    group_probe,
    neighbour_ratio,
    robustness_index,
    same_group_knn,
    silhouette_group,
)
from exaone_train.collapse.interval import limits
from exaone_train.collapse.measured import AbsentError, Measured
from exaone_train.collapse.scene import Confounder, Options, Scene
from exaone_train.collapse.slide import knn_gap, same_slide_knn, silhouette_slide, slide_probe
from exaone_train.collapse.table import FeatureTable, subsample
from exaone_train.errors import FeatureError

CONFOUNDERS: tuple[Confounder, ...] = ("centre", "scanner")
BY_SLIDE: dict[str, Callable[[Scene], Measured]] = {
    "same_slide_knn": same_slide_knn,
    "slide_probe": slide_probe,
    "silhouette_slide": silhouette_slide,
    "knn_gap": knn_gap,
}
BY_CONFOUNDER: dict[str, Callable[[Scene, Confounder], Measured]] = {
    "same_{}_knn": same_group_knn,
    "{}_probe": group_probe,
    "silhouette_{}": silhouette_group,
    "robustness_index_{}": robustness_index,
    "neighbour_ratio_{}": neighbour_ratio,
    "clustering_score_{}": clustering_score,
}
MEASURES = (*BY_SLIDE, *(name.format(by) for by in CONFOUNDERS for name in BY_CONFOUNDER))
"""Keys of every measure, in the order of reports."""

FEW_SLIDES = 8
"""With fewer, an interval over slides is a rough guess."""


@dataclass(frozen=True, kw_only=True)
class EncoderReport:
    """What was measured of one encoder.

    Attributes:
        name: Of the encoder.
        patches: That were looked at.
        slides: They lie on.
        dimensions: Of a feature.
        measures: By key.
        absent: By key, why there is none.
    """

    name: str
    patches: int
    slides: int
    dimensions: int
    measures: dict[str, Measured]
    absent: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Encoders side by side.

    Attributes:
        encoders: In the order given.
        options: How they were measured.
        paired: Whether all tables hold the same patches of the same slides, so that differences have intervals.
    """

    encoders: tuple[EncoderReport, ...]
    options: Options
    paired: bool

    def difference(self, key: str, encoder: EncoderReport) -> tuple[float, float, float] | None:
        """Measure minus that of the first encoder, with the interval over the same draws of slides."""
        first = self.encoders[0]
        if not self.paired or encoder is first or key not in encoder.measures or key not in first.measures:
            return None
        one, other = encoder.measures[key], first.measures[key]
        return one.value - other.value, *limits(one.drawn - other.drawn)

    def to_json(self) -> dict[str, Any]:
        """Of plain values; figures that are no numbers are null."""
        return {
            "options": vars(self.options),
            "paired": self.paired,
            "encoders": {
                encoder.name: {
                    "patches": encoder.patches,
                    "slides": encoder.slides,
                    "dimensions": encoder.dimensions,
                    "measures": {key: self._measure(key, encoder) for key in encoder.measures},
                    "absent": encoder.absent,
                }
                for encoder in self.encoders
            },
        }

    def _measure(self, key: str, encoder: EncoderReport) -> dict[str, Any]:
        one = encoder.measures[key]
        low, high = one.interval
        written: dict[str, Any] = {"value": one.value, "low": low, "high": high, "chance": one.chance, **one.details}
        if (difference := self.difference(key, encoder)) is not None:
            written["difference"] = dict(zip(("value", "low", "high"), difference, strict=True))
        return dict(_plain(written))


def measure(tables: Sequence[FeatureTable], options: Options) -> Report:
    """Measure encoders side by side.

    Args:
        tables: One of each encoder.
        options: How.

    Raises:
        FeatureError: Nothing can be measured on a table, or two encoders have one name.
    """
    names = [table.name for table in tables]
    if len(set(names)) < len(names):
        raise FeatureError(f"Two tables of features have the same name: {', '.join(names)}; give others with `name=`.")
    looked_at = [subsample(table, options.patches, options.seed) for table in tables]
    return Report(
        encoders=tuple(_one(table, options) for table in looked_at), options=options, paired=_same_patches(looked_at)
    )


def _one(table: FeatureTable, options: Options) -> EncoderReport:
    if len(table) < 3:
        raise FeatureError(f"{table.name} has {len(table)} patches; at least three are needed to speak of neighbours.")
    scene = Scene(table=table, options=options)
    measures: dict[str, Measured] = {}
    absent: dict[str, str] = {}
    for key, measured in BY_SLIDE.items():
        try:
            measures[key] = measured(scene)
        except AbsentError as reason:
            absent[key] = str(reason)
    for by in CONFOUNDERS:
        for key, compared in BY_CONFOUNDER.items():
            try:
                measures[key.format(by)] = compared(scene, by)
            except AbsentError as reason:
                absent[key.format(by)] = str(reason)
    return EncoderReport(
        name=table.name,
        patches=len(table),
        slides=scene.slides,
        dimensions=table.features.shape[1],
        measures=measures,
        absent=absent,
    )


def _same_patches(tables: Sequence[FeatureTable]) -> bool:
    """Whether the rows of all tables lie on the same slides; of keys, too, if there are any."""
    first = tables[0]
    for other in tables[1:]:
        if not np.array_equal(first.slide_id, other.slide_id):
            return False
        if first.key is not None and other.key is not None and not np.array_equal(first.key, other.key):
            return False
    return len(tables) > 1


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value
