"""Stain normalisation after Macenko et al. (ISBI 2009), with the same bits on every CPU; see `docs/stain.md`."""

from exaone_prep.stain.batch import NormalizedBatch, Normalizer, OnFailure, StainStatus, normalize
from exaone_prep.stain.device import Device, engine_for
from exaone_prep.stain.engine import Engine
from exaone_prep.stain.fitting import fit
from exaone_prep.stain.gates import MIN_KEPT_PATCH, MIN_KEPT_SLIDE, SENTENCES, verdict_patch, verdict_slide
from exaone_prep.stain.method import StainMethod, StainMethodError
from exaone_prep.stain.reference import MACENKO_REFERENCE, Reference, load_reference
from exaone_prep.stain.stain_fit import FitDiagnostics, FitReason, FitStatus, StainFit, Verdict

__all__ = [
    "MACENKO_REFERENCE",
    "MIN_KEPT_PATCH",
    "MIN_KEPT_SLIDE",
    "SENTENCES",
    "Device",
    "Engine",
    "FitDiagnostics",
    "FitReason",
    "FitStatus",
    "NormalizedBatch",
    "Normalizer",
    "OnFailure",
    "Reference",
    "StainFit",
    "StainMethod",
    "StainMethodError",
    "StainStatus",
    "Verdict",
    "engine_for",
    "fit",
    "load_reference",
    "normalize",
    "verdict_patch",
    "verdict_slide",
]
