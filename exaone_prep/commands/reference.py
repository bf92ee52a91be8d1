"""`exaone-prep stain-reference`: fit the stain of target images, to normalise to."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from exaone_prep import stain
from exaone_prep.errors import ManifestError


def reference_command(images: Sequence[Path], *, name: str, out: Path) -> None:
    """Fit one stain on all pixels of the images and write it as a reference file.

    Raises:
        ManifestError: An image cannot be read, or shows no measurable H&E.
    """
    pixels = np.concatenate([_pixels(image) for image in images])
    fit = stain.fit(pixels)
    fit = fit.judged(stain.verdict_slide(fit, min_kept=stain.MIN_KEPT_PATCH))
    if fit.status != "ok" or fit.stain_matrix is None or fit.max_concentration is None:
        raise ManifestError(
            f"{', '.join(image.name for image in images)} cannot serve as a stain reference: "
            f"{stain.SENTENCES[fit.reason]}."
        )
    reference = stain.Reference(name=name, stain_matrix=fit.stain_matrix, max_concentration=fit.max_concentration)
    document = {**reference.to_json(), "fitted_on": [image.name for image in images], "pixels": len(pixels)}
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(
        f"{out}: haematoxylin and eosin {fit.diagnostics.angle_deg:.1f}° apart, "
        f"maximal concentrations {fit.max_concentration[0]:.3f} and {fit.max_concentration[1]:.3f}\n"
        f"use it with --set stain.reference={out}\n"
    )


def _pixels(path: Path) -> NDArray[np.uint8]:
    """An image's pixels as (N, 3); transparent parts lie on white."""
    try:
        with Image.open(path) as image:
            rgba = image.convert("RGBA")
            flat = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba).convert("RGB")
            return np.asarray(flat).reshape(-1, 3)
    except UnidentifiedImageError as error:
        raise ManifestError(f"{path} is not an image.") from error
