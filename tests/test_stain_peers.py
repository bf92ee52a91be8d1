"""Other tools' Macenko normalisation, run in the environment of the peers: ours is theirs, computed more exactly."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from exaone_prep import stain
from tests.realdata import DATA, needs_real_data, read_rgb

ROOT = Path(__file__).resolve().parents[1]
PEERS = Path(os.environ.get("EXAONE_PREP_PEERS_PYTHON", str(ROOT / "build" / "peers" / "bin" / "python")))

needs_torchstain = pytest.mark.skipif(
    not PEERS.exists(),
    reason=f"there is no environment of peers at {PEERS} (benchmarks/peers/peers.txt lists what goes there)",
)

WITHOUT_STAIN = {"no-tissue-line.png", "no-tissue.png", "no-tissue2.png", "pen_black.png"}
"""Background and black ink: torchstain paints them, here the fit has failed and they are kept."""


def real_images() -> dict[str, NDArray[np.uint8]]:
    """All pictures of the real data but masks, by their path."""
    files = [path for path in sorted((DATA / "tiles").rglob("*.*")) if path.suffix in (".png", ".jpg")]
    return {str(path.relative_to(DATA)): read_rgb(path) for path in files if "mask" not in path.name}


def by_torchstain(folder: Path, images: dict[str, NDArray[np.uint8]], *options: str) -> dict[str, NDArray[np.uint8]]:
    with (folder / "images.npz").open("wb") as stream:
        np.savez(stream, **images)  # type: ignore[arg-type]  # its stubs take keywords for options
    script: list[str | Path] = [PEERS, ROOT / "benchmarks" / "peers" / "measure.py", "torchstain"]
    files: list[str | Path] = [folder / "images.npz", "--output", folder / "theirs.npz"]
    subprocess.run([*script, *files, *options], check=True, capture_output=True)
    with np.load(folder / "theirs.npz") as theirs:
        return dict(theirs)


def grey_levels_apart(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.int16]:
    return np.abs(a.astype(np.int16) - b.astype(np.int16))


@needs_real_data
@needs_torchstain
def test_every_real_image_is_within_one_grey_level_of_torchstain_in_float64(tmp_path: Path) -> None:
    images = real_images()
    theirs = by_torchstain(tmp_path, images, "--double")
    assert len(theirs) == len(images) == 111  # there is none that it cannot process
    for name, expected in theirs.items():
        batch = stain.normalize(images[name][None], fit="patch")
        if batch.status[0] == "fitted":
            assert grey_levels_apart(batch.patches[0], expected).max() <= 1, name
        else:
            assert Path(name).name in WITHOUT_STAIN


@needs_real_data
@needs_torchstain
def test_torchstain_in_float32_differs_from_us_as_it_does_from_itself(tmp_path: Path) -> None:
    images = {name: image for name, image in real_images().items() if Path(name).name not in WITHOUT_STAIN}
    for name, expected in by_torchstain(tmp_path, images).items():
        apart = grey_levels_apart(stain.normalize(images[name][None], fit="patch").patches[0], expected)
        assert apart.max() <= 4, name
        assert (apart.max(axis=-1) <= 1).mean() >= 0.995, name


@needs_torchstain
def test_torchstain_has_no_answer_where_ours_is_to_keep_the_patch(tmp_path: Path) -> None:
    images = {"white": np.full((16, 16, 3), 255, dtype=np.uint8)}
    assert by_torchstain(tmp_path, images) == {}
    assert stain.normalize(images["white"][None], fit="patch").status == ("kept",)


def by_tiatoolbox_definition(source: NDArray[np.uint8], target: NDArray[np.uint8], *, tissue: Any) -> NDArray[np.uint8]:
    """Macenko's method as TIAToolbox has it: Io = 255, tissue by luminosity, interpolated percentiles."""

    def density(image: NDArray[np.uint8]) -> NDArray[np.float64]:
        od: NDArray[np.float64] = -np.log(np.maximum(image.reshape(-1, 3), 1) / 255.0)
        return np.maximum(od, 1e-6)

    def fit(image: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        kept = density(image)[tissue(image, threshold=0.8).ravel()]
        _, vectors = np.linalg.eigh(np.cov(kept.T))
        plane = vectors[:, [2, 1]] * np.where(vectors[:, [2, 1]].sum(axis=0) < 0, -1.0, 1.0)
        phi = np.arctan2(*(kept @ plane).T[::-1])
        ends = [plane @ np.array([np.cos(angle), np.sin(angle)]) for angle in np.percentile(phi, [1, 99])]
        stains = np.stack(ends if ends[0][0] > ends[1][0] else ends[::-1], axis=1)
        return stains, np.percentile(np.linalg.pinv(stains) @ density(image).T, 99, axis=1)

    (stains, amounts), (wanted, wanted_amounts) = fit(source), fit(target)
    concentrations = np.linalg.pinv(stains) @ density(source).T * (wanted_amounts / amounts)[:, None]
    levels: NDArray[np.float64] = 255 * np.exp(-wanted @ concentrations)
    return levels.clip(0, 255).astype(np.uint8).T.reshape(source.shape)


@needs_real_data
def test_what_tiatoolbox_published_is_our_method_with_its_background_and_its_mask() -> None:
    misc: Any = pytest.importorskip("tiatoolbox.utils.misc", reason="TIAToolbox is not in this environment")
    folder = DATA / "tiles" / "stain"
    source, target, published = (
        read_rgb(folder / f"tia_{name}.png") for name in ("source_image", "target_image", "norm_macenko")
    )
    made = by_tiatoolbox_definition(source, target, tissue=misc.get_luminosity_tissue_mask)
    assert grey_levels_apart(made, published).mean() < 0.5
    assert grey_levels_apart(made, published).max() <= 2
