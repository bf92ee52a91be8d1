"""The survey's stain fits against generated slides, whose true stains are known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from exaone_prep.catalog import build_catalog
from exaone_prep.manifest import Manifest, load_manifest
from exaone_prep.phantom import PhantomSettings, write_phantoms
from exaone_prep.stain import MACENKO_REFERENCE, StainFit
from exaone_prep.survey import survey_slide

SETTINGS = PhantomSettings(slides=6, labs=3, seed=11, width_px=3072, height_px=2304, pen_fraction=0.34)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, SETTINGS)
    return folder


def _angle_deg(a: object, b: object) -> float:
    left, right = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    cosine = float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))
    return math.degrees(math.acos(min(1.0, cosine)))


def _fits(folder: Path, manifest: Manifest) -> dict[str, StainFit]:
    catalog, _ = build_catalog(manifest, base=folder, versions={}, key=None)
    found = {}
    for row in catalog.rows:
        assert row.uri is not None
        survey, _ = survey_slide(row, Path(row.uri), manifest)
        assert survey.problem is None
        assert survey.fit is not None
        found[row.slide_id] = survey.fit
    return found


def test_fits_are_near_the_truth_of_generated_slides(phantoms: Path) -> None:
    truth = {Path(slide["slide"]).stem: slide for slide in json.loads((phantoms / "truth.json").read_text())["slides"]}
    fits = _fits(phantoms, load_manifest(phantoms / "data_manifest.yaml"))
    assert fits.keys() == truth.keys()
    assert any(slide["pen"] for slide in truth.values()), "ink must be among what the fit is held against"
    errors = []
    for slide_id, fit in fits.items():
        assert fit.status == "ok", (slide_id, fit)
        assert fit.stain_matrix is not None
        haematoxylin, eosin = zip(*fit.stain_matrix, strict=True)
        errors.append(_angle_deg(haematoxylin, truth[slide_id]["haematoxylin"]))
        errors.append(_angle_deg(eosin, truth[slide_id]["eosin"]))
    assert float(np.median(errors)) <= 3, errors
    assert max(errors) <= 5, errors


def test_a_fixed_answer_would_fail(phantoms: Path) -> None:
    """Else the test above would show nothing."""
    haematoxylin, eosin = zip(*MACENKO_REFERENCE.stain_matrix, strict=True)
    errors = []
    for slide in json.loads((phantoms / "truth.json").read_text())["slides"]:
        errors += [_angle_deg(haematoxylin, slide["haematoxylin"]), _angle_deg(eosin, slide["eosin"])]
    assert float(np.median(errors)) > 3
