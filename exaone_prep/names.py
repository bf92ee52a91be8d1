"""Clear names of slides, and hiding them where a data set has hashed ids."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Protocol

from exaone_prep.errors import PrepError, SlideProblemError


class _Row(Protocol):
    @property
    def slide_id(self) -> str: ...


class Names:
    """Where slides lie, and what of it a message may say.

    With clear ids nothing is hidden. With hashed ids every place, file name and stem of a slide is replaced by its
    id in whatever leaves the process: sentences in the survey, errors, logs.
    """

    def __init__(self, uris: Mapping[str, str], *, hidden: bool, patients: Mapping[str, str] | None = None) -> None:
        self.uris = uris
        self.hidden = hidden
        self._patients = patients or {}

    def hide(self, text: str | None, rows: Sequence[_Row] = ()) -> str | None:
        """The text without clear names of the given slides (all of them by default)."""
        if text is None or not self.hidden:
            return text
        ids = [row.slide_id for row in rows] or list(self.uris)
        for slide_id in ids:
            for clear in _clear_names(self.uris[slide_id]):
                text = text.replace(clear, slide_id)
            patient = self._patients.get(slide_id)
            if patient:
                text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(patient)}(?![A-Za-z0-9])", "(patient)", text)
        return text

    @contextmanager
    def hiding(self, rows: Sequence[_Row]) -> Iterator[None]:
        """Errors that pass through lose the clear names of these slides."""
        try:
            yield
        except SlideProblemError:
            raise
        except PrepError as error:
            if not self.hidden:
                raise
            raise type(error)(self.hide(str(error), rows)) from None
        except OSError as error:
            if not self.hidden:
                raise
            raise type(error)(error.errno, self.hide(str(error.strerror), rows)) from None


def _clear_names(uri: str) -> list[str]:
    path = PurePosixPath(uri)
    names = [uri, uri.removeprefix("file://"), str(path.parent), path.name, path.stem]
    # Longest first, so that a path goes as a whole; roots and one-letter names would hit innocent text.
    return sorted({name for name in names if len(name) > 3}, key=len, reverse=True)
