"""The manifest says what is wrong with it, and what of it is content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from exaone_prep.catalog import explain_difference
from exaone_prep.errors import ManifestError
from exaone_prep.manifest import Manifest, json_schema, load_manifest, parse_manifest

ROOT = Path(__file__).resolve().parents[1]


def document(**changes: Any) -> dict[str, Any]:
    return {"name": "set", "cohorts": [{"name": "tcga", "slides": "a/*.svs"}], **changes}


def manifest(**changes: Any) -> Manifest:
    return parse_manifest(document(**changes), {}, where="m.yaml")


def test_the_recommended_manifest_holds_every_default() -> None:
    recommended = load_manifest(ROOT / "data_manifest.recommended.yaml")
    written = yaml.safe_load((ROOT / "data_manifest.recommended.yaml").read_text(encoding="utf-8"))
    default = manifest()
    assert recommended.content() == default.content()
    for section, value in default.model_dump(mode="json", exclude={"name", "cohorts"}).items():
        assert section in written
        if isinstance(value, dict):
            assert set(value) == set(written[section])


def test_the_repositorys_manifest_is_exaonepaths_way() -> None:
    ours = load_manifest(ROOT / "data_manifest.yaml")
    assert (ours.patch.size_px, ours.patch.mpp) == (256, 0.5)
    assert (ours.stain.method, ours.stain.fit, ours.stain.on_failure) == ("macenko", "patch", "keep")
    assert explain_difference(manifest().content(), ours.content()) == ["stain.fit"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patch": {"size": 256}}, ["m.yaml", "patch.size", "did you mean `size_px`"]),
        ({"stain": {"fit": "tile"}}, ["m.yaml", "stain.fit", "'slide' or 'patch'", "'tile'"]),
        ({"codec": {"quality": 101}}, ["codec.quality", "100", "101"]),
        ({"cohorts": [{"name": "tcga"}]}, ["cohorts.0", "names no slides", "table"]),
        ({"cohorts": [{"name": "tcga", "slides": "a", "patient_regex": "("}]}, ["patient_regex", "regular expression"]),
        ({"cohorts": [{"name": "t", "slides": "a"}, {"name": "t", "slides": "b"}]}, ["'t'", "twice"]),
        ({"splits": {"train": 0.5}}, ["splits", "train"]),
        ({"splits": {"val": 0.5, "test": 0.5}}, ["splits", "nothing for `train`"]),
        ({"patch": {"mpp": float("nan")}}, ["patch.mpp", "nan"]),
        ({"seed": -1}, ["seed"]),
    ],
)
def test_errors_name_file_field_and_remedy_in_one_line(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ManifestError) as caught:
        manifest(**changes)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_file_that_is_no_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"There is no manifest at .*gone\.yaml"):
        load_manifest(tmp_path / "gone.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(ManifestError, match=r"list\.yaml is not a manifest"):
        load_manifest(tmp_path / "list.yaml")
    (tmp_path / "bad.yaml").write_text("a: [\n")
    with pytest.raises(ManifestError, match=r"bad\.yaml is not YAML"):
        load_manifest(tmp_path / "bad.yaml")


def test_single_settings_are_laid_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(yaml.safe_dump(document(stain={"on_failure": "drop"})))
    changed = load_manifest(path, {"stain.fit": "patch", "codec.quality": "95"})
    assert (changed.stain.fit, changed.stain.on_failure, changed.codec.quality) == ("patch", "drop", 95)
    with pytest.raises(ManifestError, match=r"stain\.fitt"):
        load_manifest(path, {"stain.fitt": "patch"})
    with pytest.raises(ManifestError, match="name"):
        load_manifest(path, {"name.first": "x"})


def test_a_default_and_the_same_value_written_out_are_the_same_content() -> None:
    """8 and 8.0 would be two content ids."""
    written = manifest(
        tissue={"mpp": 8, "min_speck_um2": 10000}, codec={"subsampling": 420}, quality={"max_white": 0.9}
    )
    assert repr(written.content()) == repr(manifest().content())


def test_places_and_names_are_no_content() -> None:
    here = manifest(exclude="a.csv")
    there = manifest(name="other", cohorts=[{"name": "tcga", "slides": "/b/*.svs"}], exclude="/b/a.csv")
    assert here.content() == there.content()
    assert "slides" not in here.canonical()["cohorts"][0]
    assert "a.csv" not in str(here.canonical())


def test_differences_are_dotted_names() -> None:
    old = manifest(cohorts=[{"name": "a", "slides": "a"}, {"name": "b", "slides": "b", "mpp": 0.5}]).canonical()
    new = manifest(
        cohorts=[{"name": "b", "slides": "b", "mpp": 0.25}, {"name": "c", "slides": "c"}, {"name": "a", "slides": "x"}],
        stain={"fit": "patch"},
        splits={"val": 0.01, "test": 0.1},
        readers=["openslide", "tiatoolbox"],
    ).canonical()
    assert explain_difference(old, new) == ["cohorts.b.mpp", "cohorts.c", "readers", "splits.test", "stain.fit"]
    assert explain_difference(old, old) == []


def test_the_schema_knows_every_field() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == set(Manifest.model_fields)
    assert schema["additionalProperties"] is False
