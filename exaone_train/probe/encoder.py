"""What an encoder has to offer to be probed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

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
