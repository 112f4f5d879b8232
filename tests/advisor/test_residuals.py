"""The leftover process: exact where it was measured, nothing far away, nothing at coefficient 0."""

from __future__ import annotations

import numpy as np
import pytest

from advisor.exposure import Exposure, TaskScales
from advisor.plan import Plan, PlanTable
from advisor.residuals import NOISE, WIDTH, Residuals
from estimators.recipe import Recipe
from tests.advisor.quadratic_merges import QuadraticWorld

WORLD = QuadraticWorld.drawn()
SCALES = TaskScales.from_constants(WORLD.constants())


def exposure(coefficient: float = 1.0, **changes: object) -> Exposure:
    recipe = Recipe(learning_rate=0.01, batch_size=16, steps=640).replace(**changes)
    table = PlanTable.from_plans([Plan.uniform(WORLD.names, recipe, coefficient)], WORLD.constants().num_samples)
    return Exposure.of(table, SCALES)


LEFT = np.array([[0.05, -0.03, np.nan]])
FIELD = Residuals.fit(exposure(), LEFT, np.zeros((1, 3)), np.zeros((1, 3)))


def test_one_measured_merge_is_met_up_to_its_noise() -> None:
    """The posterior mean of one observation: s^2/(s^2 + noise^2) of it, s = WIDTH a."""
    signal = (WIDTH / 1.2) ** 2
    expected = LEFT[0, :2] * signal / (signal + NOISE**2)
    np.testing.assert_allclose(FIELD.at(exposure())[0, :2], expected)
    assert FIELD.at(exposure())[0, 2] == 0


def test_it_fades_with_distance_and_with_the_coefficient() -> None:
    here = FIELD.at(exposure())[0, 0]
    near = FIELD.at(exposure(steps=400))[0, 0]
    assert 0 < near < here
    assert abs(FIELD.at(exposure(steps=10))[0, 0]) < 1e-3 * here
    assert abs(FIELD.at(exposure(1e-6))[0, 0]) < 1e-6 * here


def test_merges_far_above_the_start_carry_little() -> None:
    thrown = Residuals.fit(exposure(), LEFT, np.full((1, 3), 2.0), np.zeros((1, 3)))
    assert abs(thrown.at(exposure())[0, 0]) < 0.1 * abs(FIELD.at(exposure())[0, 0])


def test_a_correction_never_crosses_the_floor_and_is_the_factor_to_first_order() -> None:
    floor = np.array([0.1, 0.1, 0.1])
    risk = np.array([[0.5, 0.100001, 0.5]])
    corrected = FIELD.correct(risk, floor, exposure())
    assert np.all(corrected > floor)
    assert corrected[0, 0] == pytest.approx(0.5 * np.exp(FIELD.at(exposure())[0, 0]), rel=1e-3)
    assert corrected[0, 2] == 0.5


def test_json_round_trip() -> None:
    copy = Residuals.from_json(FIELD.to_json())
    np.testing.assert_array_equal(copy.at(exposure(steps=500)), FIELD.at(exposure(steps=500)))
