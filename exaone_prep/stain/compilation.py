"""Compiling the kernels once per machine: numba's cache, several processes at once, folders that cannot be written."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple

from numba import njit
from numba.core import event

from exaone_prep.stain import kernels, table_kernel
from exaone_prep.stain.kernels import OPTIONS

_LOG = logging.getLogger(__name__)
_BYTES: Final = "Array(uint8, 1, 'C', readonly=True)"
_TABLE: Final = "Array({}, {}, 'C', readonly=True)"
_SIGNATURES: Final[dict[str, str]] = {
    "apply": f"void({_BYTES}, {_TABLE.format('float32', 1)}, uint8[::1])",
    "tables": f"void(float64[:, :, ::1], {_TABLE.format('float64', 1)}, float32[:, :, :, ::1])",
    "sum_products": f"void({_BYTES}, {_TABLE.format('int64', 1)}, int64[:, ::1])",
    "pseudo_angles": (
        f"void({_BYTES}, {_TABLE.format('float64', 1)}, int64, int64, float64[:, ::1], int64[::1], float64[::1])"
    ),
    "concentrations": f"void({_BYTES}, {_TABLE.format('float64', 1)}, float64[:, ::1], int64, float64[::1])",
}


class Kernels(NamedTuple):
    """The compiled functions of `exaone_prep.stain.kernels`."""

    apply: Callable[..., None]
    tables: Callable[..., None]
    sum_products: Callable[..., None]
    pseudo_angles: Callable[..., None]
    concentrations: Callable[..., None]


class _Announcer(event.Listener):  # type: ignore[misc]  # numba has no types
    """Says once that something is compiled, so that a first start is not taken for a hang."""

    def __init__(self) -> None:
        self._said = False

    def on_start(self, event: Any) -> None:  # noqa: ARG002 (numba's interface)
        """Numba found a function that is not in its cache."""
        if not self._said:
            self._said = True
            _LOG.warning("Compiling the stain kernels for this CPU; this takes some seconds, once per machine.")

    def on_end(self, event: Any) -> None:
        """Numba is done with it."""


_compiling = Lock()


def compiled() -> Kernels:
    """The kernels as machine code: from the cache, or compiled now, which the log says."""
    with _compiling:
        return _compiled()


@cache
def _compiled() -> Kernels:
    functions = Kernels(
        apply=kernels.apply,
        tables=table_kernel.tables,
        sum_products=kernels.sum_products,
        pseudo_angles=kernels.pseudo_angles,
        concentrations=kernels.concentrations,
    )
    dispatchers = {name: njit(**OPTIONS)(function) for name, function in functions._asdict().items()}
    for dispatcher in dispatchers.values():
        # RuntimeError: no place that can be written, neither beside the file nor in the person's home.
        with suppress(RuntimeError):
            dispatcher.enable_caching()
    with (
        _one_process_at_a_time(dispatchers["apply"].stats.cache_path),
        event.install_listener("numba:compile", _Announcer()),
    ):
        for name, dispatcher in dispatchers.items():
            dispatcher.compile(_SIGNATURES[name])
            dispatcher.disable_compile()
    return Kernels(**dispatchers)


@contextmanager
def _one_process_at_a_time(folder: str | None) -> Iterator[None]:
    """Hold a lock beside the cache, where there is one: the first compiles, the others load what it left."""
    try:
        stream = (Path(folder or "") / "exaone-prep-stain.lock").open("ab") if folder else None
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
