"""Encoders that leave a run: what timm makes of them, and tables of features."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image

from exaone_train.augment import MEAN, STD
from exaone_train.embed import embed
from exaone_train.encoder import load_encoder
from exaone_train.errors import CheckpointError, ProbeError, ShardError
from exaone_train.export import export
from exaone_train.fit import fit
from exaone_train.probe.macenko import PatchNormaliser
from exaone_train.probe.opened import open_encoder
from exaone_train.shardset import ShardSet, open_shards
from tests.downstream import picture, save
from tests.trainruns import Trainer, build_tinted, tiny

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tinted(tmp_path_factory.mktemp("tinted"), slides=4)


@pytest.fixture(scope="module")
def shards(dataset: Path) -> ShardSet:
    return open_shards([str(dataset)], "train")


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    config = tiny(run__max_steps=4, run__checkpoint_every=2, run__keep_checkpoints=2)
    assert fit(config, [str(dataset)], run)
    return run


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "encoder"
    export(run, out)
    return out


def images_of(dataset: Path) -> dict[str, np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]]:
    """Samples of the split `train`, read as anybody would: by tarfile and Pillow."""
    found = {}
    for path in sorted((dataset / "shards" / "train").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    file = tar.extractfile(member)
                    assert file is not None
                    found[member.name.removesuffix(".jpg")] = np.asarray(Image.open(io.BytesIO(file.read())))
    return found


def test_timm_makes_the_teachers_encoder_of_what_is_exported(run: Path, exported: Path) -> None:
    model = timm.create_model(f"local-dir:{exported}", pretrained=True).eval()
    crops = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    state = torch.load(sorted((run / "checkpoints").iterdir())[-1], weights_only=True)
    weights = {name.removeprefix("encoder."): one for name, one in state["teacher"].items() if "encoder." in name}
    assert {name: one.tolist() for name, one in model.state_dict().items()} == {
        name: one.tolist() for name, one in weights.items()
    }
    with torch.inference_mode():
        torch.testing.assert_close(model(crops), load_encoder(run).module(crops))
        torch.testing.assert_close(model(crops), load_encoder(exported).module(crops))
    shown = json.loads((exported / "config.json").read_text())["pretrained_cfg"]
    assert (shown["mean"], shown["std"], shown["input_size"]) == (list(MEAN), list(STD), [3, 64, 64])


def test_what_is_exported_says_what_it_came_from(exported: Path, dataset: Path) -> None:
    record = json.loads((exported / "config.json").read_text())["exaone_train"]
    build = json.loads((dataset / "build.json").read_text())
    assert record["shards"]["data_sets"] == [build]
    assert record["shards"]["stain"]["method"] == "none"
    assert record["step"] == 4
    assert record["slides"] == build["slides"]["done"]
    assert record["parameters"] == sum(one.numel() for one in load_encoder(exported).module.parameters())
    assert str(dataset) not in (exported / "config.json").read_text(), "places are nobody's business"


def test_an_earlier_checkpoint_is_another_encoder(run: Path, exported: Path, tmp_path: Path) -> None:
    assert export(run, tmp_path / "earlier", step=2).step == 2
    one, other = (load_encoder(place).module.state_dict()["norm.weight"] for place in (tmp_path / "earlier", exported))
    assert not torch.equal(one, other)


def test_nothing_is_overwritten(run: Path, exported: Path) -> None:
    before = (exported / "config.json").stat().st_mtime_ns
    with pytest.raises(CheckpointError, match="exists"):
        export(run, exported)
    assert (exported / "config.json").stat().st_mtime_ns == before


def test_what_is_no_encoder_is_a_sentence(run: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        load_encoder(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint of step 3"):
        export(run, tmp_path / "out", step=3)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((exported / "config.json").read_text())
    (broken / "model.safetensors").write_bytes((exported / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="does not hold an encoder"):
        load_encoder(broken)
    assert not (tmp_path / "out").exists()


def test_every_sample_gets_the_features_of_its_image(
    dataset: Path, shards: ShardSet, exported: Path, tmp_path: Path
) -> None:
    encoder = load_encoder(exported)
    rows = embed(shards, encoder, tmp_path / "features.parquet", batch_size=5)
    table = pq.read_table(tmp_path / "features.parquet")
    images = images_of(dataset)
    assert table["key"].to_pylist() == list(images)
    assert rows == table.num_rows == len(images)
    assert [key.rsplit("-", 2)[0] for key in images] == table["slide_id"].to_pylist()
    size_px, side = encoder.size_px, next(iter(images.values())).shape[0]
    start = (side - size_px) // 2
    for number in (0, len(images) - 1):
        image = list(images.values())[number][start : start + size_px, start : start + size_px] / 255
        seen = torch.tensor((image - np.array(MEAN)) / np.array(STD)).permute(2, 0, 1).float()[None]
        expected = encoder.module(seen)[0].numpy()
        np.testing.assert_allclose(table["feature"][number].as_py(), expected, rtol=1e-3, atol=1e-4)
    about = json.loads(table.schema.metadata[b"exaone_train.encoder"])
    assert about["step"] == 4
    assert about["shards"]["data_sets"][0]["digest"] == json.loads((dataset / "build.json").read_text())["digest"]


def test_a_number_of_samples_of_each_slide_can_be_asked_for(shards: ShardSet, exported: Path, tmp_path: Path) -> None:
    embed(shards, load_encoder(exported), tmp_path / "some.parquet", per_slide=3)
    slides = pq.read_table(tmp_path / "some.parquet")["slide_id"].to_pylist()
    assert {slides.count(slide) for slide in slides} == {3}


def test_a_damaged_image_ends_it_or_is_left_out(dataset: Path, exported: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for path in dataset.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(dataset)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(dataset)).write_bytes(path.read_bytes())
    tar = sorted((copy / "shards" / "train").glob("*.tar"))[0]
    data = bytearray(tar.read_bytes())
    data[512:2000] = bytes(1488)
    tar.write_bytes(data)
    shards, encoder = open_shards([str(copy)], "train"), load_encoder(exported)
    with pytest.raises(ShardError, match="does not decode"):
        embed(shards, encoder, tmp_path / "features.parquet")
    assert list(tmp_path.glob("*.parquet")) == []
    rows = embed(shards, encoder, tmp_path / "features.parquet", on_damage="skip")
    assert rows == sum(shard.samples for shard in shards.shards) - 1


def test_the_commands_do_this_and_say_what_they_did(run: Path, dataset: Path, tmp_path: Path) -> None:
    with Trainer(tmp_path) as trainer:
        done = trainer.run("export", str(run), "--out", str(tmp_path / "encoder"))
        assert done.code == 0, done.err
        words = ("--checkpoint", str(tmp_path / "encoder"), "--out", str(tmp_path / "features.parquet"))
        done = trainer.run("embed", str(dataset), *words, "--per-slide", "2")
        assert done.code == 0, done.err
        slides = pq.read_table(tmp_path / "features.parquet")["slide_id"].to_pylist()
        assert all(slides.count(slide) == 2 for slide in slides)
        assert f"{len(slides)} samples" in done.err
        again = trainer.run("export", str(run), "--out", str(tmp_path / "encoder"))
        assert again.code == 2
        assert again.err.count("\n") == 1


def test_collapse_is_measured_on_such_a_table_and_pictures_are_probed_with_such_an_encoder(
    run: Path, dataset: Path, tmp_path: Path
) -> None:
    for kind in range(2):
        for number in range(12):
            patient = f"slide-{kind}-{number % 6}"
            save(tmp_path / "patches" / f"class-{kind}" / f"{patient}_{number}_0.png", picture(kind, number, 64))
    with Trainer(tmp_path) as trainer:
        table = str(tmp_path / "features.parquet")
        done = trainer.run("embed", str(dataset), "--checkpoint", str(run), "--out", table, "--split", "train")
        assert done.code == 0, done.err
        measured = trainer.run("collapse", table, "--json", "--resamples", "20")
        assert measured.code == 0, measured.err
        assert "same_slide_knn" in measured.err
        checkpoint = max((run / "checkpoints").iterdir())
        asked = ("--shards", str(dataset), "--split", "train", "--resamples", "20")
        both = trainer.run("collapse", f"table={table}", f"run={run}", f"alone={checkpoint}", *asked)
        assert both.code == 0, both.err
        row = next(line for line in both.err.splitlines() if line.startswith("same_slide_knn"))
        figures = re.findall(r"(\d\.\d{3}) \[", row)
        assert len(figures) == 3
        assert len(set(figures)) == 1, "the same features, made before or now"
        blind = trainer.run("collapse", str(run))
        assert (blind.code, blind.err.count("\n")) == (2, 1)
        assert "--shards" in blind.err
        probed = trainer.run("probe", f"folder={tmp_path / 'patches'}", "--encoder", str(run), "--resamples", "20")
        assert probed.code == 0, probed.err
        assert "4 steps" in probed.err


def test_pictures_are_probed_in_the_stain_of_the_shards(run: Path, tmp_path: Path) -> None:
    state = torch.load(sorted((run / "checkpoints").iterdir())[-1], weights_only=True)
    pictures = np.stack([picture(kind, kind, 64) for kind in (0, 3)])
    own = {"name": "own", "stain_matrix": [[0.6, 0.2], [0.7, 0.8], [0.4, 0.6]], "max_concentration": [1.5, 1.0]}
    seen = {}
    for name, stain in {
        "none": {"method": "none", "reference": "macenko"},
        "built in": {"method": "macenko", "reference": "macenko"},
        "own": {"method": "macenko", "reference": own},
    }.items():
        torch.save({**state, "shards": {**state["shards"], "stain": stain}}, tmp_path / "changed.pt")
        seen[name] = open_encoder(str(tmp_path / "changed.pt")).normalise(pictures)
    np.testing.assert_array_equal(seen["none"], pictures)
    np.testing.assert_array_equal(seen["built in"], PatchNormaliser()(pictures))
    assert (seen["own"] != seen["built in"]).any()
    torch.save({**state, "shards": {**state["shards"], "stain": {"method": "reinhard"}}}, tmp_path / "changed.pt")
    with pytest.raises(ProbeError, match="by the method 'reinhard'"):
        open_encoder(str(tmp_path / "changed.pt"))
