"""The engine of a GPU: many patches per launch, several lanes so that copies and work overlap; the bits of the others.

Nothing here knows CuPy: a `Card` does, and the tests have one of a C++ compiler's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Lock
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exaone_prep.channel_sums import count_channels
from exaone_prep.stain.algebra import Matrix3
from exaone_prep.stain.card import Card, Lane
from exaone_prep.stain.density import EXACT_SUM_PIXELS, IO, MAX_KEPT_LEVEL, OD_FIXED, OD_TABLE
from exaone_prep.stain.engine import AngleQuery, ConcentrationQuery, Loaded, Moments
from exaone_prep.stain.exponential import COEFFICIENTS, LN2_HIGH, LN2_LOW, LOG2_E
from exaone_prep.stain.tables import MAX_ENTRY, MAX_EXPONENT

LANES: Final = 3
"""One uploads, one works, one downloads."""

CHUNK_BYTES: Final = 16 << 20
"""Pixels loaded together, 85 patches of 256×256: a launch then costs little beside the copies."""

SHARE_OF_MEMORY: Final = 0.25
"""Of the card's free memory, for the chunks of all lanes: others may use the same card."""

_BYTES_PER_SET: Final = 3 * 256 * 16 + 256  # its tables, queries and answers
_SUMS: Final = 10
_NOT_KEPT: Final = -(1 << 63)
_TABLE_BYTES: Final = 3 * 256 * 16
_THREADS: Final = 512
_APPLY_PIXELS: Final = 16_384  # per block

_DENSITIES: Final = np.where(np.arange(256) <= MAX_KEPT_LEVEL, OD_FIXED, np.int64(_NOT_KEPT))
_CONSTANTS: Final = np.array(
    [LOG2_E, LN2_HIGH, LN2_LOW, MAX_EXPONENT, MAX_ENTRY, float(IO), *COEFFICIENTS], dtype=np.float64
)
_FIXED: Final[dict[str, NDArray[Any]]] = {"od": OD_TABLE, "densities": _DENSITIES, "constants": _CONSTANTS}
"""What each lane has on the card from its beginning."""


class GpuEngine:
    """Patches in chunks that fit the card; one object serves any number of threads, `LANES` of them at once."""

    def __init__(self, card: Card, *, chunk_bytes: int = CHUNK_BYTES, threads: int = _THREADS) -> None:
        """Take a card.

        Args:
            card: Where to work.
            chunk_bytes: Of pixels to load together, at most.
            threads: Per block.
        """
        self.name = "gpu"
        self.card = card
        self._threads = threads
        self._chunk_bytes = max(1, min(chunk_bytes, int(card.free_bytes() * SHARE_OF_MEMORY) // LANES))
        self._free: SimpleQueue[Lane] = SimpleQueue()
        self._made = 0
        self._lock = Lock()

    def sets_at_once(self, pixels_per_set: int) -> int:
        """As many as fit a chunk, one at least."""
        return max(1, self._chunk_bytes // (3 * pixels_per_set + _BYTES_PER_SET))

    def lanes(self, threads: int) -> int:  # noqa: ARG002 (they only feed the card)
        """`LANES`, whatever the caller offers: the threads wait for the card most of the time."""
        return LANES

    @contextmanager
    def load(self, sets: NDArray[np.uint8]) -> Iterator[Loaded]:
        """Have uint8 (N, P, 3) pixels on the card until the context ends; waits for a free lane."""
        lane = self._lane()
        try:
            yield _Loaded(lane, sets, self._threads)
        finally:
            try:
                # Whatever happened, nothing may still be copied from or to the buffers of the next one.
                lane.wait()
            finally:
                self._free.put(lane)

    def _lane(self) -> Lane:
        with self._lock:
            if self._made < LANES and self._free.empty():
                lane = self.card.lane()
                self._made += 1
                for name, table in _FIXED.items():
                    lane.upload(table, lane.memory(name, table.nbytes))
                lane.wait()
                return lane
        return self._free.get()


class _Loaded:
    def __init__(self, lane: Lane, sets: NDArray[np.uint8], threads: int) -> None:
        self.lane = lane
        self._threads = threads
        self._n, self._n_pixels = sets.shape[0], sets.shape[1]
        self._staging = lane.staging(sets.nbytes).reshape(sets.shape)
        np.copyto(self._staging, sets)
        self._pixels = lane.memory("pixels", sets.nbytes)
        if self._staging.size:
            lane.upload(self._staging, self._pixels)

    def moments(self) -> list[Moments]:
        rows = max(1, -(-self._n_pixels // EXACT_SUM_PIXELS))
        sums = np.empty((self._n, rows, _SUMS), dtype=np.int64)
        arguments = [self._pixels, self._n_pixels, EXACT_SUM_PIXELS, self._fixed("densities")]
        self._answered("moments", (rows, self._n), arguments, sums)
        return [_moments(per_row) for per_row in sums.tolist()]

    def pseudo_angles(self, queries: Sequence[AngleQuery | None]) -> list[tuple[float, float] | None]:
        axes = [None if query is None else (query.first, query.second) for query in queries]
        ranks = [None if query is None else query.ranks for query in queries]
        return self._order_statistics("pseudo_angles", [MAX_KEPT_LEVEL], axes, ranks)

    def concentrations(self, queries: Sequence[ConcentrationQuery | None]) -> list[tuple[float, float] | None]:
        axes = [None if query is None else query.inverse for query in queries]
        ranks = [None if query is None else (query.rank, query.rank) for query in queries]
        return self._order_statistics("concentrations", [], axes, ranks)

    def _order_statistics(
        self, kernel: str, more: Sequence[Any], axes: Sequence[Any], ranks: Sequence[tuple[int, int] | None]
    ) -> list[tuple[float, float] | None]:
        places = np.array([(-1, -1) if pair is None else pair for pair in ranks], dtype=np.int32)
        vectors = np.array([((0.0,) * 3,) * 2 if pair is None else pair for pair in axes], dtype=np.float64)
        answers = np.empty((self._n, 2), dtype=np.float64)
        arguments = [self._pixels, self._n_pixels, self._fixed("od"), *more]
        arguments += [self._sent("axes", vectors), self._sent("ranks", places)]
        self._answered(kernel, (self._n, 1), arguments, answers)
        return [
            None if pair is None else (low, high) for pair, (low, high) in zip(ranks, answers.tolist(), strict=True)
        ]

    def apply(self, corrections: Sequence[Matrix3 | None], out: NDArray[np.uint8], sums: NDArray[np.int64]) -> None:
        numbers: dict[Matrix3, int] = {}
        which = np.array(
            [-1 if one is None else numbers.setdefault(one, len(numbers)) for one in corrections], dtype=np.int32
        )
        if self._staging.size and numbers:
            lane, matrices = self.lane, self._sent("matrices", np.array(list(numbers), dtype=np.float64))
            tables = lane.memory("tables", len(numbers) * _TABLE_BYTES)
            fixed = [self._fixed("od"), self._fixed("constants")]
            lane.launch("tables", (len(numbers), 1), self._threads, [matrices, *fixed, tables])
            blocks = max(1, -(-self._n_pixels // _APPLY_PIXELS))
            arguments = [self._pixels, self._n_pixels, tables, self._sent("which", which)]
            lane.launch("apply", (blocks, self._n), self._threads, arguments)
            lane.download(self._pixels, self._staging)
        self.lane.wait()
        np.copyto(out, self._staging)
        for number, made in enumerate(out):  # a twentieth of what encoding them costs the same processor
            sums[number] = count_channels(made)

    def _fixed(self, name: str) -> Any:
        return self.lane.memory(name, _FIXED[name].nbytes)

    def _sent(self, name: str, host: NDArray[Any]) -> Any:
        memory = self.lane.memory(name, host.nbytes)
        self.lane.upload(host, memory)
        return memory

    def _answered(self, kernel: str, blocks: tuple[int, int], arguments: list[Any], answer: NDArray[Any]) -> None:
        """Launch a kernel whose last argument is its answer, and wait for that."""
        if not self._n:
            return
        memory = self.lane.memory("answer", answer.nbytes)
        self.lane.launch(kernel, blocks, self._threads, [*arguments, memory])
        self.lane.download(memory, answer)
        self.lane.wait()


def _moments(rows: list[list[int]]) -> Moments:
    r, g, b, rr, rg, rb, gg, gb, bb, n = (sum(column) for column in zip(*rows, strict=True))
    return Moments(n_kept=n, sums=(r, g, b), products=(rr, rg, rb, gg, gb, bb))
