"""What a run writes down: a line of JSON per entry, TensorBoard, and a quiet line for people."""

from __future__ import annotations

import fcntl
import json
import logging
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from exaone_train.devices import Fabric
from exaone_train.errors import TrainError
from exaone_train.stream import Batch, Stream

LINE = "loss {loss:.3f}, {images_per_s:,.0f} images/s, waiting {wait_share:.0%}, {slides} slides in the batch"

log = logging.getLogger(__name__)


class Journal:
    """The log of a run, over all of its processes; the first one writes.

    Args:
        fabric: Of this process.
        run: Folder of the run: `log.jsonl`, and `tensorboard/`.
        step: Finished steps. Entries of later ones, which went with a process that was killed, are taken out.

    Raises:
        TrainError: Another `fit` is at this run; its log is left as it is.
    """

    def __init__(self, fabric: Fabric, run: Path, step: int) -> None:
        self._fabric = fabric
        self._begin()
        if fabric.is_global_zero:
            self._file = (run / "log.jsonl").open("a+b")
            _claim(self._file, run)
            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
            self._file.seek(0)
            lines = [line for line in self._file if line.endswith(b"}\n") and json.loads(line)["step"] <= step]
            self._file.truncate(sum(map(len, lines)))

    def wait_for(self, stream: Stream) -> Batch:
        """The next batch of a stream; the time until it is there counts as waiting."""
        asked = time.perf_counter()
        batch = next(stream)
        self._waited_s += time.perf_counter() - asked
        self._images += len(batch.keys)
        self._substituted += batch.substituted
        return batch

    def rates(self, batch: Batch) -> dict[str, float]:
        """What was measured since the last call; every process calls it.

        Returns:
            `images_per_s`; `wait_share`, the share of time that processes waited for data; `slides` that the whole of
            the present batch is from; `substituted` samples.
        """
        ranks, passed_s = self._fabric.world_size, time.perf_counter() - self._since
        measured = (self._images / passed_s, self._waited_s / passed_s, self._substituted)
        rate, waited, substituted = mean_over_ranks(self._fabric, measured)
        ids = torch.tensor([zlib.crc32(slide.encode()) for slide in batch.slide_ids], device=self._fabric.device)
        everywhere: Any = self._fabric.all_gather(ids)
        self._begin()
        counts = {"slides": len(everywhere.unique()), "substituted": round(substituted * ranks)}
        return {"images_per_s": rate * ranks, "wait_share": waited, **counts}

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write down an entry, if there is anything in it, `step` being the number of finished steps."""
        if not values or not self._fabric.is_global_zero:
            return
        self._file.write(json.dumps({"step": step, **values}).encode() + b"\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        if "loss" in values:
            log.info("step %d: %s", step, LINE.format_map(values))

    def close(self) -> None:
        """Close the files."""
        if self._fabric.is_global_zero:
            self._file.close()
            self._board.close()

    def _begin(self) -> None:
        self._since, self._waited_s, self._images, self._substituted = time.perf_counter(), 0.0, 0, 0


def _claim(file: BinaryIO, run: Path) -> None:
    """Let no other process train this run until the file is closed or this one dies: each would cut the other's log."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise TrainError(f"Another process is training {run}: wait for it, or give another --out.") from None
    except OSError as error:  # some file systems of clusters have no locks
        log.debug("%s is not locked: %s", run, error)


def mean_over_ranks(fabric: Fabric, values: Sequence[float | Tensor]) -> list[float]:
    """Means over all processes, in one exchange; each of them calls it."""
    together = torch.stack([torch.as_tensor(value, dtype=torch.float32, device=fabric.device) for value in values])
    means: Any = fabric.all_reduce(together, reduce_op="mean")
    return list(means.tolist())
