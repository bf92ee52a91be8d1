"""How true the stain fit is: stain vectors against known ones, and how far colours of laboratories come together.

Three parts, each with ours beside torchstain and TIAToolbox on the same pixels:

- `truth`: a generated corpus as `exaone-prep phantom` writes it, surveyed as a build does; the angles between fitted
  and true stain vectors. The other tools get the pixels the survey fitted on.
- `labs`: the same generated specimens in several laboratories. The variance of the slides' mean colours between
  laboratories shall go, that between specimens and between regions of a slide shall stay.
- `real`: the variance between the real slides of the Camelyon16 patches.

Colours are means over tissue pixels in CIELAB, so a variance is a mean squared ΔE. Tissue pixels are chosen once, on
the slides as scanned.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from colour_measures import Floats, Rgb, angle_deg, is_tissue, lab, median_intensity, variance
from numpy.typing import NDArray
from report import real_slides, report
from sections import Section, true_without_offset, write_sections

from exaone_prep import stain
from exaone_prep.catalog import CatalogRow, build_catalog
from exaone_prep.manifest import Manifest, load_manifest, parse_manifest
from exaone_prep.patches import PatchReader
from exaone_prep.phantom import PhantomSettings, write_phantoms
from exaone_prep.slides import open_slide
from exaone_prep.stain.algebra import columns
from exaone_prep.stain_sample import take_sample
from exaone_prep.survey import SlideSurvey, survey_slide

ROOT: Final = Path(__file__).resolve().parents[1]
SIZE_PX: Final = 256
PATCHES_PER_SLIDE: Final = 24
PEERS: Final = ("torchstain", "tiatoolbox")
WAYS: Final = ("slide", "patch")

Pictures = dict[str, Rgb]
"""By slide: its patches below each other, uint8 (n·256, 256, 3)."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Another tool, run by a Python that has it."""

    tool: str
    pythons: Sequence[Path]

    def run(self, *arguments: str | Path) -> str | None:
        """Its last line of output; None where no Python at hand has the tool."""
        script = ROOT / "benchmarks" / "peers" / "measure.py"
        for python in self.pythons:
            if not python.exists():
                continue
            command = [str(python), str(script), self.tool, *map(str, arguments)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return done.stdout
        return None

    def pictures(self, scanned: Pictures, way: str, folder: Path) -> Pictures | None:
        """All slides normalised, each as one picture or patch by patch; one that cannot be stays as scanned."""
        source, target = folder / "scanned.npz", folder / "normalised.npz"
        np.savez(source, **scanned)  # type: ignore[arg-type]  # its stubs take keywords for options
        rows = ("--rows", str(SIZE_PX)) if way == "patch" else ()
        if self.run(source, "--output", target, *rows) is None:
            return None
        with np.load(target) as made:
            return {**scanned, **made}


def surveyed(manifest: Manifest, base: Path) -> Iterator[tuple[CatalogRow, SlideSurvey, NDArray[np.int64]]]:
    """Every slide of a manifest with its survey and its planned positions."""
    catalog, _ = build_catalog(manifest, base=base, versions={}, key=None)
    for row in catalog.rows:
        survey, pictures = survey_slide(row, Path(str(row.uri)), manifest)
        yield row, survey, np.empty((0, 2), dtype=np.int64) if pictures is None else pictures.positions


def sampled_pixels(row: CatalogRow, survey: SlideSurvey, positions: NDArray[np.int64], manifest: Manifest) -> Rgb:
    """The pixels the survey fitted on, read once more: uint8 (N, 3)."""
    assert survey.choice is not None
    reader = open_slide(Path(str(row.uri)), manifest.readers)
    try:
        return take_sample(PatchReader(reader, survey.choice, SIZE_PX), positions, manifest, row.slide_id).pixels
    finally:
        reader.close()


@dataclass
class Angles:
    """Errors of one tool in degrees, a haematoxylin and an eosin per slide."""

    haematoxylin: list[float] = field(default_factory=list)
    eosin: list[float] = field(default_factory=list)

    def add(self, vectors: Sequence[Sequence[float]], truth: Sequence[Sequence[float]]) -> None:
        """Take a slide's haematoxylin and eosin with the true ones; the sign of a vector says nothing."""
        for errors, vector, true in zip((self.haematoxylin, self.eosin), vectors, truth, strict=True):
            angle = angle_deg(vector, true)
            errors.append(min(angle, 180 - angle))

    def figures(self, name: str) -> dict[str, float]:
        """Median, 95th percentile and maximum, of each stain and of both together."""
        parts = {"haematoxylin": self.haematoxylin, "eosin": self.eosin, "both": self.haematoxylin + self.eosin}
        return {
            f"{name}_{stain_name}_{measure}_deg": float(value)
            for stain_name, errors in parts.items()
            if errors
            for measure, value in (
                ("median", np.median(errors)),
                ("p95", np.percentile(errors, 95)),
                ("max", max(errors)),
            )
        }


def truth_figures(folder: Path, settings: PhantomSettings, peers: Sequence[Peer]) -> dict[str, Any]:
    """Angles between fitted and true vectors over a generated corpus."""
    truths = {Path(slide.slide).stem: slide for slide in write_phantoms(folder, settings)}
    manifest = load_manifest(folder / "data_manifest.yaml")
    ours, clean, inked, reference = Angles(), Angles(), Angles(), Angles()
    samples = folder / "samples"
    samples.mkdir()
    failed = 0
    for row, survey, positions in surveyed(manifest, folder):
        if survey.problem is not None or survey.fit is None or survey.fit.stain_matrix is None:
            failed += 1
            continue
        truth = truths[row.slide_id]
        vectors = columns(survey.fit.stain_matrix)
        for angles in (ours, inked if truth.pen else clean):
            angles.add(vectors, (truth.haematoxylin, truth.eosin))
        reference.add(columns(stain.MACENKO_REFERENCE.stain_matrix), (truth.haematoxylin, truth.eosin))
        np.save(samples / f"{row.slide_id}.npy", sampled_pixels(row, survey, positions, manifest)[:, None])
    figures: dict[str, Any] = {"truth_slides": len(truths), "truth_slides_without_fit": failed}
    figures["truth_slides_with_ink"] = len(inked.eosin)
    named = {"ours": ours, "ours_without_ink": clean, "ours_with_ink": inked, "fixed_reference": reference}
    for peer in peers:
        output = peer.run(samples, "--vectors")
        named[peer.tool] = Angles()
        figures[f"truth_{peer.tool}"] = "absent" if output is None else "present"
        for slide_id, of_peer in json.loads(output.splitlines()[-1] if output else "{}").items():
            truth = truths[slide_id]
            named[peer.tool].add(of_peer, (truth.haematoxylin, truth.eosin))
            if peer.tool == "tiatoolbox":
                lab_number = int(truth.lab.removeprefix("lab-"))
                scales = truth.haematoxylin_scale, truth.eosin_scale
                own = true_without_offset(lab_number, settings.seed, *scales)
                named.setdefault("tiatoolbox_in_its_density", Angles()).add(of_peer, own)
    for name, angles in named.items():
        figures |= angles.figures(f"truth_{name}")
    return figures


@dataclass(frozen=True, kw_only=True)
class Specimen:
    """One piece of tissue in all laboratories, at the same places.

    Attributes:
        scanned: uint8 (n·256, 256, 3) per laboratory.
        fits: The survey's fit per laboratory.
        tissue: bool (n·256, 256), tissue in most laboratories.
        rich: Numbers of the third of the patches with most nuclei.
        poor: Numbers of the third with fewest.
    """

    scanned: list[Rgb]
    fits: list[stain.StainFit]
    tissue: NDArray[np.bool_]
    rich: list[int]
    poor: list[int]


def specimen_of(sections: Sequence[Section]) -> Specimen:
    """Survey a specimen in every laboratory, and read the patches that all of them plan."""
    folder = sections[0].path.parent
    manifest = parse_manifest({"name": "labs", "cohorts": [{"name": "c", "slides": ["*.tiff"]}]}, {}, where="labs")
    surveys = {row.slide_id: (survey, positions) for row, survey, positions in surveyed(manifest, folder)}
    shared = set.intersection(*({(x, y) for x, y in positions.tolist()} for _, positions in surveys.values()))
    places = sorted(shared)
    places = places[:: max(1, len(places) // PATCHES_PER_SLIDE)][:PATCHES_PER_SLIDE]
    scanned, fits = [], []
    for section in sections:
        survey, _ = surveys[section.path.stem]
        assert survey.choice is not None
        assert survey.fit is not None
        reader = open_slide(section.path, manifest.readers)
        patches = PatchReader(reader, survey.choice, SIZE_PX)
        scanned.append(np.concatenate([patches.read(x, y) for x, y in places]))
        reader.close()
        fits.append(survey.fit)
    by_nuclei = sorted(range(len(places)), key=lambda number: sections[0].nuclei(*places[number], SIZE_PX))
    third = len(places) // 3
    tissue = 2 * np.sum([is_tissue(one) for one in scanned], axis=0) > len(scanned)
    return Specimen(scanned=scanned, fits=fits, tissue=tissue, rich=by_nuclei[-third:], poor=by_nuclei[:third])


def own_picture(scanned: Rgb, fit: stain.StainFit, way: str) -> Rgb:
    """A slide's patches as a build makes them: uint8 (n·256, 256, 3)."""
    patches = scanned.reshape(-1, SIZE_PX, SIZE_PX, 3)
    if way == "slide":
        return stain.normalize(patches, fit=fit).patches.reshape(scanned.shape)
    return stain.normalize(patches, fit="patch", slide_fit=fit).patches.reshape(scanned.shape)


def versions(
    scanned: Pictures, fits: Mapping[str, stain.StainFit], peers: Sequence[Peer], folder: Path
) -> Iterator[tuple[str, Pictures]]:
    """The pictures as scanned, as each tool makes them in each way, and for comparison with the first slide's fit."""
    yield "scanned", scanned
    first = next(iter(fits.values()))
    yield "one_fit_for_all", {name: own_picture(picture, first, "slide") for name, picture in scanned.items()}
    for way in WAYS:
        yield f"ours_{way}", {name: own_picture(picture, fits[name], way) for name, picture in scanned.items()}
        for peer in peers:
            made = peer.pictures(scanned, way, folder)
            if made is not None:
                yield f"{peer.tool}_{way}", made


@dataclass
class Spread:
    """Mean colours of slides in one version of their pixels.

    Attributes:
        colours: CIELAB, per specimen (laboratories, 3).
        contrasts: ΔE between regions rich and poor in nuclei, per slide.
        regions: Variance of the mean colours of a slide's patches, per slide.
        intensities: Normalised median intensity, per specimen and laboratory.
    """

    colours: list[Floats] = field(default_factory=list)
    contrasts: list[float] = field(default_factory=list)
    regions: list[float] = field(default_factory=list)
    intensities: list[list[float]] = field(default_factory=list)

    def add(self, pictures: Sequence[Rgb], specimen: Specimen) -> None:
        """Take one specimen in all laboratories."""
        means, intensities = [], []
        tissue = specimen.tissue.reshape(-1, SIZE_PX, SIZE_PX)
        for picture in pictures:
            patches = picture.reshape(-1, SIZE_PX, SIZE_PX, 3)
            of_patches = np.array([lab(patch[here]).mean(axis=0) for patch, here in zip(patches, tissue, strict=True)])
            weights = tissue.sum(axis=(1, 2))
            means.append(np.average(of_patches, axis=0, weights=weights))
            self.contrasts.append(
                float(np.linalg.norm(of_patches[specimen.rich].mean(0) - of_patches[specimen.poor].mean(0)))
            )
            self.regions.append(variance(of_patches))
            intensities.append(median_intensity(picture[specimen.tissue]))
        self.colours.append(np.array(means))
        self.intensities.append(intensities)

    def figures(self, name: str) -> dict[str, float]:
        """Variances between laboratories and specimens, and what is left of differences within slides."""
        colours = np.array(self.colours)
        return {
            f"labs_{name}_between_labs": float(np.mean([variance(of_labs) for of_labs in colours])),
            f"labs_{name}_between_specimens": float(np.mean([variance(of_one) for of_one in colours.swapaxes(0, 1)])),
            f"labs_{name}_between_regions": float(np.mean(self.regions)),
            f"labs_{name}_nuclei_contrast_delta_e": float(np.mean(self.contrasts)),
            f"labs_{name}_median_intensity_sd": float(np.mean(np.std(self.intensities, axis=1, ddof=1))),
        }


def lab_figures(folder: Path, specimens: int, labs: int, seed: int, peers: Sequence[Peer]) -> dict[str, Any]:
    """The same specimens in several laboratories, before and after."""
    spreads: dict[str, Spread] = {}
    for sections in write_sections(folder, specimens=specimens, labs=labs, seed=seed):
        specimen = specimen_of(sections)
        names = [f"lab-{section.lab}" for section in sections]
        scanned = dict(zip(names, specimen.scanned, strict=True))
        fits = dict(zip(names, specimen.fits, strict=True))
        for version, pictures in versions(scanned, fits, peers, folder):
            spreads.setdefault(version, Spread()).add([pictures[name] for name in names], specimen)
    figures: dict[str, Any] = {"labs": labs, "labs_specimens": specimens, **absent("labs", spreads)}
    for version, spread in spreads.items():
        figures |= spread.figures(version)
    return figures


def real_figures(folder: Path, peers: Sequence[Peer]) -> dict[str, Any]:
    """The variance of the mean colours of the real slides; each is the pool of its patches."""
    slides = real_slides()
    if not slides:
        return {"real_slides": "absent"}
    scanned = {name: np.concatenate(patches) for name, patches in slides.items()}
    fits = {name: stain.fit(picture) for name, picture in scanned.items()}
    figures: dict[str, Any] = {"real_slides": len(slides), "real_patches": sum(map(len, slides.values()))}
    found = []
    for version, pictures in versions(scanned, fits, peers, folder):
        found.append(version)
        means, regions, intensities = [], [], []
        for name, picture in pictures.items():
            tissue = is_tissue(scanned[name])
            means.append(lab(picture[tissue]).mean(axis=0))
            pairs = zip(picture.reshape(-1, SIZE_PX, SIZE_PX, 3), tissue.reshape(-1, SIZE_PX, SIZE_PX), strict=True)
            regions.append(variance(np.array([lab(patch[here]).mean(axis=0) for patch, here in pairs])))
            intensities.append(median_intensity(picture[tissue]))
        figures[f"real_{version}_between_slides"] = variance(np.array(means))
        figures[f"real_{version}_between_regions"] = float(np.mean(regions))
        figures[f"real_{version}_median_intensity_sd"] = float(np.std(intensities, ddof=1))
    figures |= absent("real", found)
    return figures


def absent(part: str, found: Iterable[str]) -> dict[str, str]:
    """Peers that no version of the pictures is by."""
    tools = {version.rpartition("_")[0] for version in found}
    return {f"{part}_{tool}": "absent" for tool in PEERS if tool not in tools}


def falls(figures: Mapping[str, Any]) -> dict[str, float]:
    """What share of each variance between laboratories or slides is gone, and what share of the others is left."""
    shares: dict[str, float] = {}
    for key, value in figures.items():
        part, _, measure = key.partition("_")
        for wanted, gone in (
            ("between_labs", True),
            ("between_slides", True),
            ("between_specimens", False),
            ("between_regions", False),
            ("nuclei_contrast_delta_e", False),
        ):
            if not measure.endswith(wanted) or measure.startswith("scanned"):
                continue
            share = value / figures[f"{part}_scanned_{wanted}"]
            shares[f"{key}_fall" if gone else f"{key}_kept"] = 1 - share if gone else share
    return shares


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    parser.add_argument("--slides", type=int, default=60, help="of the generated corpus")
    parser.add_argument("--labs", type=int, default=20, help="of the generated corpus")
    parser.add_argument("--width-px", type=int, default=PhantomSettings.width_px)
    parser.add_argument("--height-px", type=int, default=PhantomSettings.height_px)
    parser.add_argument("--specimens", type=int, default=5, help="that go round")
    parser.add_argument("--ring-labs", type=int, default=10, help="that they go round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers-python", type=Path, default=ROOT / "build/peers/bin/python")
    parser.add_argument("--only", choices=("truth", "labs", "real"), help="one part alone")
    arguments = parser.parse_args()
    peers = [Peer(tool=tool, pythons=(arguments.peers_python, Path(sys.executable))) for tool in PEERS]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    settings = PhantomSettings(
        slides=arguments.slides,
        labs=arguments.labs,
        seed=arguments.seed,
        width_px=arguments.width_px,
        height_px=arguments.height_px,
        slides_per_patient=1,
    )
    figures: dict[str, Any] = {"seed": arguments.seed}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.only in (None, "truth"):
            figures |= truth_figures(folder / "corpus", settings, peers)
        if arguments.only in (None, "labs"):
            figures |= lab_figures(folder, arguments.specimens, arguments.ring_labs, arguments.seed, peers)
        if arguments.only in (None, "real"):
            figures |= real_figures(folder, peers)
    report("colour", figures, falls(figures), as_json=arguments.json)


if __name__ == "__main__":
    main()
