"""The stain's step of the cut: patches as read to patches as they are kept, by the method of the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exaone_prep import stain
from exaone_prep.channel_sums import count_channels
from exaone_prep.manifest import Manifest
from exaone_prep.shards.sample import StainStatus
from exaone_prep.stain.method import MethodFit, at_work, plug_in
from exaone_prep.survey import load_method_fit, method_at_work


class Finished(NamedTuple):
    """A patch as it is kept.

    Attributes:
        patch: uint8 (size, size, 3).
        status: None where it is to be dropped.
        sums: int64 (6,), by `count_channels`.
    """

    patch: NDArray[np.uint8]
    status: StainStatus | None
    sums: NDArray[np.int64]


_PLUGGED_IN: Final = 16
"""Patches given to a method of another package at once: enough to pay for a call."""


class StainStep:
    """Normalises the patches of one slide."""

    def __init__(
        self,
        manifest: Manifest,
        *,
        reference: stain.Reference,
        fit: stain.StainFit,
        device: stain.Device,
        pictures: Path,
        identity: str | None,
    ) -> None:
        """Prepare for a slide.

        Args:
            manifest: The settings.
            reference: The stain to normalise to.
            fit: The slide's own, from the survey.
            device: What normalises.
            pictures: File that the survey left; a method that is plugged in finds its fit there.
            identity: The version that such a method must have; None: any.

        Raises:
            ManifestError: There is no such device here.
        """
        self._settings = manifest.stain
        self._pictures = pictures
        self._identity = identity
        self._normalizer: stain.Normalizer | None = None
        self._made, self._sums = np.empty(0, dtype=np.uint8), np.empty(0, dtype=np.int64)
        self.patches_at_once = _PLUGGED_IN if self._settings.plugged_in else 1
        if self._settings.method == "macenko":
            self._normalizer = stain.Normalizer(
                fit="patch" if self._settings.fit == "patch" else fit,
                reference=reference,
                on_failure=self._settings.on_failure,
                slide_fit=fit,
                device=device,
            )
            self.patches_at_once = self._normalizer.patches_at_once(manifest.patch.size_px)

    def finish(self, raw: Sequence[NDArray[np.uint8]]) -> list[Finished]:
        """Normalise up to `patches_at_once` patches, uint8 (size, size, 3); valid until the next call.

        Raises:
            DatasetError, StainMethodDefectError: See `plug_in` and `PluggedMethod.finish`.
        """
        if self._settings.plugged_in:
            return self._plugged_in(raw)
        if self._normalizer is None:
            return [Finished(patch, "none", count_channels(patch)) for patch in raw]
        # One patch is not copied, and its place is used again: it stays in the cache on its way to the encoder.
        patches = raw[0][None] if len(raw) == 1 else np.stack(raw)
        if self._made.shape != patches.shape:
            self._made, self._sums = np.empty(patches.shape, np.uint8), np.empty((len(patches), 6), np.int64)
        chosen = self._normalizer.write(patches, self._made, self._sums)
        return [
            Finished(self._made[number], None if choice.status == "none" else choice.status, self._sums[number])
            for number, choice in enumerate(chosen)
        ]

    def _plugged_in(self, raw: Sequence[NDArray[np.uint8]]) -> list[Finished]:
        with at_work(method_at_work(self._pictures)):
            method = plug_in(self._settings.method, self._settings.options, identity=self._identity)
            done = method.finish(
                raw,
                slide_fit=self._method_fit,
                per_patch=self._settings.fit == "patch",
                drop=self._settings.on_failure == "drop",
            )
            return [Finished(patch, status, count_channels(patch)) for patch, status in done]

    @cached_property
    def _method_fit(self) -> MethodFit:
        return load_method_fit(self._pictures)
