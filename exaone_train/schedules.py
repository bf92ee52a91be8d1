"""What changes from step to step, as pure functions of the step: nothing to keep in a checkpoint."""

from __future__ import annotations

import math
from typing import NamedTuple

from exaone_train.config import Config

LEARNING_RATE_BATCH = 256
"""Images of the batch that the configured learning rate is meant for."""


class StepValues(NamedTuple):
    """Values of one step.

    Attributes:
        learning_rate: Of AdamW.
        weight_decay: Of its matrices.
        teacher_momentum: Share of itself that the teacher keeps.
        teacher_temperature: Of the teacher's softmax.
    """

    learning_rate: float
    weight_decay: float
    teacher_momentum: float
    teacher_temperature: float


def values_at(config: Config, step: int) -> StepValues:
    """Schedules of DINO (Caron et al. 2021, section 3.2 and appendix) at a step, 0 ≤ step < `run.max_steps`.

    The learning rate rises linearly from 0 to its peak at `warmup_steps` and falls by a cosine to its end at
    `max_steps`; weight decay and the teacher's momentum follow a cosine over the whole run; the teacher's temperature
    rises linearly.
    """
    optimizer, dino, steps = config.optimizer, config.dino, config.run.max_steps
    peak = optimizer.learning_rate * config.data.batch_size / LEARNING_RATE_BATCH
    warmup, heating = optimizer.warmup_steps, dino.teacher_temperature_warmup_steps
    descent = (step - warmup) / max(1, steps - warmup)
    rate = line(0, peak, step, warmup) if step < warmup else cosine(peak, optimizer.learning_rate_end, descent)
    return StepValues(
        learning_rate=rate,
        weight_decay=cosine(optimizer.weight_decay, optimizer.weight_decay_end, step / steps),
        teacher_momentum=cosine(dino.teacher_momentum, 1, step / steps),
        teacher_temperature=line(dino.teacher_temperature_start, dino.teacher_temperature, step, heating),
    )


def cosine(start: float, end: float, share: float) -> float:
    """Half a cosine from `start` at share 0 to `end` at share 1."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def line(start: float, end: float, step: int, steps: int) -> float:
    """A line from `start` at step 0 to `end` at `steps`, and `end` from there on."""
    return start + (end - start) * step / steps if step < steps else end
