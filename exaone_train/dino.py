"""One step of DINO: the student learns to say of every crop what the teacher says of the global ones.

Caron et al., *Emerging Properties in Self-Supervised Vision Transformers*, ICCV 2021, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from lightly.loss.dino_loss import DINOLoss
from lightly.models.utils import update_momentum
from torch import Tensor, nn

from exaone_train.config import Config
from exaone_train.devices import Fabric
from exaone_train.model import Network, weight_groups
from exaone_train.schedules import StepValues

GLOBAL_CROPS = 2


class Loss(DINOLoss):  # type: ignore[misc]  # lightly has no types
    """lightly's loss, whose centre moves once per step, however many parts the step is computed in."""

    def __init__(self, config: Config) -> None:
        dino, outputs = config.dino, config.model.head_outputs
        super().__init__(outputs, student_temp=dino.student_temperature, center_momentum=dino.centre_momentum)
        self._means: list[Tensor] = []

    def update_center(self, teacher_out: Tensor) -> None:
        """Keep the mean of a part; lightly calls it with float32 (crops, b, outputs) after each loss."""
        self._means.append(teacher_out.mean(dim=(0, 1)))

    def move_centre(self) -> None:
        """Move the centre by the mean over all parts, which are of one size, and over all ranks."""
        super().update_center(torch.stack(self._means).unsqueeze(1))
        self._means.clear()


class Learner:
    """Student, teacher, loss and optimizer.

    Attributes:
        student: In training mode; drop path follows (seed, step, rank).
        teacher: Moving average of the student, without drop path.
        loss: With the centre of the teacher's outputs.
    """

    def __init__(self, config: Config, fabric: Fabric) -> None:
        self._config, self._fabric = config, fabric
        torch.manual_seed(config.run.seed)
        self.student = Network(config, drop_path_rate=config.model.drop_path_rate)
        self.teacher = Network(config)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(requires_grad=False).eval().to(fabric.device)
        self.loss = Loss(config).to(fabric.device)
        for network in (self.student, self.teacher) if config.run.compile else ():
            network.encoder.compile()
        optimizer = torch.optim.AdamW(weight_groups(self.student))
        self._parts = {"student": self.student, "teacher": self.teacher, "loss": self.loss, "optimizer": optimizer}
        self._wrapped, self._optimizer = fabric.setup(self.student, optimizer)

    def differentiate(self, crops: Sequence[Tensor], step: int, values: StepValues) -> tuple[Tensor, Tensor]:
        """Leave the gradients of one step, computed in as many parts as the configuration says, and clipped.

        Args:
            crops: This rank's, float32 (b, 3, s, s) each, the two global ones first.
            step: Of the run.
            values: Of the step.

        Returns:
            Mean loss of this rank's images, and norm of all gradients before they were clipped; float32 scalars.
        """
        run = self._config.run
        state = np.random.SeedSequence((run.seed, step, self._fabric.global_rank)).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0] >> 1))
        total = torch.zeros((), device=self._fabric.device)
        for number, part in enumerate(zip(*(crop.chunk(run.accumulate) for crop in crops), strict=True)):
            with self._fabric.no_backward_sync(self._wrapped, enabled=number < run.accumulate - 1):
                teacher = self.teach(torch.cat(part[:GLOBAL_CROPS]))[1].chunk(GLOBAL_CROPS)
                student = self._wrapped(part).chunk(len(part))
                loss = self.loss(teacher, student, values.teacher_temperature) / run.accumulate
                self._fabric.backward(loss)
            total += loss.detach()
        self.student.head.cancel_last_layer_gradients(step)  # lightly counts epochs; the head was given steps
        return total, clip_each(self.student.parameters(), self._config.optimizer.clip_gradient)

    def update(self, values: StepValues) -> None:
        """Move the student by its gradients, the centre by what the teacher said, and the teacher by the student."""
        for group, weight_decay in zip(self._optimizer.param_groups, (values.weight_decay, 0.0), strict=True):
            group.update(lr=values.learning_rate, weight_decay=weight_decay)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.loss.move_centre()
        update_momentum(self.student, self.teacher, values.teacher_momentum)

    @torch.no_grad()
    def teach(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's features (b, dim) of images, and what its head says of them (b, outputs); float32."""
        with self._fabric.autocast():
            features = self.teacher.encoder(images)
            outputs = self.teacher.head(features)
        return features.float(), outputs.float()

    def state(self) -> dict[str, Any]:
        """All that a later process needs to go on; tensors and plain values."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


@torch.no_grad()
def clip_each(parameters: Iterable[nn.Parameter], largest: float | None) -> Tensor:
    """Scale each parameter's gradient whose norm is over `largest` down to it, one by one, as the paper's code does.

    The common way, by one norm over all of them, lets the largest gradient decide for all others.

    Returns:
        Norm of all gradients as they were.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms: Tensor = torch.stack(torch._foreach_norm(gradients))  # noqa: SLF001  # as PyTorch's own clipping does
    if largest is not None:
        torch._foreach_mul_(gradients, list((largest / (norms + 1e-6)).clamp(max=1).unbind()))
    return norms.norm()  # type: ignore[no-any-return]
