"""The flow `pretrain`: training on data sets that are verified, in processes of its own."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from typing import Annotated

from prefect import get_run_logger
from pydantic import Field

from exaone_prep.dataset import open_dataset
from exaone_prep.errors import PrepError
from exaone_prep.verify import ensure_verified
from flows.served import absolute, served_flow

STOP_WITHIN_S = 60.0
"""From being asked to stop until being killed: the trainer ends its step and writes a checkpoint."""


class TrainingError(PrepError):
    """The trainer ended before its last step."""


@served_flow("pretrain")
def pretrain(
    datasets: Annotated[list[str], Field(min_length=1)],
    config: str,
    out: str,
    settings: dict[str, str] = {},  # noqa: B006 (shown as the default, and changed by nobody)
    processes: Annotated[int, Field(ge=1)] = 1,
) -> None:
    """Check that data sets are verified, and train on them; run again, it goes on from the newest checkpoint.

    Args:
        datasets: Data set directories taken as one: absolute paths or fsspec URLs.
        config: Of the trainer, such as configs/vit_b16.yaml: an absolute path on the machine of Prefect's worker.
        out: Folder of the run: an absolute path.
        settings: Single settings laid over the configuration, by names such as run.max_steps.
        processes: One for each GPU of the worker's machine.

    Raises:
        DatasetError: One of them is not verified, or damaged.
        TrainingError: The trainer failed, or was stopped.
    """
    places = [absolute(place, "datasets") for place in datasets]
    words = ["fit", absolute(config, "config"), "--out", absolute(out, "out")]
    words += [word for place in places for word in ("--shards", place)]
    words += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    samples = sum(ensure_verified(open_dataset(place))["samples"] for place in places)
    get_run_logger().info("The data sets are verified: %s samples.", f"{samples:,}")
    train(words, processes)


def train(words: list[str], processes: int) -> None:
    """Run `exaone-train` in processes of its own, and show in Prefect what it says.

    Raises:
        TrainingError: It failed, or was stopped; with the last that it said.
    """
    logger, said = get_run_logger(), deque[str](maxlen=1)
    many = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"] if processes > 1 else []
    with subprocess.Popen(  # noqa: S603 (our own interpreter and entry)
        [sys.executable, "-m", *many, "exaone_train", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                said.append(line.rstrip())
                logger.info(line.rstrip())
            code = process.wait()
        except BaseException:  # the flow is cancelled
            _end(process)
            raise
    if code:
        raise TrainingError(f"The trainer ended with exit code {code}: {' '.join(said)}")


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
