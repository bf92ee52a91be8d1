"""Configurations in YAML, and changes of them on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from exaone_train.config import Config
from exaone_train.errors import ConfigError

_SECTIONS = ", ".join(Config.model_fields)


def load_config(path: str | Path, changes: Sequence[str] = ()) -> Config:
    """Read a configuration.

    Args:
        path: YAML.
        changes: `section.field=value`, or `field=value` where only one section has such a field; values are YAML.

    Raises:
        ConfigError: It cannot be read, or does not hold together.
    """
    try:
        written = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"The configuration {path} cannot be read: {_line(error)}.") from error
    if not isinstance(written, dict) or not all(isinstance(part, dict | None) for part in written.values()):
        raise ConfigError(f"The configuration {path} is not a table of the sections {_SECTIONS}.")
    parts = {name: dict(part or {}) for name, part in written.items()}
    for change in changes:
        _change(parts, change)
    try:
        return Config.model_validate(parts)
    except ValidationError as error:
        raise ConfigError(f"The configuration {path} does not hold together: {_said(error)}.") from error


def _change(parts: dict[Any, dict[str, Any]], change: str) -> None:
    name, equals, value = change.partition("=")
    section, dot, field = name.strip().rpartition(".")
    if not equals or (dot and section not in Config.model_fields):
        raise ConfigError(f"--set {change}: write section.field=value with a section of {_SECTIONS}.")
    if not dot:
        fields = {key: type(part.default).model_fields for key, part in Config.model_fields.items()}
        found = [key for key, known in fields.items() if field in known]
        if len(found) != 1:
            raise ConfigError(f"--set {change}: there is no field {field!r} in any of the sections {_SECTIONS}.")
        section = found[0]
    try:
        parts.setdefault(section, {})[field] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {change}: the value is no YAML: {_line(error)}.") from error


def _said(error: ValidationError) -> str:
    places = ((".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")) for one in error.errors())
    return "; ".join(f"{place}: {message}" if place else message for place, message in places)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
