"""Compiling loops once per machine: numba's cache, several processes at once, folders that cannot be written."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from numba import njit
from numba.core import event

OPTIONS: Final[dict[str, Any]] = {"nogil": True, "fastmath": False, "error_model": "numpy", "boundscheck": False}
"""Threads run beside each other, and nothing is fused or reordered."""

_LOG = logging.getLogger(__name__)


class Kernel(NamedTuple):
    """A function for numba and the types of its arguments."""

    function: Callable[..., None]
    signature: str


def read_only(scalar: str, dimensions: int = 1) -> str:
    """The type of a contiguous array that a kernel only reads."""
    return f"Array({scalar}, {dimensions}, 'C', readonly=True)"


class _Announcer(event.Listener):  # type: ignore[misc]  # numba has no types
    """Says once that something is compiled, so that a first start is not taken for a hang."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._said = False

    def on_start(self, event: Any) -> None:  # noqa: ARG002 (numba's interface)
        """Numba found a function that is not in its cache."""
        if not self._said:
            self._said = True
            _LOG.warning("Compiling %s for this CPU; this takes some seconds, once per machine.", self._what)

    def on_end(self, event: Any) -> None:
        """Numba is done with it."""


def compiled(kernels: Mapping[str, Kernel], what: str) -> dict[str, Any]:
    """Kernels as machine code: from the cache, or compiled now, which the log says.

    numba notices changes of the file of a kernel only: what it calls belongs into the same file.

    Args:
        kernels: By name.
        what: They are, for the log.

    Returns:
        A dispatcher for each, which compiles nothing more.
    """
    dispatchers = {name: njit(**OPTIONS)(kernel.function) for name, kernel in kernels.items()}
    for dispatcher in dispatchers.values():
        # RuntimeError: no place that can be written, neither beside the file nor in the person's home.
        with suppress(RuntimeError):
            dispatcher.enable_caching()
    folder = next(iter(dispatchers.values())).stats.cache_path
    with _one_process_at_a_time(folder), event.install_listener("numba:compile", _Announcer(what)):
        for name, dispatcher in dispatchers.items():
            dispatcher.compile(kernels[name].signature)
            dispatcher.disable_compile()
    return dispatchers


@contextmanager
def _one_process_at_a_time(folder: str | None) -> Iterator[None]:
    """Hold a lock beside the cache, where there is one: the first compiles, the others load what it left."""
    try:
        stream = (Path(folder or "") / "exaone-prep.lock").open("ab") if folder else None
    except OSError:
        stream = None
    if stream is None:
        yield
        return
    with stream:
        # A file system without locks costs a second compilation, no more.
        with suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
