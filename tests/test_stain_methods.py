"""Stain methods of other packages: found, asked, held to what they promise, and blamed for what they break."""

from __future__ import annotations

import importlib
import json
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from exaone_prep.card import card
from exaone_prep.catalog import CatalogRow
from exaone_prep.dataset import Dataset, create_dataset, open_dataset
from exaone_prep.errors import DatasetError, ManifestError
from exaone_prep.group import GroupBuilder
from exaone_prep.ledger import GroupRecord
from exaone_prep.manifest import Manifest, parse_manifest
from exaone_prep.outcomes import earlier, read_outcomes
from exaone_prep.pool import WorkerPool
from exaone_prep.publish import read_build
from exaone_prep.scratch import Scratch
from exaone_prep.slides import open_slide
from exaone_prep.stain import StainMethod, StainMethodError
from exaone_prep.stain.method import (
    GROUP,
    MethodFit,
    PluggedMethod,
    StainMethodDefectError,
    _made,
    installed_methods,
    plug_in,
)
from exaone_prep.survey import SlideSurvey, SurveyJob, load_method_fit, load_pictures, survey_slide
from tests.builds import build, build_words, digest_of
from tests.commandline import run_here
from tests.committed import samples
from tests.smallslides import manifest_of, small_slides
from tests.stainplugins import documented, install, path_with

Rgb = NDArray[np.uint8]
Install = Callable[..., str]

CODE, POINTS = documented()
LOSSLESS = ("--set", "codec.format=png", "--set", "splits={}")
TINT = ("--set", "stain.method=tint")


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    small_slides(folder, 2)
    return folder


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documented example, installed as the documentation says."""
    points = tomllib.loads(POINTS)["project"]["entry-points"][GROUP]
    things = {name: thing.removeprefix("tint:") for name, thing in points.items()}
    return install(tmp_path_factory.mktemp("plugin"), "tint", CODE, things)


@pytest.fixture(scope="module")
def built(slides: Path, plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set by the documented example."""
    out = tmp_path_factory.mktemp("built") / "out"
    build(slides, out, *LOSSLESS, *TINT, "--workers", "2", env=path_with(plugin))
    return out


_number = count()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package for this process and its workers, in place of the last one, and gives its method's name."""
    before = list(sys.path)

    def one(code: str, *, name: str = "own", version: str = "0.1", beside: bool = False) -> str:
        number = next(_number)
        folder = install(tmp_path / f"site-{number}", f"plugin_{number}", code, {name: "Own"}, version=version)
        monkeypatch.setattr(sys, "path", [str(folder), *(sys.path if beside else before)])
        monkeypatch.setenv("PYTHONPATH", str(folder))
        importlib.invalidate_caches()
        _made.cache_clear()
        return name

    yield one
    _made.cache_clear()


def tint(options: dict[str, Any] | None = None) -> Any:
    """The documented example, made without being installed."""
    space: dict[str, Any] = {}
    exec(CODE, space)
    return space["Tint"](options or {})


def plugged(method: object) -> PluggedMethod:
    made: Any = method
    return PluggedMethod(name="own", identity="1 (own-stains 0.1)", method=made)


def method(
    fit: Callable[[Rgb], Any] = lambda pixels: {},
    normalize: Callable[[Rgb, Sequence[dict[str, Any]]], Any] = lambda patches, fits: patches,
) -> PluggedMethod:
    return plugged(SimpleNamespace(version="1", fit=fit, normalize=normalize))


WORKING = """
    class Own:
        version = "1"
        def __init__(self, options):
            self.add = options.get("add", 1)
        def fit(self, pixels):
            return {"add": self.add}
        def normalize(self, patches, fits):
            return patches // 2 + fits[0]["add"]
"""


def changed(old: str, new: str) -> str:
    assert old in WORKING
    return WORKING.replace(old, new)


def document(**stain: Any) -> dict[str, Any]:
    return {"name": "set", "cohorts": [{"name": "c", "slides": "a"}], "stain": stain}


def patches_of(seed: int, number: int, size_px: int = 8) -> Rgb:
    return np.random.default_rng(seed).integers(0, 256, (number, size_px, size_px, 3), dtype=np.uint8)


def test_the_documented_example_has_twenty_lines() -> None:
    assert len(CODE.strip().splitlines()) <= 20


def test_the_documented_example_is_a_stain_method() -> None:
    made: StainMethod = tint({"median": [180, 120, 170]})
    stained = np.full((500, 3), (200, 100, 150), dtype=np.uint8)
    fit = made.fit(np.concatenate([stained, np.full((900, 3), 240, dtype=np.uint8)]))
    assert made.normalize(stained.reshape(1, 25, 20, 3), [fit])[0, 0, 0].tolist() == [182, 121, 171]
    with pytest.raises(StainMethodError, match="fewer than 500"):
        made.fit(np.full((900, 3), 240, dtype=np.uint8))


def test_a_build_with_the_example_is_verified_and_names_it(built: Path) -> None:
    run_here("verify", built, "--deep").succeeded()  # here the method is not installed
    dataset = open_dataset(built)
    summary = read_build(dataset.storage)
    assert summary is not None
    assert summary["samples"] == 24
    assert summary["stain_statuses"] == {"fallback": 0, "fitted": 24, "kept": 0, "none": 0}
    assert summary["versions"]["stain.tint"] == "1 (tint-stains 0.1)"
    text, _ = card(dataset, summary, read_outcomes(dataset))
    assert "| stain | tint 1 (tint-stains 0.1), fit per slide |" in text


def test_each_sample_is_the_patch_as_scanned_normalised_with_its_slides_fit(built: Path) -> None:
    dataset, example = open_dataset(built), tint()
    fits = {row.slide_id: _fit_of(row, dataset.manifest, example) for row in dataset.catalog.rows}
    assert len({str(fit) for fit in fits.values()}) == 2
    compared = 0
    for row in dataset.catalog.rows:
        assert row.uri is not None
        reader = open_slide(Path(row.uri), ("openslide",))
        for sample in samples(built):
            if sample.row["slide_id"] == row.slide_id:
                raw = reader.read(0, sample.row["x"], sample.row["y"], 256, 256)
                assert (sample.pixels == example.normalize(raw[None], [fits[row.slide_id]])[0]).all()
                assert (sample.pixels != raw).any()
                compared += 1
        reader.close()
    assert compared == 24


def _fit_of(row: CatalogRow, manifest: Manifest, example: Any) -> dict[str, Any]:
    assert row.uri is not None
    found = survey_slide(row, Path(row.uri), manifest, lambda pixels: MethodFit(values=example.fit(pixels)))[0]
    assert found.method_fit is not None
    assert found.method_fit.values is not None
    return found.method_fit.values


def test_other_options_make_other_bytes_and_never_continue_a_build(
    slides: Path, plugin: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(plugin))
    monkeypatch.setenv("PYTHONPATH", str(plugin))
    other = (*LOSSLESS, *TINT, "--set", "stain.options.median=[180, 120, 170]")
    run_here(*build_words(slides, tmp_path / "out"), *other, "--workers", 1).succeeded()
    assert digest_of(tmp_path / "out") != digest_of(built)
    ids = {open_dataset(out).catalog.content_id for out in (built, tmp_path / "out")}
    assert len(ids) == 2
    sentence = run_here(*build_words(slides, built), *other).sentence(2)
    assert "another manifest: stain.options differ" in sentence


@pytest.mark.parametrize(
    ("code", "version"), [(changed('version = "1"', 'version = "2"'), "0.1"), (WORKING, "0.2")], ids=["own", "package"]
)
def test_another_version_is_another_content_and_never_continues_a_build(
    installed: Install, slides: Path, tmp_path: Path, code: str, version: str
) -> None:
    manifest = manifest_of(slides, stain={"method": installed(WORKING)})
    first = create_dataset(tmp_path / "first", manifest, base=tmp_path)
    assert first.stain_identity is not None
    assert first.stain_identity.startswith("1 (plugin")
    installed(code, version=version)
    second = create_dataset(tmp_path / "second", manifest, base=tmp_path)
    assert second.catalog.content_id != first.catalog.content_id
    with pytest.raises(DatasetError, match=r"other versions of the packages.*stain\.own=1 \(plugin"):
        create_dataset(tmp_path / "first", manifest, base=tmp_path)


def test_another_version_never_goes_on_after_a_data_set(
    installed: Install, slides: Path, built: Path, tmp_path: Path
) -> None:
    before = open_dataset(built)
    tint_2 = CODE.replace("class Tint", "class Own").replace('version = "1"', 'version = "2"')
    manifest = manifest_of(slides, stain={"method": installed(tint_2, name="tint")}, codec={"format": "png"})
    with pytest.raises(DatasetError, match=r"was built with the stain method `tint` 1 \(tint-.*here it is 2 \(plugin"):
        create_dataset(tmp_path / "out", manifest, base=tmp_path, after=earlier(before))
    assert not (tmp_path / "out").exists()


def test_a_process_with_another_version_refuses(installed: Install, slides: Path, tmp_path: Path) -> None:
    """As on another machine, which opens the data set and builds its groups."""
    dataset = begun(slides, tmp_path, method=installed(WORKING))
    installed(changed('version = "1"', 'version = "2"'))
    with pytest.raises(DatasetError, match=r"begun with the stain method `own` 1 \(.*here it is 2 \("):
        surveyed(dataset, tmp_path / "a.npz")


def test_a_process_without_the_method_refuses(
    installed: Install, slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = begun(slides, tmp_path, method=installed(WORKING))
    monkeypatch.delenv("PYTHONPATH")
    with pytest.raises(ManifestError, match=r"`own` is not installed here"):
        _one_attempt(dataset, tmp_path)


def begun(slides: Path, folder: Path, **stain: Any) -> Dataset:
    """A data set of one slide of which nothing is built yet."""
    cohort = {"name": "c", "slides": [f"{slides}/slide-00.tiff"]}
    return create_dataset(folder / "out", manifest_of(slides, cohorts=[cohort], stain=stain), base=folder)


def surveyed(dataset: Dataset, file: Path) -> SlideSurvey:
    row = dataset.catalog.rows[0]
    job = SurveyJob(
        row=row,
        path=Path(row.uri or ""),
        manifest=dataset.manifest,
        file=file,
        stain_identity=dataset.stain_identity,
    )
    return job.run(lambda patches: None)


def _one_attempt(dataset: Dataset, folder: Path) -> GroupRecord:
    with Scratch(folder / "scratch") as space, WorkerPool(1, folder / "workers.log") as pool:
        return GroupBuilder(dataset=dataset, pool=pool, scratch=space).build(0)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (changed("patches // 2 +", "patches / 2 +"), r"its `normalize` gave float64 \(12, 256, 256, 3\) for uint8"),
        (changed('return {"add"', 'import os; os.kill(os.getpid(), 11); return {"add"'), r"took its process along"),
    ],
    ids=["wrong type", "crash"],
)
def test_a_faulty_method_is_named_and_no_slide_is_set_aside(
    installed: Install, slides: Path, tmp_path: Path, code: str, words: str
) -> None:
    dataset = begun(slides, tmp_path, method=installed(code))
    with pytest.raises(StainMethodDefectError, match=rf"^The stain method `own` 1 \(plugin.* is at fault: .*{words}"):
        _one_attempt(dataset, tmp_path)
    assert not (tmp_path / "out" / "ledger").exists()
    assert not (tmp_path / "out" / "survey").exists()


def test_a_process_that_dies_outside_the_method_is_not_its_fault(
    installed: Install, slides: Path, tmp_path: Path
) -> None:
    code = changed("return patches", "import os, exaone_prep.cut as cut; cut.encode = os._exit; return patches")
    code = code.replace("os._exit", "lambda *_: os.kill(os.getpid(), 11)")
    record = _one_attempt(begun(slides, tmp_path, method=installed(code)), tmp_path)
    assert record.outcomes == {"quarantined": 1}


def test_a_method_that_is_not_installed_is_a_bad_manifest_and_nothing_is_written(
    installed: Install, slides: Path, tmp_path: Path
) -> None:
    installed(WORKING, name="vahadane")
    ended = run_here(*build_words(slides, tmp_path / "out"), "--set", "stain.method=vahadanne")
    sentence = ended.sentence(2)
    assert "`vahadanne` is not installed here (did you mean `vahadane`?)" in sentence
    assert "there are macenko, none, vahadane" in sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            changed("self.add = ", "self.add = 1 / 0 if options else "),
            "cannot be made with these options: ZeroDivision",
        ),
        (changed('version = "1"', "version = 1"), "has no `version`, a text"),
        (changed("def normalize", "def normalise"), "has no method `normalize`"),
        ("import nothing_of_this_name", "cannot be made with these options: ModuleNotFoundError"),
    ],
)
def test_a_method_that_cannot_be_made_is_a_bad_manifest(
    installed: Install, slides: Path, tmp_path: Path, code: str, words: str
) -> None:
    manifest = manifest_of(slides, stain={"method": installed(code), "options": {"add": 2}})
    with pytest.raises(ManifestError, match=rf"`own` of the package plugin.*stains 0\.1 .*{words}"):
        create_dataset(tmp_path / "out", manifest, base=tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_name_that_two_packages_bring_is_refused(installed: Install) -> None:
    installed(WORKING)
    installed(WORKING, beside=True)
    with pytest.raises(
        ManifestError, match=r"`own` is brought by several packages \(plugin_\d+-stains, plugin_\d+-sta"
    ):
        plug_in("own", {})


@pytest.mark.parametrize("name", ["macenko", "none"])
def test_no_package_takes_the_name_of_a_method_that_is_built_in(installed: Install, name: str) -> None:
    installed("raise RuntimeError", name=name)
    assert name not in installed_methods()
    assert not parse_manifest(document(method=name), {}, where="m.yaml").stain.plugged_in
    with pytest.raises(ManifestError, match="is not installed here"):
        plug_in(name, {})


def test_options_are_a_copy_in_the_same_order_everywhere(installed: Install) -> None:
    name = installed(
        """
        class Own:
            fit = normalize = print
            def __init__(self, options):
                self.version = ",".join(options)
                options.clear()
        """
    )
    options = {"b": 1, "a": [2]}
    assert plug_in(name, options).identity.startswith("a,b (")
    assert options == {"b": 1, "a": [2]}


@pytest.mark.parametrize(
    ("stain", "words"),
    [
        ({"options": {"a": 1}}, "`options` are for methods that a package brings; `macenko` has none"),
        ({"method": "none", "options": {"a": 1}}, "`none` has none"),
        ({"method": "own", "options": {"a": float("nan")}}, "stain.options.a.float: Input should be a finite number"),
        ({"method": "own", "options": {"a": {1, 2}}}, "stain.options"),
        ({"method": "own", "reference": "r.json"}, "`reference` is Macenko's"),
        ({"method": "own", "on_failure": "reference"}, "with `own` it is `keep` or `drop`"),
        ({"method": "../own"}, "stain.method"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(stain: dict[str, Any], words: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(document(**stain), {}, where="m.yaml")
    assert words in str(caught.value)


def test_without_options_content_is_what_it_was_before_there_were_any() -> None:
    manifest = parse_manifest(document(), {}, where="m.yaml")
    expected = {"method": "macenko", "fit": "slide", "reference": "macenko", "on_failure": "keep"}
    assert manifest.content()["stain"] == expected
    assert manifest.canonical()["stain"] == expected
    with_options = parse_manifest(document(method="own", options={"a": [1]}), {}, where="m.yaml")
    assert with_options.content()["stain"] == {**expected, "method": "own", "options": {"a": [1]}}


def test_the_survey_leaves_the_fit_beside_the_grid(installed: Install, slides: Path, tmp_path: Path) -> None:
    dataset = begun(slides, tmp_path, method=installed(WORKING), options={"add": 7})
    survey = surveyed(dataset, tmp_path / "a.npz")
    assert load_method_fit(tmp_path / "a.npz") == survey.method_fit == MethodFit(values={"add": 7})
    assert survey.fit is not None
    assert survey.fit.status == "ok"  # Macenko's, by which a slide is judged
    assert len(load_pictures(tmp_path / "a.npz").positions) == survey.planned


def test_patches_whose_own_fit_fails_take_the_slides(installed: Install, slides: Path, tmp_path: Path) -> None:
    """Every patch that begins with an even grey level fails; the sample of the whole slide does not."""
    even = 'if len(pixels) == 65536 and pixels[0, 0] % 2 == 0: raise ValueError("even")'
    code = changed('return {"add"', f'{even}\n            return {{"add"')
    statuses = _one_attempt(begun(slides, tmp_path, method=installed(code), fit="patch"), tmp_path).stain_statuses
    assert statuses["fitted"] > 0
    assert statuses["fallback"] > 0
    assert statuses["fitted"] + statuses["fallback"] == 12


@given(
    fails=st.lists(st.booleans(), min_size=1, max_size=6),
    slide=st.booleans(),
    per_patch=st.booleans(),
    drop=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_patch_gets_its_own_fit_or_the_slides_or_none(
    fails: list[bool], slide: bool, per_patch: bool, drop: bool
) -> None:
    patches = patches_of(0, len(fails))
    failing = {int(patch[0, 0, 0]) for patch, fail in zip(patches, fails, strict=True) if fail}

    def fit(pixels: Rgb) -> dict[str, Any]:
        first = int(pixels[0, 0])
        if first in failing:
            raise StainMethodError("no stain")
        return {"add": first}

    def normalize(some: Rgb, fits: Sequence[dict[str, Any]]) -> Rgb:
        added: Rgb = some + np.array([one["add"] for one in fits], dtype=np.uint8)[:, None, None, None]
        return added

    slide_fit = MethodFit(values={"add": 3}) if slide else MethodFit(sentence="no stain")
    done = list(method(fit, normalize).finish(list(patches), slide_fit=slide_fit, per_patch=per_patch, drop=drop))
    assert len(done) == len(patches)
    for patch, (result, status) in zip(patches, done, strict=True):
        first = int(patch[0, 0, 0])
        if per_patch and first not in failing:
            assert status == "fitted"
            assert (result == patch + np.uint8(first)).all()
        elif slide:
            assert status == ("fallback" if per_patch else "fitted")
            assert (result == patch + np.uint8(3)).all()
        else:
            assert status == (None if drop else "kept")
            assert (result == patch).all()


def _raises(error: Exception) -> Callable[..., Any]:
    def raise_it(*_: object) -> Any:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("fit", "sentence"),
    [
        (_raises(StainMethodError("one colour")), "one colour"),
        (lambda pixels: {"m": np.linalg.inv(np.zeros((2, 2))).tolist()}, "Singular matrix"),
        (lambda pixels: {"m": float("nan")}, "its numbers are not finite"),
    ],
)
def test_what_cannot_be_measured_is_no_fit(fit: Callable[[Rgb], Any], sentence: str) -> None:
    assert method(fit).fit(patches_of(0, 1).reshape(-1, 3)) == MethodFit(sentence=sentence)


def test_without_pixels_a_method_is_not_asked() -> None:
    assert method(_raises(AssertionError())).fit(np.empty((0, 3), dtype=np.uint8)).values is None


@pytest.mark.parametrize(
    ("fit", "words"),
    [
        (_raises(KeyError("gain")), "`fit` raised KeyError: 'gain'"),
        (lambda pixels: [1], "`fit` gave list, not a dict"),
        (lambda pixels: {"m": np.zeros(3)}, "`fit` gave values that JSON does not know"),
    ],
)
def test_a_fit_that_is_none_is_the_methods_fault(fit: Callable[[Rgb], Any], words: str) -> None:
    with pytest.raises(StainMethodDefectError) as caught:
        method(fit).fit(patches_of(0, 1).reshape(-1, 3))
    assert str(caught.value).startswith("The stain method `own` 1 (own-stains 0.1) is at fault: its ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("normalize", "words"),
    [
        (_raises(ValueError("shapes")), "raised ValueError: shapes"),
        (lambda patches, fits: patches[1:], "gave uint8 (1, 8, 8, 3) for uint8 (2, 8, 8, 3)"),
        (lambda patches, fits: patches.astype(np.float32), "gave float32 (2, 8, 8, 3)"),
        (lambda patches, fits: patches.tolist(), "gave list"),
        (lambda patches, fits: None, "gave NoneType"),
    ],
)
def test_anything_but_patches_of_the_same_shape_is_the_methods_fault(normalize: Callable[..., Any], words: str) -> None:
    with pytest.raises(StainMethodDefectError, match="`normalize`") as caught:
        method(normalize=normalize).normalize(patches_of(0, 2), [{}, {}])
    assert words in str(caught.value)


def test_a_method_can_change_neither_the_patch_that_is_kept_nor_the_sample() -> None:
    def fit(pixels: Rgb) -> dict[str, Any]:
        pixels[:] = 0
        raise StainMethodError("no stain")

    patches = patches_of(1, 3)
    before = patches.copy()
    none = MethodFit(sentence="no stain")
    done = list(method(fit).finish(list(patches), slide_fit=none, per_patch=True, drop=False))
    assert (np.stack([patch for patch, _ in done]) == before).all()


def test_fits_are_the_same_whether_stored_or_not() -> None:
    found = method(lambda pixels: {"b": (0.1, 2), "a": {1: np.float64(1 / 3)}}).fit(patches_of(0, 1).reshape(-1, 3))
    assert found.values == {"b": [0.1, 2], "a": {"1": 1 / 3}}
    assert MethodFit.from_text(found.to_text()) == found
    assert json.loads(found.to_text())["sentence"] == ""
