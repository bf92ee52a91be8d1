"""Normalising patches: which fit each gets, and what happens where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exaone_prep.stain.algebra import Matrix3
from exaone_prep.stain.device import Device, engine_for
from exaone_prep.stain.engine import Engine
from exaone_prep.stain.fitting import fit_loaded
from exaone_prep.stain.reference import MACENKO_REFERENCE, Reference
from exaone_prep.stain.stain_fit import StainFit
from exaone_prep.stain.tables import correction

StainStatus = Literal["fitted", "fallback", "kept", "none"]
"""`fitted`: with the fit that was asked for; `fallback`: with the slide's own in place of the patch's, or with the
reference's; `kept`: as it was; `none`: not normalised, because dropped."""

OnFailure = Literal["keep", "reference", "drop"]

_CHOICES_KEPT: Final = 16
_RUN: Final = 8
"""Patches per task of a thread, about."""


class Choice(NamedTuple):
    """What becomes of a patch.

    Attributes:
        fit: Applied, or the one that failed.
        correction: By it, None where the pixels stay.
        status: Of the patch; `none` where it is to be dropped.
    """

    fit: StainFit
    correction: Matrix3 | None
    status: StainStatus


@dataclass(frozen=True, kw_only=True)
class NormalizedBatch:
    """Patches after normalisation, in the order given.

    Attributes:
        patches: uint8 (N, H, W, 3). A dropped patch is still there, unchanged.
        status: One per patch.
        dropped: bool (N,): patches that `on_failure: drop` takes out.
        fits: The fit applied to each patch; where none was, the one that failed.
        sums: int64 (N, 6), `exaone_prep.channel_sums.count_channels` of each patch.
    """

    patches: NDArray[np.uint8]
    status: tuple[StainStatus, ...]
    dropped: NDArray[np.bool_]
    fits: tuple[StainFit, ...]
    sums: NDArray[np.int64]


def normalize(
    patches: NDArray[np.uint8],
    *,
    fit: Literal["patch"] | StainFit | Sequence[StainFit],
    reference: Reference = MACENKO_REFERENCE,
    on_failure: OnFailure = "keep",
    slide_fit: StainFit | None = None,
    device: Device = "auto",
    threads: int = 1,
    engine: Engine | None = None,
    out: NDArray[np.uint8] | None = None,
) -> NormalizedBatch:
    """Give patches the stain of the reference.

    Output is Io·exp(−S_ref·diag(maxC_ref/maxC)·pinv(S)·OD), truncated and clipped to 0–255, by table products whose
    bits are the same on every engine.

    Args:
        patches: uint8 RGB (N, H, W, 3).
        fit: `"patch"` to fit each patch on all its own pixels, or the fit of their slide, or one fit per patch.
        reference: The stain to give.
        on_failure: Where no fit is ok: keep the pixels, apply the reference's own fit, or flag the patch as dropped.
        slide_fit: With `fit="patch"`: tried where the patch's own fit failed, before `on_failure`.
        device: `cpu`, `gpu`, or `auto` for the best there is.
        threads: How many patches to work on at once. One where other processes use the other cores. A GPU takes as
            many as it is fed best by.
        engine: What does the work, in place of `device`'s choice; the pixels are the same with all.
        out: Where to put the patches, C-contiguous and of their shape; new memory by default, which costs more than
            the look-ups where it must first be fetched from the system.

    Returns:
        The patches with a status each; never NaN, whatever the pixels are.

    Raises:
        ManifestError: If a GPU is asked for and cannot be used.
        ValueError: If an argument has the wrong type, shape or length; never because of what the pixels show.
    """
    normalizer = Normalizer(
        fit=fit,
        reference=reference,
        on_failure=on_failure,
        slide_fit=slide_fit,
        device=device,
        threads=threads,
        engine=engine,
    )
    return normalizer(patches, out=out)


class Normalizer:
    """`normalize` prepared once for the batches to come; serves several threads at once."""

    def __init__(
        self,
        *,
        fit: Literal["patch"] | StainFit | Sequence[StainFit],
        reference: Reference = MACENKO_REFERENCE,
        on_failure: OnFailure = "keep",
        slide_fit: StainFit | None = None,
        device: Device = "auto",
        threads: int = 1,
        engine: Engine | None = None,
    ) -> None:
        """Prepare; see `normalize` for the arguments.

        Raises:
            ManifestError: If a GPU is asked for and cannot be used.
            ValueError: If an argument has no such value.
        """
        if on_failure not in ("keep", "reference", "drop"):
            raise ValueError(f"on_failure must be keep, reference or drop, not {on_failure!r}.")
        if isinstance(fit, str) and fit != "patch":
            raise ValueError(f"fit must be 'patch', a stain fit or one per patch, not {fit!r}.")
        if threads < 1:
            raise ValueError(f"At least one thread is needed, not {threads}.")
        self._engine = engine or engine_for(device)
        self._fit = fit
        self._slide_fit = slide_fit if fit == "patch" else None
        self._reference = reference
        self._on_failure: OnFailure = on_failure
        self._lanes = self._engine.lanes(threads)
        self._choice = lru_cache(_CHOICES_KEPT)(self._choose)
        self._always = self._choose(fit) if isinstance(fit, StainFit) else None

    def patches_at_once(self, size_px: int) -> int:
        """How many square patches are best given in one call: one on a CPU, hundreds on a GPU."""
        return self._engine.sets_at_once(size_px * size_px) * self._engine.lanes(1)

    def __call__(self, patches: NDArray[np.uint8], *, out: NDArray[np.uint8] | None = None) -> NormalizedBatch:
        """Give patches the stain of the reference; see `normalize`.

        Raises:
            ValueError: If an argument has the wrong type, shape or length.
        """
        if patches.dtype != np.uint8 or patches.ndim != 4 or patches.shape[-1] != 3:
            raise ValueError(f"Patches must be uint8 (N, H, W, 3), not {patches.dtype} {patches.shape}.")
        if out is not None and (out.dtype != np.uint8 or out.shape != patches.shape or not out.flags.c_contiguous):
            raise ValueError(f"out must be contiguous uint8 {patches.shape}, not {out.dtype} {out.shape}.")
        result = np.empty(patches.shape, dtype=np.uint8) if out is None else out
        sums = np.empty((len(patches), 6), dtype=np.int64)
        choices = self.write(patches, result, sums)
        return NormalizedBatch(
            patches=result,
            status=tuple([choice.status for choice in choices]),
            dropped=np.array([choice.status == "none" for choice in choices], dtype=np.bool_),
            fits=tuple([choice.fit for choice in choices]),
            sums=sums,
        )

    def write(self, patches: NDArray[np.uint8], result: NDArray[np.uint8], sums: NDArray[np.int64]) -> Sequence[Choice]:
        """The work of a call on arguments that are known to be right; what became of each patch."""
        n, n_pixels = len(patches), patches.shape[1] * patches.shape[2]
        given = self._given(n)
        sets, made = patches.reshape(n, n_pixels, 3), result.reshape(n, n_pixels, 3)
        size = self._engine.sets_at_once(n_pixels)
        parts = [slice(start, min(start + size, n)) for start in range(0, n, size)]
        if self._lanes > 1 and len(parts) > 1:
            # Runs of parts, since a part can be a single patch and a task has a price.
            run = max(1, min(_RUN // size, -(-len(parts) // self._lanes)))
            runs = [parts[start : start + run] for start in range(0, len(parts), run)]
            with ThreadPoolExecutor(self._lanes, thread_name_prefix="stain") as executor:
                done = list(executor.map(lambda parts: self._parts(parts, sets, given, made, sums), runs))
            return [choice for run_choices in done for choice in run_choices]
        return self._parts(parts, sets, given, made, sums)

    def _given(self, count: int) -> Sequence[Choice] | None:
        """What is applied to each patch, None where each is to be fitted first."""
        if self._always is not None:
            return [self._always] * count
        if isinstance(self._fit, StainFit | str):
            return None
        if len(self._fit) != count:
            raise ValueError(f"There are {len(self._fit)} stain fits for {count} patches.")
        return [self._choice(fit) for fit in self._fit]

    def _parts(
        self,
        parts: Sequence[slice],
        sets: NDArray[np.uint8],
        given: Sequence[Choice] | None,
        made: NDArray[np.uint8],
        sums: NDArray[np.int64],
    ) -> list[Choice]:
        choices: list[Choice] = []
        for part in parts:
            with self._engine.load(sets[part]) as loaded:
                if given is None:
                    chosen: Sequence[Choice] = [self._choose(own) for own in fit_loaded(loaded, sets.shape[1])]
                else:
                    chosen = given[part]
                loaded.apply([choice.correction for choice in chosen], made[part], sums[part])
            choices += chosen
        return choices

    def _choose(self, own: StainFit) -> Choice:
        """What becomes of a patch with this fit."""
        if own.status == "ok":
            return Choice(own, correction(own, self._reference), "fitted")
        if self._slide_fit is not None and self._slide_fit.status == "ok":
            return Choice(self._slide_fit, correction(self._slide_fit, self._reference), "fallback")
        if self._on_failure == "reference":
            fit = self._reference.as_fit()
            return Choice(fit, correction(fit, self._reference), "fallback")
        return Choice(own, None, "none" if self._on_failure == "drop" else "kept")
