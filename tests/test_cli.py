"""The commands: what they print, which exit code they end with, and what they do without."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from exaone_prep import __version__
from exaone_prep.errors import DatasetError
from exaone_prep.shards.index import index_parquet, read_shard_tables, values_sha256
from tests.commandline import run_here
from tests.committed import build_json
from tests.smallslides import small_slides

SPLIT = "train"


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands") / "slides"
    small_slides(folder, 2)
    return folder


def build_words(slides: Path, out: Path) -> list[object]:
    settings = ("codec.quality=85", "shards.samples_per_shard=10", "splits={}")
    return ["build", "--slides", slides, "--out", out, "--workers", 1, *[w for s in settings for w in ("--set", s)]]


@pytest.fixture(scope="module")
def built(slides: Path) -> Path:
    """A complete data set, only to be read."""
    out = slides.parent / "dataset"
    done = run_here(*build_words(slides, out)).succeeded()
    assert done.out == f"{out}\ndigest {build_json(out)['digest']}\n"
    return out


@pytest.fixture
def dataset(built: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    shutil.copytree(built, tmp_path / "dataset")
    return tmp_path / "dataset"


def test_a_complete_data_set_is_not_built_again(slides: Path, built: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in built.rglob("*")}
    done = run_here(*build_words(slides, built)).succeeded()
    assert "complete already" in done.err
    assert build_json(built)["digest"] in done.out
    assert {file: file.stat().st_mtime_ns for file in built.rglob("*")} == before


def test_single_settings_are_laid_over_slides_and_over_a_manifest_alike(
    slides: Path, built: Path, tmp_path: Path
) -> None:
    assert yaml.safe_load((built / "manifest.yaml").read_text())["codec"]["quality"] == 85
    manifest = tmp_path / "data_manifest.yaml"
    document = {
        "name": "slides",
        "cohorts": [{"name": "slides", "slides": [str(slides)]}],
        "codec": {"quality": 60, "subsampling": "420"},
        "shards": {"samples_per_shard": 10},
        "splits": {},
    }
    manifest.write_text(yaml.safe_dump(document))
    # A data set goes on under equal settings only, from wherever they come.
    same = run_here("build", manifest, "--out", built, "--set", "codec.quality=85").succeeded()
    assert build_json(built)["digest"] in same.out
    assert "codec.quality differ" in run_here("build", manifest, "--out", built).sentence(2)
    in_cohort = run_here("build", manifest, "--out", built, "--set", "codec.quality=85", "--set", "cohorts.0.mpp=0.5")
    assert "cohorts.slides.mpp differ" in in_cohort.sentence(2)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--set", "codec.qality=85"), "did you mean `quality`?"),
        (("--set", "codec.quality"), "name=value"),
        (("--set", "codec.quality=much"), "codec.quality"),
        (("--set", "codec.quality.more=1"), "codec.quality"),
        (("--set", "nonsense=1"), "nonsense"),
        (("--set", "codec={"), "YAML"),
    ],
)
def test_a_wrong_setting_is_named(slides: Path, tmp_path: Path, words: tuple[str, ...], expected: str) -> None:
    assert expected in run_here("build", "--slides", slides, "--out", tmp_path / "out", *words).sentence(2)
    assert not (tmp_path / "out").exists()


def test_a_manifest_and_slides_exclude_each_other(slides: Path, tmp_path: Path) -> None:
    assert "one of the two" in run_here("build", "--out", tmp_path / "out").sentence(2)
    manifest = tmp_path / "m.yaml"
    assert "one of the two" in run_here("build", manifest, "--slides", slides, "--out", tmp_path / "out").sentence(2)
    assert "no manifest" in run_here("build", manifest, "--out", tmp_path / "out").sentence(2)


def test_bytes_of_another_environment_end_with_code_4_and_stay(slides: Path, dataset: Path) -> None:
    shard = next((dataset / "shards" / SPLIT).glob("*.tar"))
    # As another environment that had come as far as this shard would have left them.
    shutil.rmtree(dataset / "ledger")
    (dataset / "build.json").unlink()
    other = shard.read_bytes().replace(b"fitted", b"Fitted")
    shard.unlink()
    shard.write_bytes(other)
    sentence = run_here(*build_words(slides, dataset)).sentence(4)
    assert shard.name in sentence
    assert "numpy=" in sentence
    assert shard.read_bytes() == other
    assert not (dataset / "ledger").exists()


def test_status_tells_a_complete_data_set_under_the_names_that_programs_rely_on(built: Path) -> None:
    status = json.loads(run_here("status", built, "--json").succeeded().out)
    summary = build_json(built)
    assert {name: status[name] for name in ("state", "build_id", "digest", "slides", "samples", "shards", "bytes")} == {
        "state": "complete",
        "build_id": summary["content_id"],
        "digest": summary["digest"],
        "slides": {"done": 2, "empty": 0, "quarantined": 0, "waiting": 0},
        "samples": summary["samples"],
        "shards": summary["shards"],
        "bytes": sum(file.stat().st_size for file in built.rglob("*.tar")),
    }
    text = run_here("status", built).succeeded().out
    assert f"digest    {summary['digest']}" in text


def test_status_of_a_build_that_stopped_counts_what_waits(dataset: Path) -> None:
    (dataset / "build.json").unlink()
    shutil.rmtree(dataset / "ledger")
    status = json.loads(run_here("status", dataset, "--json").succeeded().out)
    assert status["state"] == "stopped"
    assert status["slides"] == {"done": 0, "empty": 0, "quarantined": 0, "waiting": 2}
    assert status["samples"] == status["shards"] == status["bytes"] == 0


@pytest.mark.parametrize("command", ["status", "verify", "sheet"])
def test_a_directory_without_data_set_is_refused(tmp_path: Path, command: str) -> None:
    assert "no data set" in run_here(command, tmp_path / "nothing").sentence(2)


def first_shard(dataset: Path) -> Path:
    return min((dataset / "shards" / SPLIT).glob("*.tar"))


def index_file(dataset: Path) -> Path:
    return dataset / "index" / SPLIT / "group-000000.parquet"


def missing_shard(dataset: Path) -> None:
    first_shard(dataset).unlink()


def truncated_shard(dataset: Path) -> None:
    shard = first_shard(dataset)
    shard.write_bytes(shard.read_bytes()[:-1024])


def flipped_bit(dataset: Path) -> None:
    data = bytearray(first_shard(dataset).read_bytes())
    data[len(data) // 2] ^= 1
    first_shard(dataset).write_bytes(data)


def stray_shard(dataset: Path) -> None:
    shutil.copy(first_shard(dataset), first_shard(dataset).with_name("shard-000099-000.tar"))


def missing_survey(dataset: Path) -> None:
    (dataset / "survey" / "group-000000.parquet").unlink()


def missing_index(dataset: Path) -> None:
    index_file(dataset).unlink()


def damaged_index(dataset: Path) -> None:
    size = index_file(dataset).stat().st_size
    index_file(dataset).write_bytes(bytes(size))


def swapped_rows(dataset: Path) -> None:
    """Two samples of a shard change places in the index, and the ledger follows: only the tar can tell."""
    tables = read_shard_tables(index_file(dataset).read_bytes())
    tables[0] = tables[0].take([1, 0, *range(2, tables[0].num_rows)])
    put_index(dataset, tables)


def another_json(dataset: Path) -> None:
    """The index says of a sample what its JSON does not, and the ledger follows."""
    tables = read_shard_tables(index_file(dataset).read_bytes())
    rows = tables[0].to_pylist()
    rows[0]["tissue_fraction"] = 0.1234
    tables[0] = tables[0].from_pylist(rows, schema=tables[0].schema)
    put_index(dataset, tables)


def put_index(dataset: Path, tables: list[Any]) -> None:
    data = index_parquet(tables)
    index_file(dataset).write_bytes(data)
    values = values_sha256(tables)
    entry = {"rows": sum(table.num_rows for table in tables), "values_sha256": values}
    entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit_json(dataset / "ledger" / "group-000000.json", lambda record: record.update(index=entry))
    line = f"{SPLIT}/group-000000 {entry['rows']} {values}\n"
    digest = hashlib.sha256(line.encode()).hexdigest()
    edit_json(dataset / "build.json", lambda summary: summary.update(index_digest=digest))


def damaged_image(dataset: Path) -> None:
    """The head of an image is lost before the checksum was taken: only decoding can tell."""
    row = pq.ParquetFile(index_file(dataset)).read_row_group(0).to_pylist()[0]
    shard = first_shard(dataset)
    data = bytearray(shard.read_bytes())
    data[row["image_offset"] + 2 : row["image_offset"] + 200] = bytes(198)
    shard.write_bytes(data)

    def enter(record: dict[str, Any]) -> None:
        record["shards"][0]["sha256"] = hashlib.sha256(data).hexdigest()
        lines = sorted(f"{SPLIT}/{s['name']} {s['bytes']} {s['sha256']}\n" for s in record["shards"])
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
        edit_json(dataset / "build.json", lambda summary: summary.update(digest=digest))

    edit_json(dataset / "ledger" / "group-000000.json", enter)


def edit_json(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


DEPTHS = {"quick": ("--quick",), "full": (), "deep": ("--deep",)}


@pytest.mark.parametrize(
    ("harm", "found_by", "words"),
    [
        (missing_shard, {"quick", "full", "deep"}, "is missing"),
        (truncated_shard, {"quick", "full", "deep"}, "the ledger says"),
        (stray_shard, {"quick", "full", "deep"}, "shard-000099-000.tar is in no ledger entry"),
        (missing_survey, {"quick", "full", "deep"}, "survey/group-000000.parquet is missing"),
        (missing_index, {"quick", "full", "deep"}, "index/train/group-000000.parquet is missing"),
        (flipped_bit, {"full", "deep"}, "checksum"),
        (damaged_index, {"full", "deep"}, "cannot be read as Parquet"),
        (swapped_rows, {"full", "deep"}, "do not agree"),
        (another_json, {"deep"}, "is not what the index says"),
        (damaged_image, {"deep"}, "cannot be decoded"),
    ],
)
def test_verify_finds_damage_at_the_depth_it_promises(
    dataset: Path, harm: Callable[[Path], None], found_by: set[str], words: str
) -> None:
    harm(dataset)
    for depth, option in DEPTHS.items():
        ended = run_here("verify", dataset, "--workers", 1, *option)
        if depth in found_by:
            assert words in ended.sentence(3), depth
        else:
            ended.succeeded()
        kept = json.loads((dataset / "verification.json").read_text())
        assert (kept["depth"], bool(kept["problems"])) == (depth, depth in found_by)


@pytest.mark.parametrize("depth", DEPTHS)
def test_verify_passes_what_was_built_and_repeats_its_digest(dataset: Path, depth: str) -> None:
    summary = build_json(dataset)
    done = run_here("verify", dataset, *DEPTHS[depth]).succeeded()
    assert f"digest {summary['digest']}\n" in done.out
    found = json.loads(run_here("verify", dataset, "--json", *DEPTHS[depth]).succeeded().out)
    assert found == {
        "depth": depth,
        "problems": [],
        **{name: summary[name] for name in ("digest", "samples", "shards", "bytes")},
    }
    status = json.loads(run_here("status", dataset, "--json").succeeded().out)
    assert status["verified"]["depth"] == depth


def test_verify_needs_a_complete_data_set_and_one_depth(dataset: Path) -> None:
    assert "--quick or --deep" in run_here("verify", dataset, "--quick", "--deep").sentence(2)
    (dataset / "build.json").unlink()
    assert "not complete" in run_here("verify", dataset).sentence(2)


def test_inspect_tells_mpp_level_and_stain_and_draws_a_picture(slides: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    words = ("inspect", slides / "slide-00.tiff", "--picture", picture, "--stain-picture", tmp_path / "stain.png")
    found = json.loads(run_here(*words, "--json").succeeded().out)
    expected = {"mpp": 0.5, "mpp_source": "tiff_tags", "level": 0, "read_size_px": 256, "planned": 12}
    assert {name: found[name] for name in expected} == expected
    assert found["fit_status"] == "ok"
    with Image.open(picture) as image:
        assert image.format == "PNG"
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24) or []}
    assert (0, 114, 178) in colours, "planned patches are framed"


def test_inspect_of_a_slide_that_cannot_be_built_says_why(tmp_path: Path) -> None:
    (tmp_path / "text.svs").write_text("no slide")
    ended = run_here("inspect", tmp_path / "text.svs", "--picture", tmp_path / "picture.png")
    assert "no slide that OpenSlide knows" in ended.out + ended.err
    assert "Traceback" not in ended.err
    assert "cannot be reached" in run_here("inspect", tmp_path / "gone.svs").sentence(1)


def test_an_estimate_comes_near_what_the_build_makes(slides: Path, built: Path) -> None:
    words = ("estimate", "--slides", slides, "--workers", 1, "--set", "codec.quality=85")
    found = json.loads(run_here(*words, "--json").succeeded().out)
    summary = build_json(built)
    assert (found["slides"], found["surveyed"], found["groups"]) == (2, 2, 1)
    assert 0.8 * summary["samples"] <= found["patches"] <= 1.25 * summary["samples"]
    assert 0.7 * summary["bytes"] <= found["bytes"] <= 1.4 * summary["bytes"]
    assert 0 <= found["cpu_hours"] < 0.1


def test_a_contact_sheet_is_a_picture(built: Path, tmp_path: Path) -> None:
    done = run_here("sheet", built, "--out", tmp_path / "sheet.png").succeeded()
    assert str(tmp_path / "sheet.png") in done.out
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 256


def test_the_schema_knows_every_section_and_refuses_others() -> None:
    schema = json.loads(run_here("schema").succeeded().out)
    sections = ("name", "cohorts", "exclude", "patch", "tissue", "quality", "stain", "codec", "shards", "splits")
    assert {*sections, "privacy", "seed"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_version_and_wrong_options_end_as_they_should() -> None:
    assert run_here("--version").succeeded().out == f"{__version__}\n"
    ended = run_here("build", "--colour", "red")
    assert ended.code == 2
    assert "--colour" in ended.err
    assert "Traceback" not in ended.err


def test_on_demand_an_error_passes_with_its_traceback(tmp_path: Path) -> None:
    assert "no data set" in run_here("status", tmp_path).sentence(2)
    with pytest.raises(DatasetError):
        run_here("status", "--debug", tmp_path)


IMPORTS = """
import sys
from exaone_prep.cli import main
sys.argv = ["exaone-prep", *sys.argv[1:]]
try:
    main()
except SystemExit as ending:
    assert not ending.code, ending.code
import exaone_prep.worker
print("MODULES", *sorted(name for name in sys.modules if "." not in name))
"""


def modules_after(*words: object) -> set[str]:
    """Top-level modules that a process has imported once a command is done."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, *map(str, words)], check=True, capture_output=True, text=True, timeout=240
    )
    return set(done.stdout.rpartition("MODULES ")[2].split())


@pytest.mark.parametrize("words", [("--help",), ("build", "--help")])
def test_help_answers_without_importing_anything_heavy(words: tuple[str, ...]) -> None:
    heavy = {"numpy", "scipy", "pyarrow", "pydantic", "openslide", "PIL", "zarr"}
    assert not modules_after(*words) & heavy


def test_a_build_needs_neither_torch_nor_prefect_nor_webdataset(slides: Path, tmp_path: Path) -> None:
    loaded = modules_after(*build_words(slides, tmp_path / "dataset"))
    assert {"numpy", "pyarrow", "openslide"} <= loaded
    others = {"torch", "torchvision", "webdataset", "timm", "prefect", "dask", "distributed", "fastapi", "tiatoolbox"}
    assert not loaded & {*others, "exaone_train", "flows", "cv2", "skimage", "matplotlib", "hypothesis", "pytest"}
