"""Downstream tasks are read as their releases lie on disk, and figures are what other implementations give."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score
from torchvision import transforms
from typer.testing import CliRunner

from exaone_prep.catalog import catalog as catalog_table
from exaone_train.commands import probe
from exaone_train.errors import ProbeError
from exaone_train.logistic import DECAYS, fit, fit_by_validation
from exaone_train.probe.evaluate import TaskResult, evaluate, knn_probabilities
from exaone_train.probe.features import features_of, resized
from exaone_train.probe.folder import folder_task
from exaone_train.probe.leak import leak, patient_of, trained_on
from exaone_train.probe.macenko import BUILT_IN, PatchNormaliser
from exaone_train.probe.opened import open_encoder
from exaone_train.probe.published import TABLE, TASKS
from exaone_train.probe.report import ProbeReport, accuracy_over_slides, table
from exaone_train.probe.scores import SCORES, Score, scores
from exaone_train.probe.task import Files, Split, Task, hold_out
from exaone_train.probe.tasks import LOADERS, open_task
from tests import stain_oracle
from tests.downstream import (
    MeanColour,
    RandomProjection,
    picture,
    save,
    write_crc100k,
    write_mhist,
    write_msi,
    write_til,
)
from tests.realdata import DATA, needs_real_data, read_rgb


def open_(written: str, folder: Path, seed: int = 0) -> Task:
    return open_task(f"{written}={folder}", seed)


def apart(task: Task) -> bool:
    """Whether no group is in two parts of a task."""
    parts = [split.groups for split in (task.train, task.validation, task.test)]
    sets = [set(groups.tolist()) for groups in parts if groups is not None]
    return len(sets) == 3 and len(set.union(*sets)) == sum(map(len, sets))


# --- loaders ---


class Hdf5OfArrays(types.ModuleType):
    """Stands for h5py where it is not installed: files are NumPy's, and open as a mapping of data sets."""

    @staticmethod
    def File(path: Path, mode: str) -> dict[str, NDArray[np.uint8]]:  # noqa: D102
        assert mode == "r"
        try:
            return dict(np.load(path))
        except ValueError as error:
            raise OSError("not HDF5") from error


def write_pcam(folder: Path, write: Callable[[Path, str, NDArray[np.uint8]], None]) -> Path:
    for name, count in (("train", 12), ("valid", 6), ("test", 8)):
        kinds = np.arange(count) % 2
        images = np.stack([picture(int(kind), number, 96) for number, kind in enumerate(kinds)])
        write(folder / f"camelyonpatch_level_2_split_{name}_x.h5", "x", images)
        write(folder / f"camelyonpatch_level_2_split_{name}_y.h5", "y", kinds.astype(np.uint8).reshape(-1, 1, 1, 1))
    return folder


def as_numpy(path: Path, part: str, array: NDArray[np.uint8]) -> None:
    with path.open("wb") as out:
        np.savez(out, **{part: array})  # type: ignore[arg-type]


def as_hdf5(path: Path, part: str, array: NDArray[np.uint8]) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.create_dataset(part, data=array, chunks=True, compression="gzip")


@pytest.mark.parametrize("kind", ["stand-in", "h5py"])
def test_pcam_is_read_from_its_six_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    if kind == "stand-in":
        monkeypatch.setitem(sys.modules, "h5py", Hdf5OfArrays("h5py"))
    task = open_("pcam", write_pcam(tmp_path, as_numpy if kind == "stand-in" else as_hdf5))
    assert [len(split) for split in (task.train, task.validation, task.test)] == [12, 6, 8]
    assert task.train.labels.tolist() == [0, 1] * 6
    assert np.array_equal(task.test.images[3], picture(1, 3, 96))
    assert len(task.remarks) == 3
    assert "its release 262,144" in task.remarks[0]


def test_pcam_without_h5py_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ProbeError, match=r"^PCAM comes as HDF5, which h5py reads: install it \(`pip install"):
        open_("pcam", write_pcam(tmp_path, as_numpy))


def test_pcam_that_is_still_packed_or_damaged_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", Hdf5OfArrays("h5py"))
    (tmp_path / "camelyonpatch_level_2_split_train_x.h5.gz").touch()
    with pytest.raises(ProbeError, match=r"which is not there; unpack camelyonpatch_level_2_split_train_x\.h5\.gz\.$"):
        open_("pcam", tmp_path)
    write_pcam(tmp_path, as_numpy)
    (tmp_path / "camelyonpatch_level_2_split_test_y.h5").write_bytes(b"\x93 no")
    with pytest.raises(ProbeError, match=r"test_y\.h5 is no HDF5 file with a data set `y`\.$"):
        open_("pcam", tmp_path)


def test_mhist_keeps_its_test_and_holds_a_fifth_of_training_out(tmp_path: Path) -> None:
    task = open_("mhist", write_mhist(tmp_path))
    assert [len(split) for split in (task.train, task.validation, task.test)] == [16, 4, 10]
    assert np.bincount(task.validation.labels).tolist() == [2, 2]
    assert np.array_equal(task.test.images[0], picture(0, 20))
    assert task.classes == ("HP", "SSA")


def test_crc100k_has_nine_tissues(tmp_path: Path) -> None:
    task = open_("crc100k", write_crc100k(tmp_path))
    assert [len(split) for split in (task.train, task.validation, task.test)] == [72, 18, 27]
    assert np.bincount(task.test.labels).tolist() == [3] * 9
    assert len(task.remarks) == 2


def test_crc100k_as_scanned_is_taken_and_said_to_be(tmp_path: Path) -> None:
    task = open_("crc100k", write_crc100k(tmp_path, name="NCT-CRC-HE-100K-NONORM"))
    assert "NCT-CRC-HE-100K-NONORM" in task.remarks[-1]


@pytest.mark.parametrize("inside", [True, False])
def test_til_has_its_own_three_partitions(tmp_path: Path, inside: bool) -> None:
    write_til(tmp_path / "TCGA-TILs" if inside else tmp_path)
    task = open_("til", tmp_path)
    assert [len(split) for split in (task.train, task.validation, task.test)] == [24, 24, 24]
    assert apart(task)
    assert task.train.groups is not None
    assert task.train.groups[0] == "TCGA-00-A000"


def test_til_takes_pancancer_alone_where_it_is_listed_too(tmp_path: Path) -> None:
    metadata = write_til(tmp_path) / TIL_TABLE
    lines = metadata.read_text(encoding="utf-8").splitlines()
    again = [line.replace(",luad,", ",pancancer,").replace(",skcm,", ",pancancer,") for line in lines[1:]]
    metadata.write_text("\n".join([*lines, *again]), encoding="utf-8")
    assert len(open_("til", tmp_path).test) == 24


def test_til_that_shares_patients_between_its_own_partitions_says_so(tmp_path: Path) -> None:
    metadata = write_til(tmp_path) / TIL_TABLE
    edit(metadata, ",TCGA-02-A002", ",TCGA-00-A000")
    task = open_("til", tmp_path)
    assert task.notes == ("TIL Det.: 1 patients are in the release's test and in its training or validation part.",)
    result = evaluate(task, MeanColour(), resamples=10)
    assert result.notes == task.notes
    assert task.notes[0] in table(ProbeReport(name="mine", parameters=1, slides=1, results=[result]))


@pytest.mark.parametrize(
    "layout", ["{prefix}_{part}_{kind}/{kind}", "{prefix}_{part}/{kind}", "{prefix}_{part}_{kind}"]
)
@pytest.mark.parametrize(("key", "prefix"), [("msi_crc", "CRC_DX"), ("msi_stad", "STAD")])
def test_msi_keeps_patients_apart_in_each_way_of_unpacking(tmp_path: Path, layout: str, key: str, prefix: str) -> None:
    task = open_(key, write_msi(tmp_path, prefix, layout))
    assert [len(split) for split in (task.train, task.validation, task.test)] == [24, 6, 30]
    assert apart(task)
    assert task.classes == ("MSS", "MSIMUT")
    assert np.bincount(task.test.labels).tolist() == [15, 15]


def test_a_patient_in_training_and_test_stops(tmp_path: Path) -> None:
    write_msi(tmp_path)
    save(tmp_path / "CRC_DX_TEST_MSS" / "MSS" / "blk-X-TCGA-AA-3500-01Z-00-DX1.png", picture(0, 0))
    with pytest.raises(ProbeError, match=r"^MSI CRC has patient TCGA-AA-3500 both for \w+ and for test\.$"):
        open_("msi_crc", tmp_path)


TIL_TABLE = "images-tcga-tils-metadata.csv"
Spoil = Callable[[Path], object]


@pytest.mark.parametrize(
    ("key", "write", "spoil", "sentence"),
    [
        ("mhist", write_mhist, lambda at: (at / "annotations.csv").unlink(), r"needs .*annotations\.csv, which is not"),
        (
            "mhist",
            write_mhist,
            lambda at: (at / "images" / "MHIST_003.png").unlink(),
            r"lacks 1 pictures, such as .*003",
        ),
        ("mhist", write_mhist, lambda at: (at / "annotations.csv").write_text("a,b\n1,2\n"), r"has not the columns"),
        (
            "mhist",
            write_mhist,
            lambda at: edit(at / "annotations.csv", "HP", "XX"),
            r"has the label 'XX', not HP or SSA",
        ),
        (
            "crc100k",
            write_crc100k,
            lambda at: (at / "CRC-VAL-HE-7K").rename(at / "x"),
            r"needs the folder .*ADI, which",
        ),
        (
            "til",
            write_til,
            lambda at: edit(at / "images-tcga-tils-metadata.csv", "positive,", "high,"),
            r"the label 'til-high'",
        ),
        ("til", write_til, lambda at: (at / "images-tcga-tils").rename(at / "x"), r"lacks 24 pictures"),
        ("msi_crc", write_msi, lambda at: (at / "CRC_DX_TEST_MSS").rename(at / "x"), r"needs the folder .*MSS, which"),
        (
            "msi_crc",
            write_msi,
            lambda at: save(at / "CRC_DX_TEST_MSS/MSS/a.png", picture(0, 0)),
            r"has no TCGA barcode",
        ),
    ],
)
def test_each_fault_of_a_release_is_one_sentence(
    tmp_path: Path, key: str, write: Callable[[Path], Path], spoil: Spoil, sentence: str
) -> None:
    spoil(write(tmp_path))
    with pytest.raises(ProbeError, match=sentence) as raised:
        open_(key, tmp_path)
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)


def edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def test_a_class_without_pictures_stops(tmp_path: Path) -> None:
    for path in (write_crc100k(tmp_path) / "CRC-VAL-HE-7K" / "MUC").iterdir():
        path.unlink()
    with pytest.raises(ProbeError, match=r"^CRC-100K has no picture of MUC for test\.$"):
        open_("crc100k", tmp_path)


def test_unknown_tasks_and_folders_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"not written as TASK=FOLDER with one of pcam, mhist"):
        open_task("bach=/x", 0)
    with pytest.raises(ProbeError, match=r"There is no folder .*none for the task pcam\.$"):
        open_("pcam", tmp_path / "none")


def test_a_picture_that_does_not_decode_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no")
    with pytest.raises(ProbeError, match=r"^The picture .*a\.png cannot be decoded\.$"):
        Files((tmp_path / "a.png",))[0]


@given(st.integers(0, 1000), st.integers(2, 12), st.booleans())
@settings(max_examples=40, deadline=None)
def test_what_is_held_out_are_whole_groups_of_every_class(seed: int, each: int, grouped: bool) -> None:
    random = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], each * 4)
    groups = np.array([f"{label}-{random.integers(0, each)}" for label in labels]) if grouped else None
    split = Split(images=Files((Path("x"),) * len(labels)), labels=labels, groups=groups)
    kept, out = hold_out(split, seed)
    assert len(kept) + len(out) == len(split)
    for label in range(3):
        assert (kept.labels == label).any()
        if groups is None:
            assert 0.1 < (out.labels == label).mean() * len(out) / (each * 4) < 0.35
    if kept.groups is not None and out.groups is not None:
        assert not set(kept.groups.tolist()) & set(out.groups.tolist())


# --- the way of a picture ---


@pytest.mark.parametrize("shape", [(96, 96), (224, 224), (100, 100), (256, 256), (300, 257), (211, 480)])
def test_pictures_are_resized_and_cropped_as_torchvision_does_it(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    published = transforms.Compose(
        [transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224)]
    )
    assert np.array_equal(resized(pixels), np.asarray(published(Image.fromarray(pixels))))


@pytest.mark.parametrize("seed", range(3))
def test_patches_are_normalised_as_by_macenko_written_a_second_time(seed: int) -> None:
    patch = stain_oracle.stained(stain_oracle.HAEMATOXYLIN, stain_oracle.EOSIN, side_px=96, seed=seed)
    found = stain_oracle.fit(patch)
    expected = stain_oracle.apply(patch, found.stain_matrix, found.max_concentration)
    got = PatchNormaliser()(patch[None])[0]
    assert np.abs(got.astype(int) - expected).max() <= 1
    assert BUILT_IN.concentration.tolist() == stain_oracle.REFERENCE_MAX_CONCENTRATION.tolist()


@pytest.mark.parametrize("level", [255, 0, 128])
def test_a_patch_without_stain_stays_as_it_is(level: int) -> None:
    blank = np.full((1, 32, 32, 3), level, dtype=np.uint8)
    assert np.array_equal(PatchNormaliser()(blank), blank)


class Stained(MeanColour):
    """Paints every patch black before it is looked at."""

    def normalise(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:  # noqa: D102
        return np.zeros_like(images)


def test_features_are_those_of_the_normalised_patch(tmp_path: Path) -> None:
    split = open_("mhist", write_mhist(tmp_path)).test
    done: list[int] = []
    assert (features_of(split, Stained(), 4, done.append) == 0).all()
    assert done == [4, 8, 10]
    seen = features_of(split, MeanColour(), 3)
    assert seen == pytest.approx(MeanColour().embed(np.stack([resized(split.images[row]) for row in range(10)])))


def test_pictures_of_different_sizes_go_together(tmp_path: Path) -> None:
    paths = tuple(save(tmp_path / f"{side}.png", picture(0, side, side)) for side in (40, 64))
    split = Split(images=Files(paths), labels=np.array([0, 1]))
    assert features_of(split, MeanColour(), 2).shape == (2, 6)


class Short(MeanColour):
    """Loses a patch."""

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:  # noqa: D102
        return super().embed(images)[1:]


def test_an_encoder_that_loses_patches_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"gives no row of finite features for each of 4 patches\.$"):
        features_of(open_("mhist", write_mhist(tmp_path)).test, Short(), 4)


# --- probes and scores ---


def clouds(seed: int, count: int = 150, classes: int = 3) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    features = random.standard_normal((count, 8)) + 1.2 * np.eye(8)[labels]
    return features.astype(np.float32), labels


def test_the_linear_probe_is_scikit_learns_on_standardised_features() -> None:
    features, labels = clouds(0)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    theirs = LogisticRegression(C=1 / (0.01 * len(labels)), max_iter=1000).fit(scaled, labels).predict_proba(scaled)
    assert fit(features, labels, 3, 0.01).probabilities(features) == pytest.approx(theirs, abs=1e-3)


def test_a_decay_means_the_same_for_twice_the_data() -> None:
    features, labels = clouds(0)
    once = fit(features, labels, 3).probabilities(features)
    twice = fit(np.tile(features, (2, 1)), np.tile(labels, 2), 3).probabilities(features)
    assert twice == pytest.approx(once, abs=1e-3)


def test_the_regularisation_is_the_best_on_validation_data() -> None:
    train, validation = clouds(1, 60), clouds(2, 300)
    correct = [
        float((fit(*train, 3, one).probabilities(validation[0]).argmax(axis=1) == validation[1]).mean())
        for one in DECAYS
    ]
    assert fit_by_validation(train, validation, 3).decay == DECAYS[int(np.argmax(correct))]


def test_a_class_that_was_never_seen_is_never_predicted() -> None:
    features, labels = clouds(0, classes=2)
    probabilities = fit(features, labels * 2, 3).probabilities(features)
    assert (probabilities[:, 1] == 0).all()
    assert probabilities.sum(axis=1) == pytest.approx(1)


def test_the_vote_of_neighbours_is_scikit_learns() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    (train, labels), (test, _) = clouds(3), clouds(4, 40)
    theirs = KNeighborsClassifier(20, metric="cosine").fit(train, labels).predict_proba(test)
    assert knn_probabilities(train, labels, test, 3) == pytest.approx(theirs)


@pytest.mark.parametrize("classes", [2, 4])
def test_scores_equal_scikit_learns(classes: int) -> None:
    random = np.random.default_rng(classes)
    labels = random.integers(0, classes, 200)
    probabilities = np.round(random.dirichlet(np.ones(classes), 200) + 0.5 * np.eye(classes)[labels], 1)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    got = scores(labels, probabilities, None, resamples=10, seed=0)
    predicted = probabilities.argmax(axis=1)
    assert got["top1"].value == pytest.approx(accuracy_score(labels, predicted))
    assert got["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(labels, predicted))
    area = (
        roc_auc_score(labels, probabilities[:, 1])
        if classes == 2
        else roc_auc_score(labels, probabilities, multi_class="ovr")
    )
    assert got["auroc"].value == pytest.approx(area)


def test_intervals_over_patients_are_wider_than_over_pictures_of_the_same_patient() -> None:
    random = np.random.default_rng(0)
    patient = np.repeat(np.arange(20), 30)
    labels = np.repeat(np.arange(20) % 2, 30)
    right = (random.random(20) < 0.7)[patient]
    probabilities = np.eye(2)[np.where(right, labels, 1 - labels)]
    alone = scores(labels, probabilities, None, resamples=400, seed=0)["top1"]
    together = scores(labels, probabilities, patient.astype(np.str_), resamples=400, seed=0)["top1"]
    assert alone.value == together.value
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_one_slide_alone_has_no_interval() -> None:
    labels = np.array([0, 1, 0, 1])
    alone = scores(labels, np.eye(2)[[0, 1, 1, 1]], np.array(["a"] * 4), resamples=20, seed=0)["top1"]
    assert alone.value == 0.75
    assert np.isnan(alone.low)


def test_an_interval_over_pictures_is_that_of_a_proportion() -> None:
    labels = np.zeros(400, dtype=np.int64)
    labels[0] = 1
    probabilities = np.eye(2)[(np.arange(400) < 100).astype(int)]
    got = scores(labels, probabilities, None, resamples=2000, seed=0)["top1"]
    error = np.sqrt(got.value * (1 - got.value) / 400)
    assert (got.high - got.low) == pytest.approx(2 * 1.96 * error, rel=0.1)


@pytest.mark.parametrize("encoder", [MeanColour(), RandomProjection()])
@pytest.mark.parametrize(
    ("key", "write"),
    [("mhist", write_mhist), ("crc100k", write_crc100k), ("til", write_til), ("msi_crc", write_msi)],
)
def test_classes_that_differ_in_colour_are_told_by_colour(
    tmp_path: Path, key: str, write: Callable[[Path], Path], encoder: MeanColour
) -> None:
    result = evaluate(open_(key, write(tmp_path)), encoder, resamples=20, batch_size=16)
    assert result.linear["top1"].value > 0.9
    assert result.linear["auroc"].value > 0.95
    json.dumps(result.to_json(), allow_nan=False)


# --- patients ---


def test_patients_are_told_from_barcodes() -> None:
    assert patient_of("blk-AAAA-TCGA-AA-3516-01Z-00-DX1.png") == "TCGA-AA-3516"
    assert patient_of("tcga-cr-7395-01a-01-ts1") == "TCGA-CR-7395"
    assert patient_of("tumor_001") is None


def test_a_warning_names_patients_the_encoder_knows(tmp_path: Path) -> None:
    task = open_("msi_crc", write_msi(tmp_path))
    said = leak(task, {"TCGA-AA-3550-01Z-00-DX1.svs", "TCGA-AA-3575", "TCGA-ZZ-0000"})
    assert said is not None
    assert "trained on 2 of 10 patients it is tested with, such as TCGA-AA-3550" in said
    assert leak(task, {"TCGA-ZZ-0000"}) is None
    assert leak(task, ()) is None
    assert "does not say whom" in (leak(task, None) or "")
    assert "hashed ids" in (leak(task, {"0123456789abcdef"}) or "")
    assert leak(open_("mhist", write_mhist(tmp_path / "m")), None) is None


def test_patients_of_a_catalog_are_read_by_the_names_of_its_columns(tmp_path: Path) -> None:
    assert {"patient_id", "slide_id"} <= set(catalog_table.SCHEMA.names)
    rows = pa.table({"slide_id": ["TCGA-AA-3550-01Z"], "patient_id": ["TCGA-AA-3550"], "group": [0]})
    pq.write_table(rows, tmp_path / "catalog.parquet")
    assert trained_on([tmp_path, tmp_path / "catalog.parquet"]) == {"TCGA-AA-3550-01Z", "TCGA-AA-3550"}
    with pytest.raises(ProbeError, match=r"none cannot be read as a catalog of slides\.$"):
        trained_on([tmp_path / "none"])
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ProbeError, match=r"has no columns `patient_id` and `slide_id`\.$"):
        trained_on([tmp_path / "a.parquet"])


# --- the table ---


def test_the_published_means_are_the_means_of_the_published_figures() -> None:
    for row in TABLE:
        assert len(row.top1) == len(TASKS)
        if row.mean is not None:
            figures = [figure for figure in row.top1 if figure is not None]
            assert row.mean == pytest.approx(np.mean(figures), abs=0.0011), row.name
    assert TABLE[-1].name == "EXAONEPath"
    assert TABLE[-1].top1 == (0.901, 0.818, 0.946, 0.939, 0.756, 0.804)


def result_of(key: str, value: float, *warnings: str) -> TaskResult:
    score = {name: Score(value=value, low=value - 0.01, high=value + 0.01) for name in SCORES}
    return TaskResult(
        key=key,
        title=key,
        linear=score,
        knn=score,
        decay=0.1,
        pictures={"test": 10},
        unit="image",
        units=10,
        warnings=warnings,
    )


def test_ones_own_encoder_has_a_mean_and_a_point_with_all_six_tasks_only() -> None:
    some = ProbeReport(name="mine", parameters=21_000_000, slides=64, results=[result_of("pcam", 0.8, "Few pictures.")])
    text = table(some)
    assert "0.800*" in text
    assert "* Few pictures." in text
    assert some.mean is None
    assert "mine" not in accuracy_over_slides(some)
    every = replace(some, results=[result_of(key, 0.8) for key in TASKS])
    assert every.mean == pytest.approx(0.8)
    assert "mine" in accuracy_over_slides(every)
    row = next(line for line in table(every).splitlines() if line.startswith("mine"))
    assert row.split() == ["mine", *["0.800"] * 7, "21.0", "M", "64"]


def test_a_mean_over_tasks_with_warnings_has_a_star() -> None:
    results = [result_of(key, 0.8, *(["Careful."] if key == "til" else [])) for key in TASKS]
    text = table(ProbeReport(name="mine", parameters=1, slides=None, results=results))
    assert next(line for line in text.splitlines() if line.startswith("mine")).split()[7] == "0.800*"


# --- encoders and the command ---


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("tests.downstream", r"is not there, and is not written as module:function"),
        ("no_such_module_here:make", r"needs a module that is not installed: no_such_module_here\.$"),
        ("tests.downstream:nothing", r"The module tests\.downstream has no function nothing\.$"),
        ("tests.test_probe:nothing_at_all", r"is no encoder: it lacks name, parameters"),
    ],
)
def test_what_is_no_encoder_is_one_sentence(place: str, sentence: str) -> None:
    with pytest.raises(ProbeError, match=sentence):
        open_encoder(place)


def nothing_at_all() -> object:
    return object()


def command_line() -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    probe.register(app)
    return app


def test_the_command_prints_figures_beside_the_published_ones(tmp_path: Path) -> None:
    write_mhist(tmp_path / "mhist")
    write_msi(tmp_path / "msi")
    tasks = [f"mhist={tmp_path / 'mhist'}", f"msi_crc={tmp_path / 'msi'}"]
    plot = tmp_path / "plots" / "slides.svg"
    words = ["probe", *tasks, "--encoder", "tests.downstream:mean_colour", "--resamples", "10", "--plot", str(plot)]
    done = CliRunner().invoke(command_line(), words)
    assert done.exit_code == 0, done.output
    assert "EXAONEPath" in done.stdout
    assert "mean colour" in done.stdout
    assert "30 pictures of 10 patients" in done.stdout
    assert plot.read_text(encoding="utf-8").startswith("<svg xmlns=")
    done = CliRunner().invoke(command_line(), [*words, "--json"])
    got: dict[str, Any] = json.loads(done.stdout)
    assert set(got["tasks"]) == {"mhist", "msi_crc"}
    assert got["tasks"]["mhist"]["linear"]["top1"]["value"] == 1
    assert got["mean_top1"] is None
    assert "warning: MHIST has 20 pictures for train, its release 2,175" in done.stderr


def test_a_catalog_on_the_command_line_is_looked_through(tmp_path: Path) -> None:
    write_msi(tmp_path / "msi")
    pq.write_table(pa.table({"slide_id": ["a"], "patient_id": ["TCGA-AA-3550"]}), tmp_path / "catalog.parquet")
    words = ["probe", f"msi_crc={tmp_path / 'msi'}", "--encoder", "tests.downstream:mean_colour", "--resamples", "10"]
    done = CliRunner().invoke(command_line(), [*words, "--catalog", str(tmp_path)])
    assert "trained on 1 of 10 patients" in done.stdout


def test_every_published_task_has_a_loader() -> None:
    assert set(TASKS) < set(LOADERS)


def test_tasks_and_published_figures_are_those_of_the_documentation() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "probe.md").read_text(encoding="utf-8")
    for key in LOADERS:
        assert f"| `{key}` |" in text, key
    for row in TABLE:
        figures = " | ".join("–" if figure is None else f"{figure:.3f}" for figure in (*row.top1, row.mean))
        assert f"| {row.name} | {figures} |" in text, row.name
        if row.slides is not None:
            assert f"{row.slides:,}" in text, row.name


# --- real patches ---


@needs_real_data
def test_real_patches_are_probed_with_slides_apart() -> None:
    task = folder_task(DATA / "tiles" / "camelyon16_patches")
    assert len(task.train) + len(task.validation) + len(task.test) == 89
    assert apart(task)
    assert task.classes == ("normal", "tumor")
    assert isinstance(task.train.images[0], np.ndarray)
    result = evaluate(task, MeanColour(), resamples=50)
    assert result.unit == "slide"
    assert 0 <= result.linear["top1"].value <= 1
    assert all(split for split in result.pictures.values())


@needs_real_data
def test_real_patches_are_normalised_as_by_macenko_written_a_second_time() -> None:
    paths = sorted((DATA / "tiles" / "camelyon16_patches").rglob("*.png"))[::9]
    for path in paths:
        patch = read_rgb(path)
        found = stain_oracle.fit(patch)
        expected = stain_oracle.apply(patch, found.stain_matrix, found.max_concentration)
        assert np.abs(PatchNormaliser()(patch[None])[0].astype(int) - expected).max() <= 1


def test_names_without_a_slide_and_one_class_alone_are_one_sentence(tmp_path: Path) -> None:
    save(tmp_path / "normal" / "patch.png", picture(0, 0))
    with pytest.raises(ProbeError, match="does not have a folder for each of two or more classes"):
        folder_task(tmp_path)
    save(tmp_path / "tumour" / "slide_1_2.png", picture(1, 0))
    with pytest.raises(ProbeError, match=r"The name of .*patch\.png does not say its slide"):
        folder_task(tmp_path)
    (tmp_path / "normal" / "patch.png").rename(tmp_path / "normal" / "other_1_2.png")
    with pytest.raises(ProbeError, match="too few to keep three parts of all classes apart"):
        folder_task(tmp_path)
