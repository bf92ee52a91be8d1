"""`exaone-train`, and a record of the samples that each process was given, in the folder of the first argument.

Started by `torchrun`, or alone: `python -m tests.recordedtrainer FOLDER fit ...`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from exaone_train.cli import main
from exaone_train.stream import Batch, Stream

_next = Stream.__next__


def record(folder: Path) -> None:
    """Have every stream of this process write down steps and keys."""
    lines = (folder / f"rank-{os.environ.get('RANK', '0')}.jsonl").open("a")

    def recorded(stream: Stream) -> Batch:
        batch = _next(stream)
        lines.write(json.dumps([batch.step, batch.keys]) + "\n")
        lines.flush()
        return batch

    Stream.__next__ = recorded  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    record(Path(sys.argv.pop(1)))
    main()
