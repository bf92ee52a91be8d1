"""With hashed ids nothing that a person could be found by leaves `private/`: no file, no message, no log."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from exaone_prep.dataset import Dataset, create_dataset
from exaone_prep.manifest import load_manifest
from tests.catalogs import table
from tests.commandline import Ended, run, run_here
from tests.committed import build_json, results, samples
from tests.realdata import CMU, needs_real_data
from tests.smallslides import small_slide

KEY = "EXAONE_PREP_ID_KEY"
SECRET = "a-key-of-the-tests"
CLEAR = ("Klinikum-Nord", "M-2024-17", "Musterfrau", "Erika", "MRN-0815", SECRET)
"""A folder, a case, names and the patient's number; and the key that everything hangs on."""

# Stands for a decoder that names the file in its log and in its error, in worker processes only.
TALKATIVE = """
import pathlib
import sys

import openslide


class OpenSlide(openslide.OpenSlide):
    def __init__(self, path):
        if "cursed" in str(path) and not (pathlib.Path(path).parent / "quiet").exists():
            sys.stderr.write(f"TIFFOpen: {path}: strange\\n")
            raise RuntimeError(f"{path} is strange")
        super().__init__(path)


openslide.OpenSlide = OpenSlide
"""

LABELS_ARE_FATAL = """
import openslide


class OpenSlide(openslide.OpenSlide):
    @property
    def associated_images(self):
        raise AssertionError("a label was read")


openslide.OpenSlide = OpenSlide
"""


def texts(root: Path) -> Iterator[tuple[str, bytes]]:
    """Everything in a data set outside `private/`, as it lies there and unpacked, with where it stands."""
    for file in sorted(root.rglob("*")):
        name = str(file.relative_to(root))
        if file.relative_to(root).parts[0] == "private":
            continue
        yield f"the name {name}", name.encode()
        if file.is_file():
            data = file.read_bytes()
            yield name, data
            yield from _unpacked(name, data)


def _unpacked(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    if name.endswith(".parquet"):
        content = pq.ParquetFile(io.BytesIO(data)).read()
        yield f"rows of {name}", repr(content.to_pylist()).encode()
        yield f"metadata of {name}", repr(content.schema.metadata).encode()
        yield from _metadata(name, content.schema)
    if name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield f"members of {name}", repr(archive.infolist()).encode()
            for member in archive.namelist():
                yield f"{member} in {name}", archive.read(member)


def _metadata(name: str, schema: pa.Schema) -> Iterator[tuple[str, bytes]]:
    for key, value in (schema.metadata or {}).items():
        yield f"{key.decode()} of {name}", value


def leaks(root: Path, *ended: Ended) -> list[str]:
    """Where clear names stand."""
    some = [*texts(root), *((f"output {number}", (e.out + e.err).encode()) for number, e in enumerate(ended))]
    assert any(name.startswith("rows of catalog") for name, _ in some)
    return [f"{clear} in {name}" for name, text in some for clear in CLEAR if clear.lower().encode() in text.lower()]


NAMES = ("good", "no_mpp", "gone", "changed", "cursed")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five slides."""
    folder = tmp_path_factory.mktemp("originals")
    for i, name in enumerate(NAMES):
        small_slide(folder / f"Musterfrau_Erika_{name}.tiff", i, mpp=None if name == "no_mpp" else 0.5)
    return folder


@pytest.fixture
def folder(tmp_path: Path, case: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five slides of two patients in a folder that tells too much, and a manifest that hides it."""
    monkeypatch.setenv(KEY, SECRET)
    shutil.copytree(case, tmp_path / "Klinikum-Nord" / "M-2024-17")
    patients = [
        {"slide": slide(tmp_path, name), "patient_id": "MRN-0815-1" if i < 2 else "MRN-0815-2"}
        for i, name in enumerate(NAMES)
    ]
    document = {
        "name": "hidden",
        "cohorts": [{"name": "north", "table": table(tmp_path / "slides.csv", patients)}],
        "privacy": {"slide_ids": "hash"},
        "shards": {"slides_per_group": 1},
        "splits": {},
    }
    (tmp_path / "data_manifest.yaml").write_text(yaml.safe_dump(document))
    return tmp_path


def slide(folder: Path, name: str) -> Path:
    return folder / "Klinikum-Nord" / "M-2024-17" / f"Musterfrau_Erika_{name}.tiff"


def words(folder: Path) -> list[object]:
    return ["build", folder / "data_manifest.yaml", "--out", folder / "dataset", "--workers", 1]


def test_no_clear_name_leaves_the_private_folder_neither_by_failures_nor_by_success(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder / "dataset"
    python = folder / "python"
    python.mkdir()
    (python / "sitecustomize.py").write_text(TALKATIVE)
    monkeypatch.setenv("PYTHONPATH", str(python))
    create(folder)
    original = slide(folder, "changed").read_bytes()
    small_slide(slide(folder, "changed"), 77)
    slide(folder, "gone").rename(folder / "elsewhere.tiff")

    failed = run(*words(folder))
    assert "3 of 5 groups" in failed.sentence(1)
    attempts = [json.loads(file.read_text()) for file in (out / "attempts").iterdir()]
    assert {attempt["error"] for attempt in attempts} == {"UnreachableError", "SlideChangedError", "WorkerFailedError"}
    logs = "".join(attempt["log"] + attempt["traceback"] for attempt in attempts)
    assert "strange" in logs
    assert leaks(out, failed) == []

    slide(folder, "changed").write_bytes(original)
    (folder / "elsewhere.tiff").rename(slide(folder, "gone"))
    (slide(folder, "gone").parent / "quiet").touch()
    done = run_here(*words(folder)).succeeded()
    assert sorted(results(out).values()) == ["done", "done", "done", "done", "no_mpp"]
    assert leaks(out, done) == []

    # What only reads a data set does without the private folder.
    shutil.move(out / "private", folder / "kept")
    ended = [
        run_here("status", out),
        run_here("verify", out, "--deep"),
        run_here("sheet", out, "--out", folder / "s.png"),
    ]
    for each in ended:
        each.succeeded()
    assert leaks(out, *ended) == []


def create(folder: Path) -> Dataset:
    """Freeze the catalog."""
    return create_dataset(folder / "dataset", load_manifest(folder / "data_manifest.yaml"), base=folder)


def test_the_search_for_clear_names_finds_them_where_ids_are_not_hashed(folder: Path) -> None:
    manifest = folder / "data_manifest.yaml"
    manifest.write_text(manifest.read_text().replace("slide_ids: hash", "slide_ids: name"))
    for name in ("no_mpp", "gone", "changed", "cursed"):
        slide(folder, name).unlink()
    table(folder / "slides.csv", [{"slide": slide(folder, "good"), "patient_id": "MRN-0815-1"}])
    found = leaks(folder / "dataset", run_here(*words(folder)).succeeded())
    for where in ("rows of catalog.parquet", "rows of outcomes.parquet", "rows of index/train", "shards/train/shard-"):
        assert any(f"Erika in {where}" in leak for leak in found), where
    assert any("slides/group-000000.zarr.zip" in leak for leak in found)


def test_clear_names_can_be_looked_up_in_the_private_folder(folder: Path) -> None:
    dataset = create(folder)
    (file,) = (folder / "dataset" / "private").iterdir()
    rows = pq.ParquetFile(file).read().to_pylist()
    assert {row["clear_id"] for row in rows} == {path.stem for path in slide(folder, "good").parent.iterdir()}
    assert {row["patient"] for row in rows} == {"MRN-0815-1", "MRN-0815-2"}
    hashed = {row["slide_id"] for row in rows}
    assert {row.slide_id for row in dataset.catalog.rows} == hashed
    assert all(len(slide_id) == 16 and int(slide_id, 16) >= 0 for slide_id in hashed)
    assert len({row.patient_id for row in dataset.catalog.rows}) == 2


def test_a_slide_that_cannot_be_read_for_the_catalog_is_named_by_its_hashed_id(folder: Path) -> None:
    slide(folder, "gone").unlink()
    slide(folder, "gone").symlink_to(folder / "nowhere.tiff")
    ended = run_here(*words(folder))
    sentence = ended.sentence(1)
    assert "1 of 5 slides cannot be read" in sentence
    assert not [clear for clear in CLEAR if clear in ended.err + ended.out]


def test_without_the_key_one_sentence_says_what_to_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY)
    sentence = run_here(*words(folder)).sentence(2)
    assert KEY in sentence
    assert not (folder / "dataset").exists()


@needs_real_data
def test_label_and_macro_images_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)
    (tmp_path / "sitecustomize.py").write_text(LABELS_ARE_FATAL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    out = tmp_path / "dataset"
    one = ("--slides", CMU, "--out", out, "--workers", 1, "--set", "patch.mpp=1", "--set", "privacy.slide_ids=hash")
    done = run_here("build", *one).succeeded()
    assert list(results(out).values()) == ["done"]
    assert build_json(out)["samples"] == sum(1 for _ in samples(out)) > 0
    # Properties are copied by an allow-list: not among them are the name inside the file and the person at the scanner.
    own_words = ("cmu-1", "cmu_small", "b414003d-95c6-48b0-9369-8010ed517ba7")
    for name, text in [*texts(out), ("output", (done.out + done.err).encode())]:
        for word in own_words:
            assert word.encode() not in text.lower(), name
