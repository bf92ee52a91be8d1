"""A run from its configuration to its last step; killed at any moment, the same call goes on."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from exaone_train import checkpoint
from exaone_train.augment import MultiCrop
from exaone_train.config import Config
from exaone_train.devices import Fabric, one_device_each
from exaone_train.dino import Learner
from exaone_train.errors import TrainError
from exaone_train.journal import Journal, mean_over_ranks
from exaone_train.schedules import values_at
from exaone_train.shardset import ShardSet, open_shards
from exaone_train.stream import Stream, held_out
from exaone_train.watch import Watch


def fit(config: Config, places: Sequence[str], run: Path) -> bool:
    """Train, from the newest checkpoint in `run` if there is one.

    Started by `torchrun`, each process has one device and an equal share of every batch; all see the same `run`.

    Args:
        config: Of the run; `config.MAY_CHANGE` says what may be other than when it began.
        places: Data set directories or URLs, taken as one.
        run: Folder of checkpoints, log and TensorBoard's files.

    Returns:
        Whether the run has made its last step; if not, it was asked to stop, and the same call goes on.

    Raises:
        TrainError: Something a person can mend; or the loss is no longer a number.
    """
    fabric = one_device_each(config)
    rank, ranks, steps, seed = fabric.global_rank, fabric.world_size, config.run.max_steps, config.run.seed
    first = rank * config.per_rank(ranks)
    run.mkdir(parents=True, exist_ok=True)
    shards = open_shards(places, config.data.split)
    learner, done = _begin(config, fabric, shards, run)
    if done == steps:
        return True
    crop = MultiCrop(config.crops, seed=seed, batch_size=config.data.batch_size)
    watch = _watch(config, places) if rank == 0 else None
    with (
        _stop_requests() as asked,
        closing(Stream(shards, config.data, seed=seed, rank=rank, world_size=ranks, start_step=done)) as stream,
        closing(Journal(fabric, run, done)) as journal,
    ):
        while done < steps:
            values = values_at(config, step := done)
            batch = journal.wait_for(stream)
            crops = crop(batch.images.to(fabric.device, non_blocking=True), step=step, first=first)
            # One exchange for all: every process must stop at the same step.
            outcome = (*learner.differentiate(crops, step, values), bool(asked))
            loss, gradient_norm, stopping = mean_over_ranks(fabric, outcome)
            if not math.isfinite(loss) or not math.isfinite(gradient_norm):
                raise TrainError(
                    f"The loss of step {step} is {loss}, its gradient {gradient_norm}: the run has diverged."
                )
            learner.update(values)
            done += 1
            last, entry = stopping or done == steps, {}
            if last or done % config.run.log_every == 0:
                learned = {"epoch": done / stream.steps_per_epoch, "loss": loss, "gradient_norm": gradient_norm}
                entry = learned | values._asdict() | journal.rates(batch)
            if watch is not None and done % config.run.watch_every == 0:
                entry |= watch.look(learner, values.teacher_temperature)
            journal.write(done, entry)
            if rank == 0 and (last or done % config.run.checkpoint_every == 0):
                state = {"step": done, "config": config.model_dump(mode="json"), "shards": shards.provenance}
                checkpoint.save(run / "checkpoints", state | learner.state(), keep=config.run.keep_checkpoints)
            if stopping:
                break
    return done == steps


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Signals to stop that came: a step ends in peace.

    Schedulers, terminals and `torchrun` each send theirs to the same process, so a second one means no more than the
    first; SIGQUIT ends it at once.
    """
    asked: list[int] = []
    before = {one: signal.signal(one, lambda one, _: asked.append(one)) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _begin(config: Config, fabric: Fabric, shards: ShardSet, run: Path) -> tuple[Learner, int]:
    """A learner as the newest checkpoint has it, or a fresh one, and how many steps it has done."""
    state, learner = checkpoint.load_newest(run / "checkpoints"), Learner(config, fabric)
    if state is None:
        return learner, 0
    checkpoint.ensure_same_run(state, config, shards.provenance)
    learner.load(state)
    return learner, int(state["step"])


def _watch(config: Config, places: Sequence[str]) -> Watch | None:
    """Held-out patches to look at, if there are any."""
    data, shards = config.data, open_shards(places, config.data.held_out_split)
    held = held_out(shards, config.run.watch_images, on_damage=data.on_damage)
    return None if held is None else Watch(held.images, held.slide_ids, config.crops.global_size_px)
