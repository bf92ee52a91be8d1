"""How many µm a pixel of level 0 spans: what a file claims, and which claim is believed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from exaone_prep.errors import SlideProblemError

ClaimSource = Literal["vendor", "dicom", "tiff_tags"]
MppSource = Literal["slide", "cohort", "vendor", "dicom", "tiff_tags", "objective_power", "cohort_if_missing"]

TIFF_TAG_RANGE_UM: Final = (0.05, 5.0)
"""Resolution tags outside it were written by software that meant print or screen (896 and 1000 µm/px occur)."""

GIVEN_RANGE_UM: Final = (0.01, 100.0)
"""A value given by a person outside it is a slip of the unit."""

MAX_ANISOTROPY: Final = 1.02

_TIFF_UNIT_UM: Final = {"inch": 25_400.0, "centimeter": 10_000.0}
_OME_UNIT_UM: Final = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}


@dataclass(frozen=True, kw_only=True)
class ClaimedMpp:
    """What a file says about the pixels of level 0, believable or not."""

    x_um_per_px: float
    y_um_per_px: float
    source: ClaimSource

    @property
    def is_value(self) -> bool:
        """Whether this is a value at all: finite and positive, and for TIFF tags within `TIFF_TAG_RANGE_UM`."""
        lowest, highest = TIFF_TAG_RANGE_UM if self.source == "tiff_tags" else (0.0, math.inf)
        return all(
            math.isfinite(um) and um > 0 and lowest <= um <= highest for um in (self.x_um_per_px, self.y_um_per_px)
        )


@dataclass(frozen=True, kw_only=True)
class Mpp:
    """The value that is used, in µm per pixel of level 0, and where it comes from."""

    um_per_px: float
    source: MppSource


def claim(x: str | float | None, y: str | float | None, source: ClaimSource) -> ClaimedMpp | None:
    """A claim from two values as they stand in a file (µm per pixel), or None where either is not a number."""
    x_um, y_um = as_number(x), as_number(y)
    if x_um is None or y_um is None:
        return None
    return ClaimedMpp(x_um_per_px=x_um, y_um_per_px=y_um, source=source)


def claim_of_tiff_tags(
    x_resolution: str | float | None, y_resolution: str | float | None, unit: str | None
) -> ClaimedMpp | None:
    """A claim from XResolution and YResolution (pixels per unit) and ResolutionUnit (``inch``, ``centimeter``).

    Tags of TIFF 6.0, section 8. Without a unit, or with a resolution of zero, there is no claim.
    """
    unit_um = _TIFF_UNIT_UM.get(unit or "")
    x, y = as_number(x_resolution), as_number(y_resolution)
    if unit_um is None or not x or not y:
        return None
    return ClaimedMpp(x_um_per_px=unit_um / x, y_um_per_px=unit_um / y, source="tiff_tags")


def claim_of_ome_xml(text: str | None, image: int = 0) -> ClaimedMpp | None:
    """A claim from PhysicalSizeX and PhysicalSizeY of one image of OME-XML, the first unless told otherwise.

    Units of length are converted (µm where none is given, as the OME schema 2016-06 has it); another unit is no claim.
    """
    if not text or "OME" not in text:
        return None
    elements = re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", text)
    if image >= len(elements):
        return None
    attributes = dict(re.findall(r'(\w+)="([^"]*)"', elements[image]))
    sizes_um: list[float] = []
    for axis in "XY":
        unit_um = _OME_UNIT_UM.get(attributes.get(f"PhysicalSize{axis}Unit", "µm"))
        size = as_number(attributes.get(f"PhysicalSize{axis}"))
        if unit_um is None or size is None:
            return None
        sizes_um.append(size * unit_um)
    return ClaimedMpp(x_um_per_px=sizes_um[0], y_um_per_px=sizes_um[1], source="vendor")


def as_number(value: str | float | None) -> float | None:
    """A number as it stands in a file, or None."""
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return None


def resolve_mpp(
    claims: Sequence[ClaimedMpp],
    objective_power: float | None,
    *,
    slide_mpp: float | None = None,
    cohort_mpp: float | None = None,
    cohort_mpp_if_missing: float | None = None,
) -> Mpp:
    """The µm per pixel of level 0, from the first of the chain that has a value.

    The chain: `slide_mpp`, `cohort_mpp`, the claims in their order (vendor or DICOM before TIFF tags),
    10 / `objective_power`, `cohort_mpp_if_missing`. Values of vendors and DICOM are believed as they are.

    Args:
        claims: What the file says, the most trusted first.
        objective_power: Nominal magnification of the objective, e.g. 20 or 40.
        slide_mpp: µm per pixel given for this slide.
        cohort_mpp: µm per pixel given for all slides of the cohort.
        cohort_mpp_if_missing: µm per pixel for slides whose file does not say.

    Raises:
        SlideProblemError: ``no_mpp``, ``absurd_mpp`` (a given value outside 0.01-100, or any value below 0.01: finer
            than light resolves) or ``anisotropic`` (x and y of the believed claim differ by more than 2 %).
    """
    if slide_mpp is not None:
        return Mpp(um_per_px=_given(slide_mpp, "for this slide"), source="slide")
    if cohort_mpp is not None:
        return Mpp(um_per_px=_given(cohort_mpp, "for its cohort (`mpp`)"), source="cohort")
    for claimed in claims:
        if claimed.is_value:
            return Mpp(um_per_px=_believed(claimed), source=claimed.source)
    if objective_power is not None and math.isfinite(objective_power) and objective_power > 0:
        return Mpp(um_per_px=_not_too_fine(10.0 / objective_power), source="objective_power")
    if cohort_mpp_if_missing is not None:
        given = _given(cohort_mpp_if_missing, "for its cohort (`mpp_if_missing`)")
        return Mpp(um_per_px=given, source="cohort_if_missing")
    refused = "; ".join(
        f"its {claimed.source.replace('_', ' ')} say {claimed.x_um_per_px:.6g} × {claimed.y_um_per_px:.6g}, "
        "which is no microscope's value"
        for claimed in claims
    )
    raise SlideProblemError(
        "no_mpp",
        f"The file does not say how many µm a pixel spans{f' ({refused})' if refused else ''}: "
        "give `mpp` for the slide or `mpp_if_missing` for its cohort.",
    )


def _given(um_per_px: float, where: str) -> float:
    lowest, highest = GIVEN_RANGE_UM
    if not lowest <= um_per_px <= highest:
        raise SlideProblemError(
            "absurd_mpp",
            f"{um_per_px:g} µm per pixel is given {where}; a slide has between {lowest:g} and {highest:g}: correct it.",
        )
    return um_per_px


def _believed(claimed: ClaimedMpp) -> float:
    x_um, y_um = claimed.x_um_per_px, claimed.y_um_per_px
    if max(x_um, y_um) > MAX_ANISOTROPY * min(x_um, y_um):
        raise SlideProblemError(
            "anisotropic",
            f"Pixels are {x_um:.6g} µm wide and {y_um:.6g} µm high; they must be square within 2 %: "
            "give `mpp` for the slide if the file is wrong.",
        )
    return _not_too_fine((x_um + y_um) / 2)


def _not_too_fine(um_per_px: float) -> float:
    if um_per_px < GIVEN_RANGE_UM[0]:
        raise SlideProblemError(
            "absurd_mpp",
            f"The file says {um_per_px:.6g} µm per pixel, finer than light resolves: give `mpp` for the slide.",
        )
    return um_per_px
