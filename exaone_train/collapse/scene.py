"""A table of features, ready to be measured: names as numbers, features of length 1, neighbours found once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from exaone_train.collapse.interval import Floats64, draws
from exaone_train.collapse.measured import AbsentError
from exaone_train.collapse.table import FeatureTable
from exaone_train.neighbours import Neighbours, nearest, unit

Ints = NDArray[np.int64]
Confounder = Literal["centre", "scanner"]


INDEX_K: tuple[int, ...] = (1, 3, 5, 7, 9, *range(11, 202, 10))
"""Candidates for the robustness index; PathoROB goes on to 600 and more, on data sets of its own size."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to measure.

    Attributes:
        k: Neighbours of `same_slide_knn` and of the same-centre and same-scanner shares.
        gap_k: Neighbours of `knn_gap`; PANDA-PLUS-Bench takes 5.
        index_k: Neighbours of the robustness index; None to choose them as PathoROB does.
        ratio_k: Neighbours of de Jong's index.
        resamples: Of slides, for intervals.
        seed: Of everything drawn.
        patches: At most so many are looked at; None for all.
        probe_patches: At most so many for each linear probe.
        clustering_patches: At most so many for each clustering.
        clustering_pairs: At most so many pairs of classes and centres are clustered.
        clustering_trials: Clusterings of each.
        clustering_most: Clusters, at most; PathoROB tries up to 30.
    """

    k: int = 10
    gap_k: int = 5
    index_k: int | None = None
    ratio_k: int = 50
    resamples: int = 1_000
    seed: int = 0
    patches: int | None = None
    probe_patches: int = 20_000
    clustering_patches: int = 1_000
    clustering_pairs: int = 12
    clustering_trials: int = 10
    clustering_most: int = 30


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What every measure looks at.

    Attributes:
        table: Features and names.
        options: How to measure.
    """

    table: FeatureTable
    options: Options
    _found: dict[bool, Neighbours] = field(default_factory=dict)

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """n×d, of length 1."""
        return unit(self.table.features)

    @cached_property
    def slide(self) -> Ints:
        """n; numbers of slides in the order of their names."""
        return np.unique(self.table.slide_id, return_inverse=True)[1].astype(np.int64)

    @cached_property
    def slide_names(self) -> tuple[str, ...]:
        """By number."""
        return tuple(str(name) for name in np.unique(self.table.slide_id))

    @property
    def slides(self) -> int:
        """How many."""
        return len(self.slide_names)

    @cached_property
    def per_slide(self) -> Ints:
        """Patches of each slide."""
        return np.bincount(self.slide, minlength=self.slides)

    @cached_property
    def weights(self) -> Floats64:
        """Resamples × slides: how often each is drawn."""
        return draws(self.slides, self.options.resamples, self.options.seed)

    def codes(self, column: Literal["label", "centre", "scanner", "patient_id"]) -> Ints | None:
        """N numbers for a column of names; None if the table has none or all are the same."""
        names = getattr(self.table, column)
        if names is None:
            return None
        known, numbers = np.unique(names, return_inverse=True)
        return numbers.astype(np.int64) if len(known) > 1 else None

    def need(self, column: Literal["label", "centre", "scanner"]) -> Ints:
        """The same numbers; raises `AbsentError` where they say nothing."""
        numbers = self.codes(column)
        if numbers is None:
            raise AbsentError(f"patches have no `{column}`, or all the same")
        return numbers

    def neighbours(self, k: int, *, other_slides: bool) -> Neighbours:
        """The k nearest patches of each, of any slide or of the others only."""
        known = self._found.get(other_slides)
        if known is None or known.index.shape[1] < min(k, len(self.table)):
            group = self.slide if other_slides else None
            most = max(k, self._most_others) if other_slides else k
            known = nearest(
                self.features, self.features, most, query_group=group, reference_group=group, themselves=True
            )
            self._found[other_slides] = known
        return Neighbours(index=known.index[:, :k], similarity=known.similarity[:, :k])

    @property
    def _most_others(self) -> int:
        """So many neighbours on other slides will be asked for in all, so that they are found once."""
        if self.table.label is None or (self.table.centre is None and self.table.scanner is None):
            return self.options.gap_k
        return max(self.options.ratio_k, self.options.gap_k, self.options.index_k or INDEX_K[-1])
