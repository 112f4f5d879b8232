"""Local exponents of risks that are exact power laws."""

from __future__ import annotations

import numpy as np
import pytest

from advisor.elasticities import KNOBS, local_exponents, neighbours
from advisor.plan import Plan, PlanTable
from estimators.recipe import Recipe

TABLE = PlanTable.from_plans(
    [Plan.uniform(("a", "b", "c"), Recipe(learning_rate=0.01, batch_size=16, steps=40), 0.5)],
    dict.fromkeys("abc", 100),
)
EXPONENTS = {"learning_rate": -0.3, "batch_size": 0.1, "steps": -0.3, "num_samples": -0.2, "coefficients": 0.7}


def power_law(table: PlanTable, scale: float = 1.0) -> np.ndarray:
    """Every task's risk is a product of powers of the knobs of all tasks, times N_merged^0.25."""
    risk = np.ones(table.coefficients.shape)
    for knob, exponent in EXPONENTS.items():
        values = getattr(table, knob)
        risk = risk * values.max(axis=1, keepdims=True) ** (exponent * scale)
    return risk * (table.coefficients > 0).sum(axis=1, keepdims=True) ** (0.25 * scale)


def test_exponents_of_power_laws_are_exact() -> None:
    table = neighbours(TABLE, 0.05)
    risk = power_law(table)
    out = local_exponents(risk, risk[None], np.full(3, 1 / 3), np.arange(3), 0.05, 0.9)
    for knob, exponent in EXPONENTS.items():
        assert out[knob] == pytest.approx((exponent, exponent, exponent))
    assert out["num_tasks"][0] == pytest.approx(0.25)


def test_the_interval_is_that_of_the_draws() -> None:
    table = neighbours(TABLE, 0.05)
    samples = np.stack([power_law(table, scale) for scale in np.linspace(0.5, 1.5, 101)])
    out = local_exponents(power_law(table), samples, np.full(3, 1 / 3), np.arange(3), 0.05, 0.9)
    assert out["steps"] == pytest.approx((-0.3, -0.3 * 1.45, -0.3 * 0.55), rel=1e-6)


def test_neighbours_change_one_knob_at_a_time_and_leave_each_task_out_once() -> None:
    table = neighbours(TABLE, 0.1)
    assert len(table) == 1 + 2 * len(KNOBS) + 3
    steps_row = 1 + 2 * KNOBS.index("steps")
    np.testing.assert_allclose(table.steps[steps_row], 40 * np.exp(0.1))
    np.testing.assert_allclose(table.learning_rate[steps_row], 0.01)
    assert (table.coefficients[-3:] == 0).sum() == 3
    assert table.coefficients[-2].tolist() == [0.5, 0.0, 0.5]
