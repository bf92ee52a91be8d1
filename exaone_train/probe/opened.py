"""The encoder that a person names."""

from __future__ import annotations

import importlib
from pathlib import Path

from exaone_train.errors import ProbeError
from exaone_train.probe.encoder import Encoder


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
