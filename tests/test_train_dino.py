"""A step of DINO: the loss of the paper, one centre, parts that change nothing, and a teacher that follows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from exaone_train.config import Config
from exaone_train.devices import Fabric
from exaone_train.dino import Learner, Loss, clip_each
from exaone_train.schedules import StepValues, values_at
from tests.trainruns import tiny

torch.set_num_threads(1)

Floats = NDArray[np.float64]
VALUES = StepValues(learning_rate=0.01, weight_decay=0.1, teacher_momentum=0.75, teacher_temperature=0.05)


def learner(config: Config, precision: str = "32-true") -> Learner:
    return Learner(config, Fabric(accelerator="cpu", devices=1, precision=precision))  # type: ignore[arg-type]


def some_crops(config: Config, images: int = 8, seed: int = 0) -> list[Tensor]:
    crops = config.crops
    sizes = [crops.global_size_px] * 2 + [crops.local_size_px] * crops.local_crops
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(images, 3, size, size, generator=random) for size in sizes]


def paper_loss(teacher: Sequence[Floats], student: Sequence[Floats], centre: Floats, hot: float, cold: float) -> float:
    """Equations 1 to 3 of the paper: cross entropies of all pairs but a view with itself, one image at a time."""

    def softmax(logits: Floats) -> Floats:
        grown = np.exp(logits - logits.max())
        return np.asarray(grown / grown.sum())

    terms = []
    for number, taught in enumerate(teacher):
        for other, learned in enumerate(student):
            if number != other:
                pairs = zip(taught, learned, strict=True)
                terms += [-(softmax((t - centre) / hot) * np.log(softmax(s / cold))).sum() for t, s in pairs]
    return float(np.mean(terms))


@given(images=st.integers(1, 4), local=st.integers(0, 3), outputs=st.integers(2, 9), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_loss_is_that_of_the_paper(images: int, local: int, outputs: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    said = random.uniform(-1, 1, (4 + local, images, outputs))
    centre = random.uniform(-0.5, 0.5, outputs)
    loss = Loss(tiny(model__head_outputs=outputs)).double()
    loss.center.copy_(torch.from_numpy(centre))
    teacher, student = torch.from_numpy(said[:2]), torch.from_numpy(said[2:])
    found = loss(list(teacher), list(student), 0.05)
    expected = paper_loss(list(teacher.numpy()), list(student.numpy()), centre, 0.05, 0.1)
    assert found.item() == pytest.approx(expected, rel=1e-6)  # the temperature is float32


def test_a_uniform_teacher_and_student_have_the_logarithm_of_the_prototypes_as_loss() -> None:
    flat = [torch.zeros(3, 64)] * 2
    assert Loss(tiny())(flat, flat, 0.04).item() == pytest.approx(math.log(64))


def test_the_centre_moves_once_per_step_by_the_mean_of_all_parts() -> None:
    loss = Loss(tiny(dino__centre_momentum=0.75))
    said = torch.randn(2, 6, 64)
    for part in said.chunk(3, dim=1):
        loss(list(part), list(part), 0.05)
        assert (loss.center == 0).all()
    loss.move_centre()
    torch.testing.assert_close(loss.center[0, 0], 0.25 * said.mean(dim=(0, 1)))
    loss(list(said), list(said), 0.05)
    loss.move_centre()
    torch.testing.assert_close(loss.center[0, 0], (0.25 + 0.75 * 0.25) * said.mean(dim=(0, 1)))


@pytest.mark.parametrize("parts", [2, 8])
def test_a_batch_in_parts_gives_the_loss_centre_and_weights_of_the_whole(parts: int) -> None:
    whole, parted = learner(tiny()), learner(tiny(run__accumulate=parts))
    for step in range(3):
        crops = some_crops(tiny(), seed=step)
        losses = [one.differentiate(crops, step, VALUES)[0].item() for one in (whole, parted)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)
        for (name, first), second in zip(whole.student.named_parameters(), parted.student.parameters(), strict=True):
            if first.grad is None or second.grad is None:
                assert first.grad is second.grad, name
            else:
                torch.testing.assert_close(second.grad, first.grad, rtol=1e-3, atol=1e-5)
        for one in (whole, parted):
            one.update(VALUES)
        torch.testing.assert_close(parted.loss.center, whole.loss.center, rtol=1e-4, atol=1e-5)


def test_the_student_sees_all_crops_and_the_teacher_the_global_ones() -> None:
    one = learner(tiny())
    seen: dict[str, list[torch.Size]] = {"student": [], "teacher": []}
    for name in seen:
        encoder = getattr(one, name).encoder
        encoder.register_forward_hook(lambda _m, given, _r, name=name: seen[name].append(given[0].shape))
    one.differentiate(some_crops(tiny()), 0, VALUES)
    assert seen["teacher"] == [(16, 3, 64, 64)]
    assert seen["student"] == [(16, 3, 64, 64), (16, 3, 32, 32)]


def test_the_teacher_begins_as_the_student_and_follows_it_by_its_momentum() -> None:
    one = learner(tiny())
    before = {name: weight.clone() for name, weight in one.student.state_dict().items()}
    assert all(torch.equal(weight, before[name]) for name, weight in one.teacher.state_dict().items())
    one.differentiate(some_crops(tiny()), 9, VALUES)
    one.update(VALUES)
    student, teacher = one.student.state_dict(), one.teacher.state_dict()
    assert not torch.equal(student["encoder.cls_token"], before["encoder.cls_token"])
    for name, weight in teacher.items():
        torch.testing.assert_close(weight, 0.75 * before[name] + 0.25 * student[name])
    assert not any(parameter.requires_grad for parameter in one.teacher.parameters())


def test_a_step_is_one_of_adamw_with_weight_decay_on_matrices() -> None:
    one = learner(tiny(optimizer__clip_gradient=None))
    start = {name: parameter.detach().clone() for name, parameter in one.student.named_parameters()}
    one.differentiate(some_crops(tiny()), 9, VALUES)
    gradients = {n: p.grad.clone() for n, p in one.student.named_parameters() if p.grad is not None}
    one.update(VALUES)
    now = dict(one.student.named_parameters())
    for name, decay in {
        "encoder.blocks.0.mlp.fc1.weight": 0.1,
        "encoder.cls_token": 0,
        "head.layers.0.bias": 0,
    }.items():
        step = gradients[name] / (gradients[name].abs() + 1e-8)  # of Adam's first step, bias corrected
        torch.testing.assert_close(
            now[name].detach(), start[name] * (1 - 0.01 * decay) - 0.01 * step, atol=1e-5, rtol=0
        )


def test_the_last_layer_is_frozen_at_first() -> None:
    one = learner(tiny(dino__freeze_last_layer_steps=2))
    moved = []
    for step in range(4):
        before = one.student.head.last_layer.weight_v.detach().clone()
        one.differentiate(some_crops(tiny()), step, VALUES)
        one.update(VALUES)
        moved.append(not torch.equal(before, one.student.head.last_layer.weight_v))
    assert moved == [False, False, True, True]


def test_drop_path_follows_from_seed_and_step() -> None:
    config = tiny(model__drop_path_rate=0.5)
    crops, one = some_crops(config), learner(config)
    losses = []
    for step in (5, 6, 5):
        losses.append(one.differentiate(crops, step, VALUES)[0].item())
        torch.rand(step)  # whatever else draws from PyTorch's generator
    assert losses[0] == losses[2] != losses[1]
    assert learner(config).differentiate(crops, 5, VALUES)[0].item() == losses[0]
    assert learner(tiny(model__drop_path_rate=0.5, run__seed=1)).differentiate(crops, 5, VALUES)[0] != losses[0]


def test_each_gradient_is_clipped_by_its_own_norm() -> None:
    large, small, none = (nn.Parameter(torch.zeros(3, 4)) for _ in range(3))
    large.grad, small.grad = torch.full((3, 4), 5.0), torch.full((3, 4), 0.01)
    norm = clip_each([large, small, none], 0.3)
    assert norm.item() == pytest.approx(math.sqrt(12 * (5**2 + 0.01**2)))
    torch.testing.assert_close(large.grad, torch.full((3, 4), 0.3 / math.sqrt(12)))
    assert (small.grad == 0.01).all()
    assert none.grad is None
    clip_each([large], None)
    torch.testing.assert_close(large.grad, torch.full((3, 4), 0.3 / math.sqrt(12)))


def test_mixed_precision_keeps_weights_and_loss_in_float32_and_the_loss_near() -> None:
    config = tiny()
    exact, mixed = learner(config), learner(config, "bf16-mixed")
    crops = some_crops(config)
    losses = [one.differentiate(crops, 0, values_at(config, 0))[0] for one in (exact, mixed)]
    assert losses[1].dtype == torch.float32
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.02)
    assert losses[1] != losses[0]
    mixed.update(VALUES)
    assert {weight.dtype for weight in mixed.student.state_dict().values()} == {torch.float32}
    assert mixed.loss.center.dtype == torch.float32
    features, said = mixed.teach(crops[0])
    assert (features.dtype, said.dtype) == (torch.float32, torch.float32)


def test_what_a_learner_keeps_is_enough_to_go_on_with_the_same_bits() -> None:
    config = tiny(model__drop_path_rate=0.2)
    first = learner(config)
    for step in range(2):
        first.differentiate(some_crops(config, seed=step), step, VALUES)
        first.update(VALUES)
    second = learner(tiny(model__drop_path_rate=0.2, run__seed=0))
    second.load({name: _copied(part) for name, part in first.state().items()})
    for one in (first, second):
        one.differentiate(some_crops(config, seed=2), 2, VALUES)
        one.update(VALUES)
    for name in ("student", "teacher", "loss"):
        for key, value in first.state()[name].items():
            assert torch.equal(value, second.state()[name][key]), key


def _copied(part: dict[str, object]) -> dict[str, object]:
    """As a file would keep it: later steps do not change it."""
    return {
        key: value.clone() if isinstance(value, Tensor) else _copied(value) if isinstance(value, dict) else value
        for key, value in part.items()
    }


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what PyTorch itself imports
def test_soak_a_compiled_encoder_learns_the_same() -> None:
    losses = []
    for compiled in (False, True):
        one = learner(tiny(run__compile=compiled))
        for step in range(3):
            loss, _ = one.differentiate(some_crops(tiny()), step, VALUES)
            one.update(VALUES)
        losses.append(loss.item())
        assert not [name for name in one.student.state_dict() if "_orig_mod" in name]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
