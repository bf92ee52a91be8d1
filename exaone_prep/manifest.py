"""The manifest: what to build, in the words of `data_manifest.yaml`."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from exaone_prep.errors import ManifestError
from exaone_prep.stain.method import BUILT_IN


class _Section(BaseModel):
    # Defaults are validated too: a default 8 and a written 8 must be the same 8.0 in content ids.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class Cohort(_Section):
    """Slides of one source: a laboratory, a public collection, a study."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64, description="Short name of the source.")
    slides: tuple[str, ...] = Field(
        default=(), description="Globs (`**` crosses folders), folders or single files; local paths or fsspec URLs."
    )
    table: str | None = Field(
        default=None,
        description="CSV or Parquet with a column `slide` (path, relative to the table) and optionally `slide_id`, "
        "`patient_id`, `mpp`, `md5`; further columns (organ, scanner, ...) are carried along.",
    )
    mpp: float | None = Field(default=None, gt=0, description="µm per pixel of level 0, instead of what the files say.")
    mpp_if_missing: float | None = Field(default=None, gt=0, description="µm per pixel where a file does not say.")
    patient_regex: str | None = Field(
        default=None, description="Finds the patient in the file name: the first group, or the whole match."
    )
    allow_non_he: bool = Field(default=False, description="Build slides that do not look stained with H&E as well.")

    @field_validator("slides", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("patient_regex")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"is not a regular expression: {error}") from error
        return value

    @model_validator(mode="after")
    def _has_slides(self) -> Self:
        if not self.slides and self.table is None:
            raise ValueError("names no slides: give `slides` (globs, folders, files) or `table` (CSV or Parquet)")
        return self


class Patch(_Section):
    """The square training image cut from a slide."""

    size_px: int = Field(default=256, ge=16, le=4096)
    mpp: float = Field(default=0.5, gt=0, description="Requested µm per pixel.")
    mpp_tolerance: float = Field(default=0.05, ge=0, lt=0.5, description="Relative; within it nothing is resampled.")
    stride_px: int = Field(default=256, ge=1, description="Step of the grid, in patch pixels.")
    reduce: Literal["jpeg", "area"] = Field(
        default="jpeg",
        description="A level that is 2, 4 or 8 times too fine: shrunk while its JPEG tiles are decoded, or by area.",
    )


class Tissue(_Section):
    """Which parts of a slide are tissue, judged at about `mpp`."""

    method: Literal["otsu", "fixed", "tiatoolbox_otsu", "tiatoolbox_morphological"] = "otsu"
    mpp: float = Field(default=8, gt=0)
    min_fraction: float = Field(default=0.5, ge=0, le=1, description="Tissue share a patch needs.")
    min_speck_um2: float = Field(default=10_000, ge=0, description="Smaller pieces of tissue are dropped.")
    max_hole_um2: float = Field(default=10_000, ge=0, description="Smaller holes in tissue are filled.")


class Quality(_Section):
    """Limits on a patch, measured before normalisation; a patch beyond one is dropped and counted."""

    max_unreadable: float = Field(
        default=0.01, ge=0, le=1, description="Share of planned patches; beyond it the slide is quarantined."
    )
    max_white: float = Field(default=0.9, ge=0, le=1)
    max_black: float = Field(default=0.2, ge=0, le=1)
    max_pen: float = Field(default=0.1, ge=0, le=1)
    min_sharpness: float = Field(
        default=0.65, ge=0, description="Free of contrast; in focus about 1 to 1.5, blurred below 0.65, 0 never drops."
    )


class StainReference(_Section):
    """The stain to normalise to, written out; `exaone_prep.stain.Reference` says what the numbers mean."""

    name: str = Field(default="own", max_length=100)
    stain_matrix: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    max_concentration: tuple[float, float]


class Stain(_Section):
    """Stain normalisation (`docs/stain.md`)."""

    method: str = Field(
        default="macenko",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=64,
        description="`macenko`, `none`, or a method that an installed package brings as an entry point.",
    )
    options: dict[str, JsonValue] = Field(default={}, description="Of a method that a package brings; it says which.")
    fit: Literal["slide", "patch"] = "slide"
    reference: str | StainReference = Field(
        default="macenko", description="`macenko`, or a JSON file with a stain matrix and maxC, or these written out."
    )
    on_failure: Literal["keep", "reference", "drop"] = Field(
        default="keep",
        description="Where no stain can be fitted: keep the pixels, apply the reference's own fit, or drop.",
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        default="auto", description="What normalises: `auto` takes a GPU where there is one. Macenko's only."
    )

    @property
    def plugged_in(self) -> bool:
        """Whether the method is another package's (`exaone_prep.stain.method`)."""
        return self.method not in BUILT_IN

    @property
    def device_counts(self) -> bool:
        """Whether the device is a part of what a data set is (`fit: patch`); elsewhere each worker has its own."""
        return self.method == "macenko" and self.fit == "patch"

    @model_validator(mode="after")
    def _fits_the_method(self) -> Self:
        if not self.plugged_in and self.options:
            raise ValueError(f"`options` are for methods that a package brings; `{self.method}` has none")
        if self.plugged_in and self.reference != "macenko":
            raise ValueError(f"`reference` is Macenko's; what `{self.method}` makes alike, its `options` say")
        if self.plugged_in and self.on_failure == "reference":
            raise ValueError(f"`on_failure: reference` is Macenko's; with `{self.method}` it is `keep` or `drop`")
        return self


class Codec(_Section):
    """How patches are encoded."""

    format: Literal["jpeg", "png"] = "jpeg"
    quality: int = Field(default=90, ge=1, le=100)
    subsampling: Literal["420", "422", "444"] = "420"

    @field_validator("subsampling", mode="before")
    @classmethod
    def _digits(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value


class Shards(_Section):
    """How samples are packed."""

    samples_per_shard: int = Field(default=10_000, ge=1)
    slides_per_group: int = Field(default=64, ge=1, description="Slides that are mixed with each other.")


class Privacy(_Section):
    """Whether slide names leave `private/`."""

    slide_ids: Literal["name", "hash"] = Field(
        default="name", description="`hash`: keyed by the environment variable EXAONE_PREP_ID_KEY."
    )


Fraction = Annotated[float, Field(ge=0, lt=1)]
Reader = Literal["openslide", "tiatoolbox"]


class Manifest(_Section):
    """A whole data set, described."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    cohorts: tuple[Cohort, ...] = Field(min_length=1)
    exclude: str | None = Field(
        default=None, description="CSV or Parquet with `patient_id` and/or `slide_id` to keep out (test sets)."
    )
    readers: tuple[Reader, ...] = Field(
        default=("openslide",), min_length=1, description="Tried in this order; the first that opens a slide reads it."
    )
    patch: Patch = Patch()
    tissue: Tissue = Tissue()
    quality: Quality = Quality()
    stain: Stain = Stain()
    codec: Codec = Codec()
    shards: Shards = Shards()
    splits: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Fraction] = Field(
        default={"val": 0.01}, description="Share of patients per split; the rest is `train`."
    )
    privacy: Privacy = Privacy()
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [cohort.name for cohort in self.cohorts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"cohorts: the name {twice[0]!r} is given twice; names must differ")
        if "train" in self.splits:
            raise ValueError("splits: `train` is what the other splits leave; take it out")
        if sum(self.splits.values()) >= 1:
            raise ValueError("splits: the shares leave nothing for `train`; their sum must be below 1")
        return self

    def content(self) -> dict[str, Any]:
        """Settings that decide the bytes of the shards: no locations, no name, nothing about the machine."""
        document = self.model_dump(mode="json", exclude={"name", "cohorts", "exclude"})
        return self._without_what_decides_nothing(document)

    def canonical(self) -> dict[str, Any]:
        """What `manifest.yaml` in a data set holds: everything but locations."""
        document = self.model_dump(mode="json", exclude={"exclude"})
        for cohort in document["cohorts"]:
            del cohort["slides"], cohort["table"]
        return self._without_what_decides_nothing(document)

    def _without_what_decides_nothing(self, document: dict[str, Any]) -> dict[str, Any]:
        # Data sets from before there were options and devices keep their content ids, and can be continued.
        if not self.stain.options:
            del document["stain"]["options"]
        if not (self.stain.device_counts and self.stain.device == "gpu"):
            del document["stain"]["device"]
        return document


def json_schema() -> dict[str, Any]:
    """JSON Schema of the manifest, for editors and checks."""
    return Manifest.model_json_schema()


def load_manifest(path: Path, settings: dict[str, str] | None = None) -> Manifest:
    """Read a manifest file and lay single settings over it.

    Args:
        path: The YAML file.
        settings: Dotted names and YAML values, e.g. ``{"stain.fit": "patch"}``.

    Raises:
        ManifestError: Naming the file, the field and what to do.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ManifestError(f"There is no manifest at {path}.") from error
    except OSError as error:
        raise ManifestError(f"The manifest {path} cannot be read: {error}.") from error
    return parse_yaml(data, settings or {}, where=str(path))


def parse_yaml(data: bytes, settings: dict[str, str], *, where: str) -> Manifest:
    """Validate a manifest given as the bytes of its file; see `load_manifest`."""
    try:
        document = yaml.safe_load(data.decode())
    except UnicodeDecodeError as error:
        raise ManifestError(f"The manifest {where} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise ManifestError(f"{where} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(document, dict):
        raise ManifestError(f"{where} is not a manifest: it must hold fields such as `name` and `cohorts`.")
    return parse_manifest(document, settings, where=where)


def parse_manifest(document: dict[str, Any], settings: dict[str, str], *, where: str) -> Manifest:
    """Validate a manifest given as plain values; see `load_manifest`."""
    for dotted, text in settings.items():
        _lay_over(document, dotted, text)
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        raise ManifestError(_first_sentence(error, where)) from error


def frozen_manifest(document: dict[str, Any]) -> Manifest:
    """The settings of a data set that exists, from `Manifest.canonical`; its cohorts name no places any more."""
    frozen = [{**cohort, "slides": ["(see the catalog)"]} for cohort in document["cohorts"]]
    return parse_manifest({**document, "cohorts": frozen}, {}, where="the data set's manifest")


def _lay_over(document: dict[str, Any], dotted: str, text: str) -> None:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ManifestError(f"--set {dotted}={text}: the value is not YAML.") from error
    *sections, field = dotted.split(".")
    place: Any = document
    for section in sections:
        place = _below(place, section)
        if not isinstance(place, dict | list):
            raise ManifestError(f"--set {dotted}: `{section}` has no fields below it that can be set this way.")
    if not isinstance(place, dict):
        raise ManifestError(f"--set {dotted}: name the cohort by its number or its name, then the field.")
    place[field] = value


def _below(place: Any, section: str) -> Any:
    """The section of that name; in a list (of cohorts) the entry of that number or name."""
    if isinstance(place, dict):
        return place.setdefault(section, {})
    named = [entry for entry in place if isinstance(entry, dict) and entry.get("name") == section]
    numbered = place[int(section) : int(section) + 1] if section.isdecimal() else []
    return next(iter(named + numbered), None)


def _first_sentence(error: ValidationError, where: str) -> str:
    first = error.errors(include_url=False)[0]
    dotted = ".".join(str(part) for part in first["loc"]) or "the manifest"
    if first["type"] == "extra_forbidden":
        known = _fields_at(first["loc"][:-1])
        close = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        remedy = f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(known)}."
        message = f"there is no such field; {remedy}"
    elif first["type"] == "missing":
        message = "the field is missing."
    else:
        message = first["msg"].removeprefix("Value error, ").rstrip(".") + f" (it is {_shortly(first['input'])})."
    more = f" ({error.error_count() - 1} more problems.)" if error.error_count() > 1 else ""
    return f"{where}: {dotted}: {message}{more}"


def _shortly(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    model: Any = Manifest
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        arguments = getattr(annotation, "__args__", ())
        model = arguments[0] if arguments else annotation
        if not hasattr(model, "model_fields"):
            return []
    return list(model.model_fields)
