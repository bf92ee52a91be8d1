"""Every measure of every run on held-out slides, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from exaone_train.collapse.measure import measure
from exaone_train.collapse.measured import Measured
from exaone_train.collapse.scene import Options
from exaone_train.collapse.table import FeatureTable
from reproduction.contrast import Estimate, difference, estimate
from reproduction.design import MACENKO, NONE, Look
from reproduction.tissue import tissue_probes

PRIMARY = "same_slide_knn"
"""The measure that the claim is judged by; all others are looked at besides."""

OPTIONS = Options(clustering_pairs=6, clustering_trials=3, clustering_patches=600)

UNTRAINED = "untrained"

Measures = dict[str, Measured]
QUESTIONS: dict[str, tuple[Look, Look]] = {
    "arms": (MACENKO.look, NONE.look),
    "training": (MACENKO.look, (NONE.name, MACENKO.shown)),
}
"""How the arms differ as they would be used; and what pre-training adds to that, all being shown normalised patches."""


def measures_of(table: FeatureTable) -> Measures:
    """Those of `exaone-train collapse` that can be had, and two of tissue where laboratories are known."""
    probes = {} if table.centre is None else tissue_probes(table, OPTIONS)
    return measure([table], OPTIONS).encoders[0].measures | probes


@dataclass(frozen=True)
class Findings:
    """What was measured.

    Attributes:
        looks: Per look, the measures of each seed, in the order of seeds.
        seeds: In order.
        slides: That were looked at.
        patches: On them.
    """

    looks: dict[Look, list[Measures]]
    seeds: tuple[int, ...]
    slides: int
    patches: int

    @property
    def keys(self) -> list[str]:
        """Measures that every run has, in order."""
        every = [run for runs in self.looks.values() for run in runs]
        return [key for key in every[0] if all(key in run for run in every)]

    def estimate(self, key: str, look: Look) -> Estimate:
        """A measure of one look."""
        return estimate([run[key] for run in self.looks[look]], self.slides)

    def difference(self, key: str, look: Look, other: Look) -> Estimate:
        """Of one look minus that of another."""
        runs, others = ([run[key] for run in self.looks[one]] for one in (look, other))
        return difference(runs, others, self.slides)

    def chance(self, key: str) -> float | None:
        """What features that know nothing get; it follows from the patches alone."""
        return next(iter(self.looks.values()))[0][key].chance

    def first(self, seeds: int) -> Findings:
        """The same of the first seeds alone."""
        return replace(self, looks={look: runs[:seeds] for look, runs in self.looks.items()}, seeds=self.seeds[:seeds])

    def beside(self, other: Findings) -> Findings:
        """With other looks at the same patches, of the same seeds."""
        return replace(self, looks=self.looks | other.looks)

    def to_json(self) -> dict[str, Any]:
        """Estimates of every look."""
        return {
            "slides": self.slides,
            "patches": self.patches,
            "seeds": list(self.seeds),
            "measures": {
                key: {
                    "chance": self.chance(key),
                    "looks": {" on ".join(look): self.estimate(key, look).to_json() for look in self.looks},
                }
                for key in self.keys
            },
        }


def look_at(looks: Sequence[Look], seeds: Sequence[int], table_of: Callable[[Look, int], FeatureTable]) -> Findings:
    """Measure.

    Args:
        looks: Which.
        seeds: Of each.
        table_of: Features of a look with a seed; all have the same rows.
    """
    found: dict[Look, list[Measures]] = {look: [] for look in looks}
    slides: set[str] = set()
    patches = 0
    for look in looks:
        for seed in seeds:
            table = table_of(look, seed)
            slides, patches = set(table.slide_id.tolist()), len(table)
            found[look].append(measures_of(table))
    return Findings(found, tuple(seeds), len(slides), patches)
