"""Two verdicts on a fit, kept apart: no stain could be measured here, or what was measured is not H&E.

All decisions compare cosines and concentrations computed exactly, so they are the same on every CPU.
`docs/stain.md` shows the figures of real slides on which the limits rest.
"""

from __future__ import annotations

from typing import Final

from exaone_prep.stain.algebra import columns, cosine_between
from exaone_prep.stain.stain_fit import FitReason, StainFit, Verdict

MIN_KEPT_SLIDE: Final = 100_000
MIN_KEPT_PATCH: Final = 500
MIN_CONCENTRATION: Final = 0.2
MAX_CONCENTRATION: Final = 8.0
MIN_COMPONENT: Final = -0.05
"""A unit stain vector of H&E may dip a little below zero in one channel by noise, but not clearly."""

COSINE_OF_MIN_ANGLE: Final = 0.9961946980917455  # cos 5°
COSINE_OF_MAX_ANGLE: Final = 0.573576436351046  # cos 55°

SENTENCES: Final[dict[FitReason, str]] = {
    "": "the stain was measured",
    "too_few_pixels": "too few stained pixels to measure a stain",
    "one_colour": "all stained pixels have the same colour, or lie on one line between two",
    "one_stain": "only one stain is visible: its two vectors are less than 5° apart",
    "concentration_range": "the concentration of a stain is outside 0.2–8, too weak or too strong to be measured",
    "non_finite": "the fit has no finite result",
    "dark_background": "the background is dark, as in fluorescence",
    "negative_stain": "a stain vector has a clearly negative component, which no absorbing stain has",
    "eosin_not_green": "the second stain does not absorb green most, as eosin does",
    "angle_too_wide": "the stain vectors are more than 55° apart, which haematoxylin and eosin never are",
}
"""What each reason means, for messages."""

_FAILED_MEASURE: Final = ("one_colour", "non_finite")


def verdict_patch(fit: StainFit, *, min_kept: int = MIN_KEPT_PATCH) -> Verdict:
    """Whether a stain could be measured: enough pixels, two distinct stains, plausible concentrations.

    Args:
        fit: From `exaone_prep.stain.fit`.
        min_kept: Stained pixels needed.

    Returns:
        `ok` or `failed`.
    """
    if fit.diagnostics.n_kept < min_kept:
        return Verdict(status="failed", reason="too_few_pixels")
    if fit.stain_matrix is None or fit.max_concentration is None:
        reason = fit.reason if fit.reason in _FAILED_MEASURE else "non_finite"
        return Verdict(status="failed", reason=reason)
    if cosine_between(*columns(fit.stain_matrix)) > COSINE_OF_MIN_ANGLE:
        return Verdict(status="failed", reason="one_stain")
    if not all(MIN_CONCENTRATION <= value <= MAX_CONCENTRATION for value in fit.max_concentration):
        return Verdict(status="failed", reason="concentration_range")
    return Verdict()


def verdict_slide(fit: StainFit, *, dark_background: bool = False, min_kept: int = MIN_KEPT_SLIDE) -> Verdict:
    """Whether a slide is H&E, and whether its stain could be measured.

    Where both fail, `not_he` wins if the stain vectors can be trusted (enough pixels, two distinct stains):
    what is not H&E is no H&E slide with a failed fit.

    Args:
        fit: Of the slide's sample of patches.
        dark_background: Whether the slide's background is dark; the survey sees that, the fit cannot.
        min_kept: Stained pixels needed.

    Returns:
        `ok`, `failed` or `not_he`; `fit.judged(verdict)` stores it.
    """
    if dark_background:
        return Verdict(status="not_he", reason="dark_background")
    measured = verdict_patch(fit, min_kept=min_kept)
    if measured.reason not in ("", "concentration_range"):
        return measured
    assert fit.stain_matrix is not None
    h, e = columns(fit.stain_matrix)
    if min(*h, *e) < MIN_COMPONENT:
        return Verdict(status="not_he", reason="negative_stain")
    if e[1] < max(e):
        return Verdict(status="not_he", reason="eosin_not_green")
    if cosine_between(h, e) < COSINE_OF_MAX_ANGLE:
        return Verdict(status="not_he", reason="angle_too_wide")
    return measured
