"""A person's own stain reference: fitted from images, taken by the manifest, part of the content."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exaone_prep import stain
from exaone_prep.codec import decode
from exaone_prep.stain import load_reference
from tests.builds import build, command
from tests.realdata import DATA, needs_real_data, read_rgb
from tests.smallslides import small_slides, tissue_rgb

TARGET = DATA / "tiles" / "stain" / "kather_normalization_template.jpg"


@needs_real_data
def test_the_fit_of_an_image_is_written_with_all_its_bits(tmp_path: Path) -> None:
    out = tmp_path / "ref.json"
    ended = command("stain-reference", str(TARGET), "--out", str(out), "--name", "kather")
    assert ended.code == 0, ended.err
    fit = stain.fit(read_rgb(TARGET).reshape(-1, 3))
    reference = load_reference(out)
    assert (reference.name, reference.stain_matrix, reference.max_concentration) == (
        "kather",
        fit.stain_matrix,
        fit.max_concentration,
    )


def test_several_images_give_one_fit(tmp_path: Path) -> None:
    targets = [tissue_rgb(seed)[200:600, 200:800] for seed in (1, 2)]
    paths = []
    for number, target in enumerate(targets):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(target).save(paths[-1])
    assert command("stain-reference", *map(str, paths), "--out", str(tmp_path / "ref.json")).code == 0
    fit = stain.fit(np.concatenate([target.reshape(-1, 3) for target in targets]))
    assert load_reference(tmp_path / "ref.json").stain_matrix == fit.stain_matrix


def test_a_reference_changes_the_bytes_wherever_its_file_lies(tmp_path: Path) -> None:
    small_slides(tmp_path / "slides", 1)
    Image.fromarray(tissue_rgb(5)[200:600, 200:800]).save(tmp_path / "target.png")
    assert command("stain-reference", str(tmp_path / "target.png"), "--out", str(tmp_path / "a.json")).code == 0
    (tmp_path / "b.json").write_bytes((tmp_path / "a.json").read_bytes())
    png = ("--set", "codec.format=png")
    digests = [
        build(tmp_path / "slides", tmp_path / name, "--set", f"stain.reference={tmp_path / file}", *png)
        for name, file in (("out-a", "a.json"), ("out-b", "b.json"))
    ]
    assert digests[0] == digests[1]
    assert build(tmp_path / "slides", tmp_path / "out-macenko", *png) != digests[0]
    (tmp_path / "a.json").unlink()
    assert command("verify", str(tmp_path / "out-a"), "--deep").code == 0, "a built data set needs no reference file"


def test_normalised_patches_have_the_stain_of_the_reference(tmp_path: Path) -> None:
    patch = tissue_rgb(3)[200:456, 300:556]
    target = tissue_rgb(9)[200:600, 200:800].reshape(-1, 3)
    fit = stain.fit(target)
    assert fit.stain_matrix is not None
    assert fit.max_concentration is not None
    reference = stain.Reference(name="t", stain_matrix=fit.stain_matrix, max_concentration=fit.max_concentration)
    done = stain.normalize(patch[None], fit="patch", reference=reference).patches[0]
    again = stain.fit(done.reshape(-1, 3))
    assert again.stain_matrix is not None
    assert np.allclose(again.stain_matrix, fit.stain_matrix, atol=0.03)
    assert again.max_concentration == pytest.approx(fit.max_concentration, rel=0.05)


@pytest.mark.parametrize("kind", ["blank", "text", "missing"])
def test_an_image_that_cannot_serve_is_refused_in_a_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "target.png"
    if kind == "blank":
        Image.fromarray(np.full((300, 300, 3), 245, dtype=np.uint8)).save(path)
    elif kind == "text":
        path.write_text("no image")
    ended = command("stain-reference", str(path), "--out", str(tmp_path / "ref.json"))
    assert ended.code in (1, 2)
    assert len(ended.err.strip().splitlines()) == 1
    assert "target.png" in ended.err
    assert not (tmp_path / "ref.json").exists()


def test_a_reference_file_is_plain_json(tmp_path: Path) -> None:
    Image.fromarray(tissue_rgb(5)[200:600, 200:800]).save(tmp_path / "target.png")
    command("stain-reference", str(tmp_path / "target.png"), "--out", str(tmp_path / "ref.json"))
    document = json.loads((tmp_path / "ref.json").read_text())
    assert document["fitted_on"] == ["target.png"]
    assert len(document["stain_matrix"]) == 3
    decoded = decode((tmp_path / "target.png").read_bytes())
    assert document["pixels"] == decoded.shape[0] * decoded.shape[1]
