"""The documentation names everything it promises to name, its links resolve, and its examples run."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from exaone_prep import catalog, cut, errors, layout, manifest, outcomes, survey_table
from exaone_prep.build import Failure, _record
from exaone_prep.catalog import catalog as catalog_table
from exaone_prep.catalog import private
from exaone_prep.cli import app
from exaone_prep.dataset import Dataset
from exaone_prep.errors import PrepError
from exaone_prep.ledger import GroupRecord
from exaone_prep.progress import Progress
from exaone_prep.shards import index
from exaone_prep.shards.sample import STAIN_STATUSES
from exaone_prep.status import Status
from exaone_prep.survey import Pictures
from exaone_prep.verify import verify
from tests.smallslides import build_small, manifest_of, small_slides

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *DOCS.rglob("*.md"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docker/README.md")),
    ]
)
TYPES = {
    pa.string(): "string",
    pa.bool_(): "bool",
    pa.map_(pa.string(), pa.string()): "map of string to string",
    pa.list_(pa.float64(), 3): "3 × float64",
    pa.list_(pa.float64(), 2): "2 × float64",
    **{kind: name for name, kind in (("int8", pa.int8()), ("int16", pa.int16()), ("int32", pa.int32()))},
    **{kind: name for name, kind in (("int64", pa.int64()), ("float32", pa.float32()), ("float64", pa.float64()))},
}


@pytest.fixture(scope="module")
def readers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small data set where README looks for one."""
    folder = tmp_path_factory.mktemp("docs")
    small_slides(folder / "slides", 2)
    out = folder / "build" / "demo" / "dataset"
    out.parent.mkdir(parents=True)
    verify(build_small(manifest_of(folder / "slides", shards={"samples_per_shard": 15}), out))
    return folder


@pytest.fixture
def dataset(readers_folder: Path) -> Path:
    return readers_folder / "build" / "demo" / "dataset"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """What stands under the heading that begins with `title`, up to the next of its rank or higher."""
    rank, rest = re.split(rf"^(#+) {re.escape(title)}.*$", text, maxsplit=1, flags=re.MULTILINE)[1:]
    return re.split(rf"^#{{1,{len(rank)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """Names in the first cell of each table row, and its other cells."""
    for line in text.splitlines():
        if line.startswith("| "):
            first, *others = (cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("| \n")))
            yield re.findall(r"`([^`]+)`", first), others


def columns(text: str) -> dict[str, str]:
    return {name: others[0] for names, others in rows(text) for name in names if others}


def is_named(name: str, text: str) -> bool:
    return re.search(rf"`[^`]*(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])[^`]*`", text) is not None


@pytest.mark.parametrize(
    ("title", "schema"),
    [
        ("`catalog.parquet`", catalog.SCHEMA),
        ("`index/`", index.SCHEMA),
        ("`survey/`", survey_table.SCHEMA),
        ("`private/`", private._SCHEMA),
    ],
)
def test_every_column_is_described_with_its_type(title: str, schema: pa.Schema) -> None:
    described = columns(section(page("format.md"), title))
    expected = {field.name: TYPES[field.type] + (" †" if field.nullable else "") for field in schema}
    assert {name: described.get(name) for name in expected} == expected


def test_every_column_of_derived_tables_is_named() -> None:
    text = page("format.md")
    for title, schema in (("`outcomes.parquet`", outcomes.OUTCOMES_SCHEMA), ("`stain.parquet`", outcomes.STAIN_SCHEMA)):
        below = section(text, title)
        for name in schema.names:
            family = next((start for start in ("dropped_", "stain_", "fit_") if name.startswith(start)), None)
            assert f"`{family}…`" in below if family else is_named(name, below), name


def test_what_the_content_id_counts_is_named() -> None:
    below = section(page("format.md"), "What is the same in every build")
    for name in catalog_table._CONTENT_FIELDS:
        assert is_named(name, below), name


def test_every_array_of_the_pictures_is_described() -> None:
    described = columns(section(page("format.md"), "`slides/`"))
    assert sorted(described) == sorted(field.name for field in dataclasses.fields(Pictures))


def test_every_field_of_the_json_files_is_named(dataset: Path) -> None:
    text = page("format.md")
    sample = next(iter(sorted((dataset / "ledger").iterdir())))
    for title, names in (
        ("`ledger/`", json.loads(sample.read_text())),
        ("`ledger/`", GroupRecord.model_fields),
        ("`ledger/`", json.loads(sample.read_text())["built"]),
        ("`build.json`", json.loads((dataset / layout.BUILD).read_text())),
        ("`verification.json`", json.loads((dataset / layout.VERIFICATION).read_text())),
        ("`_info.json`", json.loads((dataset / layout.shard_info("train")).read_text())["splits"]["train"]),
        ("`progress/`", [*Progress().snapshot(), "worker", "time"]),
    ):
        below = section(text, title)
        for name in names:
            assert is_named(name, below), f"{name} under {title}"
    for field in dataclasses.fields(Status):
        assert is_named(field.name, section(page("operations.md"), "Reading a data set's state")), field.name


def test_every_field_of_a_failed_attempt_is_named(tmp_path: Path) -> None:
    small_slides(tmp_path / "slides", 1)
    made: Dataset = build_small(manifest_of(tmp_path / "slides"), tmp_path / "out")
    _record(made.storage, 0, Failure(error=PrepError("It failed."), trace="", log_tail=""))
    document = json.loads((tmp_path / "out" / layout.attempt(0, 1)).read_text())
    below = section(page("format.md"), "`attempts/`")
    for name in document:
        assert is_named(name, below), name


def test_the_sample_json_is_described(dataset: Path) -> None:
    described = columns(section(page("format.md"), "`shards/`"))
    data = next(iter(sorted((dataset / "shards" / "train").glob("*.tar")))).read_bytes()
    document = json.loads(re.search(rb'\{"cohort".*?\}', data)[0])  # type: ignore[index]
    assert sorted(described) == sorted(document)


def test_every_stain_status_is_explained() -> None:
    described = columns(section(page("format.md"), "Stain status"))
    assert sorted(described) == sorted(STAIN_STATUSES)


def test_every_file_of_a_data_set_is_in_the_list(dataset: Path) -> None:
    listed = [name for names, _ in rows(page("format.md").split("\n## ")[0]) for name in names]
    patterns = [
        re.sub(r"<[a-z-]+>", "[^/]+", re.escape(name).replace("\\<", "<").replace("\\>", ">")) for name in listed
    ]
    found = [str(file.relative_to(dataset)) for file in dataset.rglob("*") if file.is_file()]
    assert found
    assert [file for file in found if not any(re.fullmatch(pattern, file) for pattern in patterns)] == []


def test_every_reason_is_in_the_table_of_operations_and_no_other() -> None:
    described = {name for names, _ in rows(section(page("operations.md"), "Reasons")) for name in names}
    assert described == set(errors.REASONS)


def test_what_to_do_about_a_reason_is_the_same_in_the_code_and_in_operations() -> None:
    told = {names[0]: others[1] for names, others in rows(section(page("operations.md"), "Reasons")) if names}
    assert told == errors.REMEDIES


def test_every_drop_reason_is_named() -> None:
    below = section(page("operations.md"), "Outcomes")
    for reason in cut.DROP_REASONS:
        assert is_named(reason, below), reason


def _exit_codes(kind: type[PrepError]) -> set[int]:
    return {kind.exit_code}.union(*(_exit_codes(below) for below in kind.__subclasses__()))


def test_every_exit_code_is_in_the_table() -> None:
    lines = section(page("operations.md"), "Exit codes").splitlines()
    described = {int(line.split("|")[1]) for line in lines if re.match(r"\| \d+ \|", line)}
    assert described == {0, 130} | _exit_codes(PrepError)


def test_every_command_is_shown() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8") + page("operations.md") + page("manifest.md")
    names = [str(command.name or command.callback.__name__) for command in app.registered_commands if command.callback]
    assert names
    assert [name for name in names if f"exaone-prep {name}" not in text] == []


def _sections(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation


@pytest.mark.parametrize(
    ("title", "model"),
    [("Top level", manifest.Manifest), ("`cohorts`", manifest.Cohort)]
    + [(f"`{name}`", model) for name, model in _sections(manifest.Manifest)],
)
def test_every_field_of_the_manifest_is_described_with_its_default(title: str, model: type[BaseModel]) -> None:
    text = page("manifest.md")
    described = columns(section(text, title)) | (columns(section(text, "`splits`")) if title == "Top level" else {})
    for name, field in model.model_fields.items():
        if name in dict(_sections(model)):
            continue
        assert name in described, name
        if field.default is PydanticUndefined:
            assert described[name] == "required", name
        else:
            assert yaml.safe_load(described[name].strip("`")) == _plain(field.default), name
    assert set(described) - {"splits"} <= set(model.model_fields)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *(name for extra in project["project"]["optional-dependencies"].values() for name in extra),
        *(name for group in project["dependency-groups"].values() for name in group),
    ]
    text = page("dependencies.md")
    for requirement in wanted:
        name = re.split(r"[<>=\[;, ]", requirement)[0]
        assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text), name


def test_every_make_target_is_named() -> None:
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert targets
    assert [target for target in targets if target != "help" and f"make {target}" not in text] == []


def _slug(heading: str) -> str:
    text = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return text.replace(" ", "-")


def _anchors(text: str) -> set[str]:
    return {_slug(heading) for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)}


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_resolve(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (file.parent / path).resolve() if path else file
        assert linked.exists(), target
        assert linked.is_relative_to(ROOT), target
        if anchor:
            assert anchor in _anchors(linked.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_of_the_repository_that_are_named_exist(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    folders = "tests|benchmarks|exaone_prep|exaone_train|flows|reproduction|configs|tools|locks"
    named = re.findall(rf"`((?:{folders})/[\w/.-]+\.\w+)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_module_has_its_room() -> None:
    below = section(page("architecture.md"), "Rooms")
    packages = [ROOT / "exaone_prep" / name for name in ("", "catalog", "slides", "shards")] + [ROOT / "reproduction"]
    modules = [file.stem for package in packages for file in package.glob("*.py") if file.stem != "__init__"]
    assert modules
    assert [module for module in modules if not is_named(module, below)] == []


def test_every_decision_is_in_the_index() -> None:
    text = page("decisions/README.md")
    files = [file.name for file in (DOCS / "decisions").glob("[0-9]*.md")]
    assert files
    assert [name for name in files if f"({name})" not in text] == []


def test_the_first_screen_of_the_readme_shows_a_picture_and_two_commands() -> None:
    screen = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40])
    assert "](docs/pictures/demo.jpg)" in screen
    assert "\nmake demo" in screen
    assert "\nexaone-prep build data_manifest.yaml --out DIR" in screen


def _examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("code", _examples(), ids=lambda code: re.findall(r"(?:from|import) (\w+)", code)[0])
def test_the_examples_of_the_readme_run(code: str, readers_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=readers_folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_operations_example_runs(readers_folder: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", page("operations.md"), flags=re.DOTALL)[0]
    code = code.replace("DIR/", "build/demo/dataset/")
    done = subprocess.run([sys.executable, "-c", code], cwd=readers_folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
