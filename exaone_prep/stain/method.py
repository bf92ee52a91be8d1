"""Stain methods of other packages: what one has to offer, how it is found, and who is to blame when it fails."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from exaone_prep.errors import DatasetError, ManifestError, PrepError
from exaone_prep.stain.batch import StainStatus

GROUP: Final = "exaone_prep.stain_methods"
"""Entry points of this group name a callable that takes `stain.options` and gives a `StainMethod`."""

BUILT_IN: Final = ("macenko", "none")
"""Names that no entry point can take."""


class StainMethodError(ValueError):
    """What a stain method raises where it cannot measure the stain of the pixels it was given; says why."""


class StainMethodDefectError(PrepError):
    """A stain method of another package did what no slide can be blamed for."""


class StainMethod(Protocol):
    """What another package has to offer; `docs/stain.md` has a whole one.

    One object serves many slides in any order, and another process must come to the same bytes: what comes out
    follows from the arguments alone, with the same bits on every CPU.
    """

    @property
    def version(self) -> str:
        """Changes with anything that changes a pixel."""

    def fit(self, pixels: NDArray[np.uint8]) -> dict[str, Any]:
        """Measure the stain.

        Args:
            pixels: uint8 RGB (N, 3), at least one; the method's own to change.

        Returns:
            What `normalize` needs, as values that JSON knows.

        Raises:
            ValueError: (`StainMethodError` is one) They do not show a stain; `on_failure` decides.
        """

    def normalize(self, patches: NDArray[np.uint8], fits: Sequence[dict[str, Any]]) -> NDArray[np.uint8]:
        """Normalise each patch with its fit; what becomes of one follows from no other.

        Args:
            patches: uint8 RGB (N, H, W, 3), at least one; the method's own to change.
            fits: One per patch, as `fit` gave them.

        Returns:
            uint8 RGB (N, H, W, 3).
        """


@dataclass(frozen=True, kw_only=True)
class MethodFit:
    """What came of a `StainMethod.fit`.

    Attributes:
        values: What it gave, None where it could not measure.
        sentence: Why it could not.
    """

    values: dict[str, Any] | None = None
    sentence: str = ""

    def to_text(self) -> str:
        """As JSON in ASCII, from which `from_text` gets the same bits back."""
        return json.dumps({"values": self.values, "sentence": self.sentence}, sort_keys=True, allow_nan=False)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read what `to_text` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True, kw_only=True)
class PluggedMethod:
    """A stain method of another package under supervision: it gives what a stain method has to give, or is named.

    Attributes:
        name: Of its entry point; what `stain.method` says.
        identity: Its version, with its package's.
        method: Itself.
    """

    name: str
    identity: str
    method: StainMethod

    def fit(self, pixels: NDArray[np.uint8]) -> MethodFit:
        """Measure the stain of pixels, uint8 (N, 3); not being able to is no error.

        Raises:
            StainMethodDefectError: It raised something else than ValueError, or gave what JSON does not know.
        """
        if not len(pixels):
            return MethodFit(sentence="there are no pixels to fit on")
        try:
            found = self.method.fit(pixels.copy())
        except ValueError as error:
            return MethodFit(sentence=str(error) or "it does not say why")
        except Exception as error:
            raise self._defect(f"`fit` raised {_said(error)}") from error
        if not isinstance(found, dict):
            raise self._defect(f"`fit` gave {_kind(found)}, not a dict")
        try:
            # By way of JSON, so that `normalize` is given the same whether or not the fit was stored in between.
            return MethodFit(values=json.loads(json.dumps(found, allow_nan=False)))
        except TypeError as error:
            raise self._defect(f"`fit` gave values that JSON does not know ({error})") from error
        except ValueError:
            return MethodFit(sentence="its numbers are not finite")

    def normalize(self, patches: NDArray[np.uint8], fits: Sequence[dict[str, Any]]) -> NDArray[np.uint8]:
        """Normalise patches, uint8 (N, H, W, 3), each with its fit; the array given may be overwritten.

        Raises:
            StainMethodDefectError: It raised anything, or gave something else than uint8 of the same shape.
        """
        shape = patches.shape
        try:
            done = self.method.normalize(patches, fits)
        except Exception as error:
            raise self._defect(f"`normalize` raised {_said(error)}") from error
        if not isinstance(done, np.ndarray) or done.dtype != np.uint8 or done.shape != shape:
            raise self._defect(f"`normalize` gave {_kind(done)} for uint8 {shape}")
        return done

    def finish(
        self, patches: Sequence[NDArray[np.uint8]], *, slide_fit: MethodFit, per_patch: bool, drop: bool
    ) -> Iterator[tuple[NDArray[np.uint8], StainStatus | None]]:
        """Normalise patches and say how each ended.

        Args:
            patches: uint8 (H, W, 3) each.
            slide_fit: Of their slide.
            per_patch: Whether each patch is fitted on its own pixels, and the slide's fit only tried where that fails.
            drop: Whether a patch without a fit is dropped; else it is kept as it is.

        Yields:
            The patches in order with their status, None for those to be dropped.
        """
        fits: list[dict[str, Any] | None] = []
        statuses: list[StainStatus | None] = []
        for patch in patches:
            own = self.fit(patch.reshape(-1, 3)) if per_patch else slide_fit
            values = own.values if own.values is not None else slide_fit.values
            fits.append(values)
            if values is None:
                statuses.append(None if drop else "kept")
            else:
                statuses.append("fitted" if own.values is not None else "fallback")
        chosen = [number for number, values in enumerate(fits) if values is not None]
        result = list(patches)
        if chosen:
            done = self.normalize(
                np.stack([patches[number] for number in chosen]), [values for values in fits if values is not None]
            )
            for number, patch in zip(chosen, done, strict=True):
                result[number] = patch
        yield from zip(result, statuses, strict=True)

    def _defect(self, what: str) -> StainMethodDefectError:
        return defect(self.name, self.identity, f"its {what}")


def defect(name: str, identity: str | None, what: str) -> StainMethodDefectError:
    """The sentence that blames a stain method."""
    method = f"`{name}` {identity}" if identity else f"`{name}`"
    return StainMethodDefectError(f"The stain method {method} is at fault: {what}. No slide is; mend or replace it.")


def plug_in(name: str, options: Mapping[str, Any], *, identity: str | None = None) -> PluggedMethod:
    """Find and make an installed stain method; once per process.

    Args:
        name: Of its entry point.
        options: Given to its callable as a copy, keys in order.
        identity: As the data set was begun with; None: any.

    Raises:
        ManifestError: It is not installed, brought by two packages, or cannot be made with these options.
        DatasetError: It is installed here, but in another version.
    """
    found = _made(name, json.dumps(dict(options), sort_keys=True, allow_nan=False))
    if identity is not None and identity != found.identity:
        raise DatasetError(
            f"The data set was begun with the stain method `{name}` {identity}; here it is {found.identity}. "
            "Install that one, or build into a new directory."
        )
    return found


def installed_methods() -> dict[str, list[EntryPoint]]:
    """Entry points of installed packages by name, those of the names built in left out."""
    points: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        if point.name not in BUILT_IN:
            points.setdefault(point.name, []).append(point)
    return {name: points[name] for name in sorted(points)}


@contextmanager
def at_work(marker: Path) -> Iterator[None]:
    """Leave a file while code of another package runs: it is still there if that took the process along."""
    marker.touch()
    try:
        yield
    finally:
        marker.unlink()


@lru_cache(maxsize=8)
def _made(name: str, options: str) -> PluggedMethod:
    point = _entry_point(name)
    package = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
    try:
        method = point.load()(json.loads(options))
    except Exception as error:
        raise ManifestError(
            f"stain.method: `{name}` of the package {package} cannot be made with these options: {_said(error)}."
        ) from error
    version = getattr(method, "version", None)
    if not isinstance(version, str) or not version:
        raise ManifestError(f"stain.method: `{name}` of the package {package} has no `version`, a text.")
    for part in ("fit", "normalize"):
        if not callable(getattr(method, part, None)):
            raise ManifestError(f"stain.method: `{name}` of the package {package} has no method `{part}`.")
    return PluggedMethod(name=name, identity=f"{version} ({package})", method=method)


def _entry_point(name: str) -> EntryPoint:
    points = installed_methods()
    if name not in points:
        known = [*BUILT_IN, *points]
        close = difflib.get_close_matches(name, known, n=1)
        raise ManifestError(
            f"stain.method: `{name}` is not installed here"
            + (f" (did you mean `{close[0]}`?)" if close else "")
            + f"; there are {', '.join(known)}. Install the package that brings it."
        )
    first, *others = points[name]
    if others:
        packages = ", ".join(sorted(point.dist.name if point.dist else point.value for point in points[name]))
        raise ManifestError(f"stain.method: `{name}` is brought by several packages ({packages}); keep one of them.")
    return first


def _said(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _kind(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
