"""Recipes in the units of tasks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from advisor.exposure import CURVATURE_UNIT, Exposure, TaskScales
from advisor.plan import Plan, PlanTable
from estimators.constants import Constants, Estimate
from estimators.recipe import Recipe
from tests.advisor.quadratic_merges import QuadraticWorld

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def constants() -> Constants:
    return QuadraticWorld.drawn().constants()


def exposure(constants: Constants, recipe: Recipe, names: tuple[str, ...] = NAMES) -> Exposure:
    table = PlanTable.from_plans([Plan.uniform(names, recipe, 0.5)], constants.num_samples)
    return Exposure.of(table, TaskScales.from_constants(constants))


def test_sgd_is_its_own_unit(constants: Constants) -> None:
    e = exposure(constants, Recipe(learning_rate=0.02, batch_size=4, steps=30))
    np.testing.assert_allclose(e.rate[0], 0.02)
    np.testing.assert_allclose(e.time[0], 0.6)
    variance = TaskScales.from_constants(constants).gradient_variance
    np.testing.assert_allclose(e.walk[0], 0.02**2 * 30 * variance / 4)
    np.testing.assert_allclose(e.temperature[0], 0.02 * variance / 4)


def test_long_heavy_ball_equals_sgd_at_its_effective_rate(constants: Constants) -> None:
    ball = exposure(constants, Recipe(learning_rate=0.001, batch_size=4, steps=100_000, optimizer="momentum"))
    plain = exposure(constants, Recipe(learning_rate=0.01, batch_size=4, steps=100_000))
    for field in ("rate", "time", "walk", "temperature"):
        np.testing.assert_allclose(getattr(ball, field), getattr(plain, field), rtol=1e-3)


def test_the_first_heavy_ball_step_is_a_plain_one(constants: Constants) -> None:
    ball = exposure(constants, Recipe(learning_rate=0.001, batch_size=4, steps=1, optimizer="momentum"))
    plain = exposure(constants, Recipe(learning_rate=0.001, batch_size=4, steps=1))
    np.testing.assert_allclose(ball.walk, plain.walk)
    np.testing.assert_allclose(ball.time, plain.time)


def test_warm_up_and_cosine_halves_the_time(constants: Constants) -> None:
    """The sum of s of a cosine from 1 to 0 is about half the steps, that of s^2 three eighths of them."""
    e = exposure(constants, Recipe(learning_rate=0.01, batch_size=4, steps=2000, schedule="warmup_cosine"))
    np.testing.assert_allclose(e.time[0], 0.01 * 1000, rtol=0.01)
    flat = exposure(constants, Recipe(learning_rate=0.01, batch_size=4, steps=2000))
    np.testing.assert_allclose(e.walk[0] / flat.walk[0], 0.375, rtol=0.02)  # warm-up takes the rest
    assert e.falls.all()
    assert not flat.falls.any()


def test_tasks_that_a_plan_does_not_name_have_coefficient_zero(constants: Constants) -> None:
    e = exposure(constants, Recipe(learning_rate=0.02, batch_size=4, steps=30), ("c", "a"))
    assert e.coefficients[0].tolist() == [0.5, 0.0, 0.5]


def test_a_task_without_constants_is_refused(constants: Constants) -> None:
    table = PlanTable.from_plans(
        [Plan.uniform(("a", "z"), Recipe(learning_rate=0.02, batch_size=4, steps=30), 0.5)], {"a": 5, "z": 5}
    )
    with pytest.raises(ValueError, match=r"plans name tasks \['z'\] without constants"):
        Exposure.of(table, TaskScales.from_constants(constants))


@pytest.mark.parametrize("field", ["gradient_variance", "initial_gradient_norm"])
def test_a_missing_constant_is_named(constants: Constants, field: str) -> None:
    tasks = constants.tasks | {"b": dataclasses.replace(constants.tasks["b"], **{field: None})}
    with pytest.raises(ValueError, match=f"{field} of task 'b' was not measured"):
        TaskScales.from_constants(dataclasses.replace(constants, tasks=tasks))


def test_any_measured_curvature_serves_and_none_is_refused(constants: Constants) -> None:
    ten = Estimate(value=10.0, low=9.0, high=11.0)
    other = dataclasses.replace(constants.tasks["b"], top_curvature=None, critical_sharpness=ten)
    scales = TaskScales.from_constants(dataclasses.replace(constants, tasks=constants.tasks | {"b": other}))
    assert scales.curvature[1] == pytest.approx(10.0 * CURVATURE_UNIT)
    none = dataclasses.replace(constants.tasks["b"], top_curvature=None)
    with pytest.raises(ValueError, match="no curvature of task 'b' was measured; measure top_curvature"):
        TaskScales.from_constants(dataclasses.replace(constants, tasks=constants.tasks | {"b": none}))


def test_cosines_are_those_of_the_gradients(constants: Constants) -> None:
    world = QuadraticWorld.drawn()
    gradients = -world.curvature * world.minima
    unit = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    np.testing.assert_allclose(TaskScales.from_constants(constants).gradient_cosine, unit @ unit.T, atol=1e-6)


def test_a_gradient_norm_that_noise_hides_is_the_usual_share_of_the_noise(constants: Constants) -> None:
    blind = dataclasses.replace(
        constants.tasks["b"],
        initial_gradient_norm=Estimate(value=0.0, low=0.0, high=1e3, identifiable=False),
        gradient_variance=Estimate(value=1250.0, low=1100.0, high=1400.0),
    )
    scales = TaskScales.from_constants(dataclasses.replace(constants, tasks=constants.tasks | {"b": blind}))
    assert scales.gradient_norm[1] == pytest.approx(1.0, rel=0.01)


def test_a_cosine_that_noise_hides_is_shrunk_to_nothing(constants: Constants) -> None:
    gram = constants.gradient_gram
    assert gram is not None
    hidden = Estimate(value=5.0, low=-500.0, high=500.0)
    noisy = ((gram[0][0], hidden, hidden), (hidden, gram[1][1], hidden), (hidden, hidden, gram[2][2]))
    cosines = TaskScales.from_constants(dataclasses.replace(constants, gradient_gram=noisy)).gradient_cosine
    np.testing.assert_allclose(cosines, np.eye(3), atol=0.01)


def test_cosines_stay_possible_when_noise_makes_the_gram_matrix_impossible(constants: Constants) -> None:
    huge = Estimate(value=1e3, low=-1e3, high=1e3)
    gram = constants.gradient_gram
    assert gram is not None
    broken = ((gram[0][0], huge, gram[0][2]), (huge, *gram[1][1:]), gram[2])
    cosines = TaskScales.from_constants(dataclasses.replace(constants, gradient_gram=broken)).gradient_cosine
    assert np.linalg.eigvalsh(cosines).min() > -1e-9
    np.testing.assert_allclose(np.diag(cosines), 1.0)
    assert np.all(np.abs(cosines) <= 1 + 1e-9)
