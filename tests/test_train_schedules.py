"""Schedules are functions of the step alone, equal to the formulas of the paper's code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exaone_train.config import Config
from exaone_train.schedules import cosine, line, values_at
from tests.trainruns import tiny


def test_the_learning_rate_rises_by_a_line_to_its_peak_and_falls_by_a_cosine() -> None:
    config = Config()
    peak, end = 0.00075 * 1024 / 256, 2e-6
    assert values_at(config, 0).learning_rate == 0
    assert values_at(config, 6_250).learning_rate == pytest.approx(peak / 2)
    assert values_at(config, 12_500).learning_rate == pytest.approx(peak)
    assert values_at(config, 12_500 + 487_500 // 2).learning_rate == pytest.approx((peak + end) / 2)
    assert values_at(config, 499_999).learning_rate == pytest.approx(end, rel=1e-4)


def test_all_schedules_are_those_of_dinos_code_on_its_grid_of_steps() -> None:
    config = tiny(run__max_steps=50, optimizer__warmup_steps=10, dino__teacher_temperature_warmup_steps=20)
    peak = config.optimizer.learning_rate * 8 / 256
    # `cosine_scheduler` and `DINOLoss` of the paper's code; only its warm-up reaches the peak one step earlier.
    steps = np.arange(40)
    falling = 2e-6 + 0.5 * (peak - 2e-6) * (1 + np.cos(np.pi * steps / 40))
    whole = 0.5 * (1 + np.cos(np.pi * np.arange(50) / 50))
    heating = np.concatenate([np.linspace(0.04, 0.07, 21)[:20], np.full(30, 0.07)])
    found = [values_at(config, step) for step in range(50)]
    np.testing.assert_allclose([one.learning_rate for one in found[10:]], falling)
    np.testing.assert_allclose([one.learning_rate for one in found[:10]], np.linspace(0, peak, 11)[:10])
    np.testing.assert_allclose([one.weight_decay for one in found], 0.4 + (0.04 - 0.4) * whole)
    np.testing.assert_allclose([one.teacher_momentum for one in found], 1 + (0.98 - 1) * whole)
    np.testing.assert_allclose([one.teacher_temperature for one in found], heating)


def test_a_warm_up_longer_than_the_run_is_cut_off_by_its_end() -> None:
    config = Config.model_validate({"run": {"max_steps": 20}})
    assert values_at(config, 19).learning_rate == pytest.approx(0.003 * 19 / 12_500)


def test_without_a_warm_up_the_first_step_has_the_peak() -> None:
    config = tiny(optimizer__warmup_steps=0, dino__teacher_temperature_warmup_steps=0)
    assert values_at(config, 0).learning_rate == pytest.approx(0.01 * 8 / 256)
    assert values_at(config, 0).teacher_temperature == 0.07


@given(st.floats(0, 10), st.floats(0, 10), st.floats(0, 1), st.floats(0, 1))
def test_a_cosine_goes_from_start_to_end_and_never_back(start: float, end: float, one: float, other: float) -> None:
    earlier, later = sorted((one, other))
    direction = math.copysign(1, end - start)
    assert cosine(start, end, 0) == pytest.approx(start)
    assert cosine(start, end, 1) == pytest.approx(end)
    assert direction * cosine(start, end, earlier) <= direction * cosine(start, end, later) + 1e-9


@given(st.integers(0, 100), st.integers(0, 100))
def test_a_line_stays_at_its_end(step: int, steps: int) -> None:
    assert line(1, 3, step, steps) == (3 if step >= steps else pytest.approx(1 + 2 * step / steps))
