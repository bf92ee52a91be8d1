"""Normalising patches: which fit each gets, and what happens where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exaone_prep.stain.engine import Engine
from exaone_prep.stain.fitting import fit as fit_pixels
from exaone_prep.stain.numpy_engine import NumpyEngine
from exaone_prep.stain.reference import MACENKO_REFERENCE, Reference
from exaone_prep.stain.stain_fit import StainFit
from exaone_prep.stain.tables import correction, tables

StainStatus = Literal["fitted", "fallback", "kept", "none"]
"""`fitted`: with the fit that was asked for; `fallback`: with the slide's own in place of the patch's, or with the
reference's; `kept`: as it was; `none`: not normalised, because dropped."""

OnFailure = Literal["keep", "reference", "drop"]
Device = Literal["auto", "cpu"]

_TABLES_AT_ONCE: Final = 16


class _Choice(NamedTuple):
    fit: StainFit
    applied: StainFit | None
    status: StainStatus


@dataclass(frozen=True, kw_only=True)
class NormalizedBatch:
    """Patches after normalisation, in the order given.

    Attributes:
        patches: uint8 (N, H, W, 3). A dropped patch is still there, unchanged.
        status: One per patch.
        dropped: bool (N,): patches that `on_failure: drop` takes out.
        fits: The fit applied to each patch; where none was, the one that failed.
    """

    patches: NDArray[np.uint8]
    status: tuple[StainStatus, ...]
    dropped: NDArray[np.bool_]
    fits: tuple[StainFit, ...]


def normalize(
    patches: NDArray[np.uint8],
    *,
    fit: Literal["patch"] | StainFit | Sequence[StainFit],
    reference: Reference = MACENKO_REFERENCE,
    on_failure: OnFailure = "keep",
    slide_fit: StainFit | None = None,
    device: Device = "auto",
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
        device: `cpu`, or `auto` for the best there is.

    Returns:
        The patches with a status each; never NaN, whatever the pixels are.

    Raises:
        ValueError: If an argument has the wrong type, shape or length; never because of what the pixels show.
    """
    if patches.dtype != np.uint8 or patches.ndim != 4 or patches.shape[-1] != 3:
        raise ValueError(f"Patches must be uint8 (N, H, W, 3), not {patches.dtype} {patches.shape}.")
    if on_failure not in ("keep", "reference", "drop"):
        raise ValueError(f"on_failure must be keep, reference or drop, not {on_failure!r}.")
    engine = _engine(device)
    fallback = slide_fit if isinstance(fit, str) else None
    choices = [_choose(own, fallback, reference, on_failure) for own in _own_fits(patches, fit, engine)]
    result = patches.copy()
    _apply(patches, choices, reference, engine, result)
    return NormalizedBatch(
        patches=result,
        status=tuple(choice.status for choice in choices),
        dropped=np.array([choice.status == "none" for choice in choices], dtype=np.bool_),
        fits=tuple(choice.fit for choice in choices),
    )


def _engine(device: Device) -> Engine:
    if device not in ("auto", "cpu"):
        raise ValueError(f"The device must be auto or cpu, not {device!r}.")
    return NumpyEngine()


def _own_fits(
    patches: NDArray[np.uint8], fit: Literal["patch"] | StainFit | Sequence[StainFit], engine: Engine
) -> Sequence[StainFit]:
    if isinstance(fit, StainFit):
        return [fit] * len(patches)
    if isinstance(fit, str):
        if fit != "patch":
            raise ValueError(f"fit must be 'patch', a stain fit or one per patch, not {fit!r}.")
        return [fit_pixels(patch, engine=engine) for patch in patches]
    if len(fit) != len(patches):
        raise ValueError(f"There are {len(fit)} stain fits for {len(patches)} patches.")
    return fit


def _choose(own: StainFit, slide_fit: StainFit | None, reference: Reference, on_failure: OnFailure) -> _Choice:
    if own.status == "ok":
        return _Choice(own, own, "fitted")
    if slide_fit is not None and slide_fit.status == "ok":
        return _Choice(slide_fit, slide_fit, "fallback")
    if on_failure == "reference":
        return _Choice(reference.as_fit(), reference.as_fit(), "fallback")
    return _Choice(own, None, "none" if on_failure == "drop" else "kept")


def _apply(
    patches: NDArray[np.uint8],
    choices: Sequence[_Choice],
    reference: Reference,
    engine: Engine,
    out: NDArray[np.uint8],
) -> None:
    wanted: dict[StainFit, list[int]] = {}
    for index, choice in enumerate(choices):
        if choice.applied is not None:
            wanted.setdefault(choice.applied, []).append(index)
    fits = list(wanted)
    for start in range(0, len(fits), _TABLES_AT_ONCE):
        some = fits[start : start + _TABLES_AT_ONCE]
        for fit, table in zip(some, tables([correction(fit, reference) for fit in some]), strict=True):
            for index in wanted[fit]:
                engine.apply(patches[index], table, out[index])
