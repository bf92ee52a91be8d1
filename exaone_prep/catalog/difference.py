"""Where two manifests differ: a changed manifest never continues an old build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def explain_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Dotted names of the fields in which two canonical manifests differ, sorted.

    Cohorts and other lists of named things are compared by name (`cohorts.tcga.mpp`), so their order does not count;
    a section or cohort that only one side has is named as a whole.

    Args:
        old: `Manifest.canonical` of the build that lies there.
        new: The same of the manifest at hand.
    """
    return sorted(_differences(old, new, ""))


def _differences(old: object, new: object, name: str) -> list[str]:
    left, right = _fields(old), _fields(new)
    if left is None or right is None:
        return [] if old == new and isinstance(old, bool) == isinstance(new, bool) else [name]
    result = []
    for key in sorted({*left, *right}):
        dotted = f"{name}.{key}" if name else key
        if key in left and key in right:
            result += _differences(left[key], right[key], dotted)
        else:
            result.append(dotted)
    return result


def _fields(value: object) -> dict[str, object] | None:
    if isinstance(value, Mapping):
        return {str(key): below for key, below in value.items()}
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        return None
    if not all(isinstance(item, Mapping) and "name" in item for item in value):
        return None
    return {str(item["name"]): item for item in value}
