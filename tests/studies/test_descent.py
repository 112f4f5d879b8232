from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from studies.coefficient_space import CoefficientSpace
from studies.descent import descend, quasi_newton
from studies.evaluation import Evaluations, Evaluator
from studies.knobs import FloatArray


def rosenbrock(points: FloatArray) -> FloatArray:
    """Minimum 0 at (0.6, 0.36) inside the unit cube, in a curved valley."""
    x, y = points[..., 0], points[..., 1]
    return np.asarray((0.6 - x) ** 2 + 30 * (y - x**2) ** 2)


def evaluator(goal: FloatArray, violation: FloatArray, units: FloatArray) -> Evaluations:
    return Evaluations(
        units=units, columns={}, goal=goal, low=goal, high=goal, violation=violation, cost=np.zeros(len(goal))
    )


def test_a_curved_valley_is_followed_from_many_starts_at_once() -> None:
    starts = np.random.default_rng(0).random((20, 2))
    found = quasi_newton(lambda points, rows: rosenbrock(points), starts, 100)
    np.testing.assert_allclose(found, np.tile([0.6, 0.36], (20, 1)), atol=1e-4)


def test_a_minimum_outside_the_cube_is_found_on_its_face() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        root, centre = rng.standard_normal((4, 4)), rng.uniform(-0.5, 1.5, 4)
        matrix = root @ root.T + 0.1 * np.eye(4)

        def value(x: FloatArray, matrix: FloatArray = matrix, centre: FloatArray = centre) -> FloatArray:
            return np.asarray(np.einsum("...i,ij,...j->...", x - centre, matrix, x - centre))

        found = quasi_newton(lambda points, rows, value=value: value(points), rng.random((1, 4)), 200)[0]
        other = minimize(value, np.full(4, 0.5), bounds=[(0, 1)] * 4, method="L-BFGS-B", options={"ftol": 1e-14})
        assert value(found) == pytest.approx(other.fun, rel=1e-4, abs=1e-8)


def test_each_plan_follows_its_own_function() -> None:
    centres = np.array([[0.2, 0.8], [0.7, 0.1], [0.5, 0.5]])

    def value(points: FloatArray, rows: FloatArray) -> FloatArray:
        return np.asarray(((points - centres[rows][:, None, :]) ** 2).sum(axis=2))

    np.testing.assert_allclose(quasi_newton(value, np.full((3, 2), 0.4), 50), centres, atol=1e-6)


@pytest.mark.parametrize("cliff", [False, True])
def test_a_constraint_is_met_exactly_and_touched(cliff: bool) -> None:
    """Nearest point to (0.9, 0.7) with x + y <= 1: (0.6, 0.4), whether or not the goal is infinite beyond."""

    def evaluate(units: FloatArray) -> Evaluations:
        goal = ((units - np.array([0.9, 0.7])) ** 2).sum(axis=1)
        violation = units.sum(axis=1) - 1
        return evaluator(np.where(cliff & (violation > 0), np.inf, goal), violation, units)

    space = CoefficientSpace(names=("a", "b"), low=0.0, high=1.0)
    found, count = descend(space, evaluate, evaluate(np.array([[0.1, 0.1], [0.05, 0.9]])))
    assert found.feasible.all()
    np.testing.assert_allclose(found.units, [[0.6, 0.4]] * 2, atol=5e-3)
    assert count > 0


def test_no_plan_ends_worse_than_it_began() -> None:
    rng = np.random.default_rng(2)
    slopes = rng.standard_normal((6, 3)) * 9

    def evaluate(units: FloatArray) -> Evaluations:
        goal = np.sin(units @ slopes.T).sum(axis=1)
        return evaluator(goal, np.full(len(units), -1.0), units)

    starts = evaluate(rng.random((30, 3)))
    space = CoefficientSpace(names=("a", "b", "c"), low=0.0, high=1.0)
    ends, _ = descend(space, evaluate, starts, iterations=10)
    assert (ends.goal <= starts.goal).all()
    assert (ends.goal < starts.goal - 1e-3).mean() > 0.9


def test_nothing_to_move_or_nobody_to_move_costs_nothing() -> None:
    def refuse(units: FloatArray) -> Evaluations:
        raise AssertionError("nothing should be evaluated")

    space = CoefficientSpace(names=("a", "b"), low=0.0, high=1.0)
    nobody = evaluator(np.empty(0), np.empty(0), np.empty((0, 2)))
    calls: Evaluator = refuse
    assert descend(space, calls, nobody)[1] == 0
