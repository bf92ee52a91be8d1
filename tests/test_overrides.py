"""`--overrides` corrects single slides: what a person fills into the list of quarantined slides repairs a build."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from exaone_prep.catalog.overrides import Override, read_overrides
from exaone_prep.dataset import open_dataset
from exaone_prep.errors import ManifestError
from tests.commandline import Ended, run_here
from tests.committed import outcomes, results
from tests.smallslides import small_slide


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest, and a data set of it in which two of three slides are quarantined for want of an mpp."""
    folder = tmp_path_factory.mktemp("overrides")
    for number, (name, mpp) in enumerate((("good", 0.5), ("one", None), ("two", None))):
        small_slide(folder / "slides" / f"{name}.tiff", number, mpp=mpp)
    document = {"name": "first", "cohorts": [{"name": "c", "slides": ["slides"]}], "splits": {}}
    (folder / "m.yaml").write_text(yaml.safe_dump(document))
    build(folder, "first").succeeded()
    assert results(folder / "first") == {"good": "done", "one": "no_mpp", "two": "no_mpp"}
    return folder


def build(folder: Path, out: str, *more: object) -> Ended:
    return run_here("build", folder / "m.yaml", "--out", folder / out, "--workers", 1, *more)


def table(folder: Path, text: str) -> Path:
    file = folder / "fix.csv"
    file.write_text(text)
    return file


def test_a_corrected_slide_is_built_after_the_data_set_that_set_it_aside(folder: Path) -> None:
    fix = table(folder, "slide_id,mpp,allow_non_he,cohort,reason,sentence\none,0.5,,c,no_mpp,x\ntwo,,,,,\n")
    build(folder, "second", "--after", folder / "first", "--overrides", fix).succeeded()
    assert results(folder / "second") == {"one": "done", "two": "no_mpp"}
    assert outcomes(folder / "second")["one"]["mpp_source"] == "slide"
    # The same command goes on; another correction does not.
    build(folder, "second", "--after", folder / "first", "--overrides", fix).succeeded()
    fix = table(folder, "slide_id,mpp\none,0.25\n")
    assert "slide one" in build(folder, "second", "--after", folder / "first", "--overrides", fix).sentence(2)


def test_a_correction_is_of_its_slide_alone_and_part_of_the_content_id(folder: Path) -> None:
    fix = table(folder, "slide_id,allow_non_he\ngood,yes\n")
    build(folder, "other", "--overrides", fix).succeeded()
    catalog = open_dataset(folder / "other").catalog
    assert {row.slide_id: row.allow_non_he for row in catalog.rows} == {"good": True, "one": False, "two": False}
    assert catalog.content_id != open_dataset(folder / "first").catalog.content_id


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slide_id,mmp\none,0.5\n", "`mmp`"),
        ("slide_id,reason\none,no_mpp\n", "needs a column"),
        ("mpp\n0.5\n", "needs a column"),
        ("slide_id,mpp\none,coarse\n", "'coarse'"),
        ("slide_id,mpp\n,0.5\n", "`slide_id` is empty"),
        ("slide_id,allow_non_he\none,perhaps\n", "'perhaps'"),
        ("slide_id,mpp\none,0.5\none,0.25\n", "twice"),
        ("slide_id,mpp\nthree,0.5\n", "slide three, which the manifest does not have"),
        ("slide_id,mpp\ngood,0.5\n", "slide good, which the earlier data set has done"),
    ],
)
def test_a_wrong_table_is_refused_in_one_sentence_and_nothing_is_written(folder: Path, text: str, words: str) -> None:
    fix = table(folder, text)
    assert words in build(folder, "wrong", "--after", folder / "first", "--overrides", fix).sentence(2)
    assert not (folder / "wrong").exists()


def test_a_row_that_corrects_nothing_is_passed_over(tmp_path: Path) -> None:
    fix = table(tmp_path, "slide_id,mpp,allow_non_he\nempty,,\nboth,0.25,No\n")
    assert read_overrides(str(fix), tmp_path) == {"both": Override(mpp=0.25, allow_non_he=False)}
    with pytest.raises(ManifestError, match="cannot be read"):
        read_overrides("nowhere.csv", tmp_path)
