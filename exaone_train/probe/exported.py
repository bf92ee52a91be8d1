"""An encoder of a run of this package, as the probe asks for one."""

from __future__ import annotations

from typing import Any

import numpy as np

from exaone_train.encoder import Encoder, load_encoder
from exaone_train.errors import ProbeError
from exaone_train.probe.encoder import Floats, Rgb
from exaone_train.probe.macenko import BUILT_IN, PatchNormaliser, Stain


class Exported:
    """Shows pictures to the encoder as the patches of its shards were: in their stain.

    Attributes:
        name: Of the architecture, with the number of steps.
        parameters: How many it has.
        slides: It was trained on.
        provenance: None: an encoder names data sets, not patients; `--catalog` does.
    """

    provenance = None

    def __init__(self, place: str, device: str = "auto") -> None:
        """Load it; see `exaone_train.encoder.load_encoder`.

        Raises:
            CheckpointError: There is none.
            ProbeError: Its shards were normalised by a method that is not known here.
        """
        self._encoder: Encoder = load_encoder(place, device)
        self._normalise = _normaliser(self._encoder.provenance["stain"])
        self.name = f"{self._encoder.name}, {self._encoder.step:,} steps"
        self.parameters, self.slides = self._encoder.parameters, self._encoder.slides

    def normalise(self, images: Rgb) -> Rgb:
        """Patches n×h×w×3 in the stain of the shards; themselves if those were not normalised."""
        return images if self._normalise is None else self._normalise(images)

    def embed(self, images: Rgb) -> Floats:
        """Features n×d."""
        return self._encoder.embed(images)


def _normaliser(stain: dict[str, Any]) -> PatchNormaliser | None:
    """From the section `stain` of the manifest that shards were built with."""
    if stain["method"] == "none":
        return None
    if stain["method"] != "macenko":
        raise ProbeError(
            f"The encoder's shards were normalised by the method {stain['method']!r}, which the probe does not know: "
            "give a module:function that normalises so."
        )
    reference = stain["reference"]
    if reference == "macenko":
        return PatchNormaliser(reference=BUILT_IN)
    vectors, concentration = (np.array(reference[name]) for name in ("stain_matrix", "max_concentration"))
    return PatchNormaliser(reference=Stain(vectors=vectors, concentration=concentration))
