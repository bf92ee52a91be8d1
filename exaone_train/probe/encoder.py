"""What an encoder has to offer to be probed."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from exaone_train.errors import ProbeError

Rgb = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Encoder(Protocol):
    """A frozen encoder of patches.

    Attributes:
        name: For tables.
        parameters: How many it has.
        slides: It was trained on; None if that is not known.
        provenance: Patient or slide ids of its training data; None if it does not say.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def parameters(self) -> int: ...  # noqa: D102
    @property
    def slides(self) -> int | None: ...  # noqa: D102
    @property
    def provenance(self) -> Collection[str] | None: ...  # noqa: D102

    def normalise(self, images: Rgb) -> Rgb:
        """Patches n×h×w×3 stained as the encoder's training data was; themselves if it was not normalised."""
        ...

    def embed(self, images: Rgb) -> Floats:
        """Features n×d of patches n×224×224×3; scaling and means of channels are the encoder's affair."""
        ...


def open_encoder(place: str) -> Encoder:
    """An encoder of a run of this package, or from `module:function`, where the function takes nothing and returns one.

    Args:
        place: A folder that `exaone-train export` made, a run, a checkpoint, or module:function.

    Raises:
        CheckpointError: The folder or file holds none.
        ProbeError: There is no such module or function, or what it returns is no encoder.
    """
    if Path(place).exists():
        from exaone_train.probe.exported import Exported

        return Exported(place)
    module, colon, name = place.partition(":")
    if not colon or not module or not name:
        raise ProbeError(f"The encoder {place!r} is not there, and is not written as module:function.")
    try:
        made = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise ProbeError(f"The encoder {place!r} needs a module that is not installed: {error.name}.") from error
    except AttributeError as error:
        raise ProbeError(f"The module {module} has no function {name}.") from error
    encoder = made()
    needed = ("name", "parameters", "slides", "provenance", "normalise", "embed")
    if missing := [attribute for attribute in needed if not hasattr(encoder, attribute)]:
        raise ProbeError(f"What {place} returns is no encoder: it lacks {', '.join(missing)}.")
    return encoder  # type: ignore[no-any-return]
