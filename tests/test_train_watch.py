"""Looking for collapse: what the measures say of teachers that are as they should be, and of collapsed ones."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from exaone_train.watch import Watch, same_slide_share

OUTPUTS = 32


class Teacher:
    """Says what it is told to, whatever the images."""

    def __init__(self, features: Tensor, outputs: Tensor, centre: Tensor | None = None) -> None:
        self.loss = SimpleNamespace(center=torch.zeros(1, 1, OUTPUTS) if centre is None else centre.view(1, 1, -1))
        self._said = (features, outputs)
        self._place = 0

    def teach(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What it was told to say of the next images."""
        start, self._place = self._place, self._place + len(images)
        features, outputs = self._said
        return features[start : self._place], outputs[start : self._place]


def measured(features: Tensor, outputs: Tensor, centre: Tensor | None = None) -> dict[str, float]:
    slides = [f"slide-{number % 4}" for number in range(len(features))]
    teacher: Any = Teacher(features, outputs, centre)
    return Watch(torch.zeros(len(features), 16, 16, 3, dtype=torch.uint8), slides, 16).look(teacher, 0.05)


def random_features(images: int = 320) -> Tensor:
    return torch.randn(images, 24, generator=torch.Generator().manual_seed(0))


def test_a_teacher_that_tells_images_apart_is_fine(caplog: pytest.LogCaptureFixture) -> None:
    found = measured(random_features(), torch.eye(OUTPUTS).repeat(10, 1))  # each image one prototype, all used alike
    assert found["teacher_entropy"] == pytest.approx(0, abs=1e-5)
    assert found["prototype_entropy"] == pytest.approx(math.log(OUTPUTS), rel=1e-4)
    assert found["information"] == pytest.approx(1, rel=1e-4)
    assert found["feature_std"] == pytest.approx(1, abs=0.05)
    assert caplog.records == []


def test_one_prototype_for_all_images_is_a_collapse(caplog: pytest.LogCaptureFixture) -> None:
    found = measured(random_features(), torch.eye(OUTPUTS)[:1].expand(320, -1))
    assert found["teacher_entropy"] == pytest.approx(0, abs=1e-5)
    assert found["information"] == pytest.approx(0, abs=1e-5)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_all_prototypes_alike_is_a_collapse(caplog: pytest.LogCaptureFixture) -> None:
    found = measured(random_features(), torch.full((320, OUTPUTS), 0.3))
    assert found["teacher_entropy"] == pytest.approx(math.log(OUTPUTS), rel=1e-5)
    assert found["information"] == pytest.approx(0, abs=1e-5)
    assert len(caplog.records) == 1


def test_features_that_are_all_alike_are_a_collapse(caplog: pytest.LogCaptureFixture) -> None:
    found = measured(random_features() * 1e-3 + 1, torch.eye(OUTPUTS).repeat(10, 1))
    assert found["feature_std"] < 0.01
    assert "nearly the same of every held-out patch" in caplog.text


def test_entropy_is_that_of_the_centred_softmax_at_the_temperature() -> None:
    outputs = torch.randn(70, OUTPUTS, generator=torch.Generator().manual_seed(1)) / 10
    centre = torch.linspace(-0.1, 0.1, OUTPUTS)
    found = measured(random_features(70), outputs, centre)
    logits = (outputs - centre).double().numpy() / 0.05
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found["teacher_entropy"] == pytest.approx(-(softmax * np.log(softmax)).sum(axis=1).mean(), rel=1e-5)
    mean = softmax.mean(axis=0)
    assert found["prototype_entropy"] == pytest.approx(-(mean * np.log(mean)).sum(), rel=1e-5)
    assert found["centre_norm"] == pytest.approx(float(centre.norm()))


def test_neighbours_of_features_by_chance_are_of_the_same_slide_by_chance() -> None:
    found = measured(random_features(), torch.eye(OUTPUTS).repeat(10, 1))
    assert found["same_slide_chance"] == pytest.approx(79 / 319)
    assert found["same_slide"] == pytest.approx(79 / 319, abs=0.03)


def test_features_that_tell_the_slide_have_neighbours_from_it() -> None:
    slides = torch.arange(40) % 4
    unit = torch.nn.functional.one_hot(slides, 8).float()
    same, chance = same_slide_share(unit, slides)
    assert same == pytest.approx(0.9)  # 9 others of the slide, and 10 neighbours
    assert chance == pytest.approx(9 / 39)


def test_fewer_images_than_neighbours_are_looked_at_all_the_same() -> None:
    same, chance = same_slide_share(torch.eye(3), torch.tensor([0, 0, 1]))
    assert same == pytest.approx(1 / 3)
    assert chance == pytest.approx(1 / 3)
