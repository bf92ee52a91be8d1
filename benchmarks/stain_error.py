"""Where the error of a stain fit comes from: the same generated sections, each time with one fault of scanners less.

Angles between fitted and true stain vectors, over haematoxylin and eosin of all sections together.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from colour_measures import angle_deg
from report import report
from sections import Section, write_sections

from exaone_prep.catalog import build_catalog
from exaone_prep.manifest import parse_manifest
from exaone_prep.phantom.optics import Scanner
from exaone_prep.phantom.tiff import Subsampling
from exaone_prep.stain.algebra import columns
from exaone_prep.survey import survey_slide


def linear(scanner: Scanner) -> Scanner:
    """Grey levels in proportion to light, with the same glass in all channels."""
    return replace(scanner, tone=(0.0, 0.0, 0.0), crosstalk=0.0, glass=(239.0, 239.0, 239.0))


def quiet(scanner: Scanner) -> Scanner:
    """Without noise."""
    return replace(scanner, noise=0.0)


def sharp(scanner: Scanner) -> Scanner:
    """Without point spread and sharpening."""
    return replace(scanner, blur=0.0, sharpen=0.0)


def fine(scanner: Scanner) -> Scanner:
    """With JPEG of quality 98."""
    return replace(scanner, jpeg_quality=98)


CASES: dict[str, tuple[Subsampling, Callable[[Scanner], Scanner]]] = {
    "as_scanned": ("420", lambda scanner: scanner),
    "without_noise": ("420", quiet),
    "without_blur_and_sharpening": ("420", sharp),
    "linear_scanner": ("420", linear),
    "jpeg_98": ("420", fine),
    "without_subsampling_of_chroma": ("444", lambda scanner: scanner),
    "jpeg_98_without_subsampling": ("444", fine),
    "without_any_of_these": ("444", lambda scanner: fine(linear(sharp(quiet(scanner))))),
}


def errors_deg(sections: list[Section]) -> list[float]:
    """Errors of the survey's fits, a haematoxylin and an eosin per section."""
    manifest = parse_manifest({"name": "error", "cohorts": [{"name": "c", "slides": ["*.tiff"]}]}, {}, where="error")
    catalog, _ = build_catalog(manifest, base=sections[0].path.parent, versions={}, key=None)
    by_name = {section.path.stem: section for section in sections}
    errors = []
    for row in catalog.rows:
        survey, _ = survey_slide(row, Path(str(row.uri)), manifest)
        if survey.fit is None or survey.fit.stain_matrix is None:
            raise RuntimeError(f"{row.slide_id} has no fit")
        haematoxylin, eosin = columns(survey.fit.stain_matrix)
        true = by_name[row.slide_id]
        errors += [angle_deg(haematoxylin, true.haematoxylin), angle_deg(eosin, true.eosin)]
    return errors


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    parser.add_argument("--specimens", type=int, default=5)
    parser.add_argument("--labs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--width-px", type=int, default=2048)
    parser.add_argument("--height-px", type=int, default=1536)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"specimens": arguments.specimens, "labs": arguments.labs, "seed": arguments.seed}
    for name, (subsampling, change) in CASES.items():
        errors: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            for sections in write_sections(
                Path(folder),
                specimens=arguments.specimens,
                labs=arguments.labs,
                seed=arguments.seed,
                width_px=arguments.width_px,
                height_px=arguments.height_px,
                subsampling=subsampling,
                change=change,
            ):
                errors += errors_deg(sections)
        figures[f"{name}_median_deg"] = float(np.median(errors))
        figures[f"{name}_p95_deg"] = float(np.percentile(errors, 95))
    report("stain_error", figures, {}, as_json=arguments.json)


if __name__ == "__main__":
    main()
