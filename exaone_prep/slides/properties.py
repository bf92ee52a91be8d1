"""Which properties of a slide may be copied: an allow-list, for what is not on it may name a patient."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

ALLOWED: Final = frozenset(
    {
        "openslide.vendor",
        "openslide.objective-power",
        "openslide.mpp-x",
        "openslide.mpp-y",
        "openslide.level[0].tile-width",
        "openslide.level[0].tile-height",
        "tiff.Make",
        "tiff.Model",
        "tiff.XResolution",
        "tiff.YResolution",
        "tiff.ResolutionUnit",
        "aperio.AppMag",
        "aperio.MPP",
        "hamamatsu.Product",
        "hamamatsu.SourceLens",
        "leica.device-model",
        "leica.objective",
        "leica.illumination-source",
        "mirax.GENERAL.OBJECTIVE_MAGNIFICATION",
        "mirax.GENERAL.OBJECTIVE_NAME",
        "mirax.GENERAL.CAMERA_TYPE",
        "philips.DICOM_MANUFACTURER",
        "ventana.Magnification",
        "ventana.ScannerModel",
        "ventana.ScanRes",
        "dicom.Manufacturer",
        "dicom.ManufacturerModelName",
        "dicom.TransferSyntaxUID",
        "dicom.PhotometricInterpretation",
        "dicom.LossyImageCompressionMethod",
        "dicom.LossyImageCompressionRatio",
    }
)
"""Scanner maker and model, optics, pixel size, tile size, compression. No dates, serial numbers, names, comments."""

MAX_CHARACTERS: Final = 80
"""A longer value is free text, whatever its name says."""

_APERIO_COMPRESSION: Final = re.compile(r"\b(?:JPEG|J2K)/\w{1,12} Q=\d{1,3}\b")


def allowed_properties(properties: Mapping[str, str]) -> dict[str, str]:
    """The properties that may be copied, sorted by name.

    Aperio writes the compression and its quality only into a description that also holds names, so these alone are
    taken from it, as ``compression`` (e.g. ``JPEG/RGB Q=30``).
    """
    kept = {name: value for name, value in properties.items() if name in ALLOWED and 0 < len(value) <= MAX_CHARACTERS}
    if properties.get("openslide.vendor") == "aperio":
        compression = _APERIO_COMPRESSION.search(properties.get("tiff.ImageDescription", ""))
        if compression is not None:
            kept["compression"] = compression.group()
    return dict(sorted(kept.items()))
