from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group

from studies.coefficient_space import CoefficientSpace
from studies.descent import descend
from studies.evaluation import Evaluations, Evaluator, make_evaluator
from studies.knobs import FloatArray
from studies.polish import better, candidates, hops, moved, polish
from tests.studies.plan_problems import diverging_risk, make_space, quadratic_risk


def cube(dimensions: int) -> CoefficientSpace:
    """The unit cube itself."""
    return CoefficientSpace(names=tuple(f"x{k:02d}" for k in range(dimensions)), low=0.0, high=1.0)


def evaluator_of(function: object) -> Evaluator:
    """An evaluator of a plain vectorised function, feasible everywhere."""

    def evaluate(units: FloatArray) -> Evaluations:
        goal = function(units)  # type: ignore[operator]
        zero = np.zeros(len(units))
        return Evaluations(units=units, columns={}, goal=goal, low=goal, high=goal, violation=zero - 1, cost=zero)

    return evaluate


@pytest.mark.parametrize("dimensions", [2, 8, 32])
def test_a_rotated_ill_conditioned_quadratic_is_solved(dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    turn = ortho_group.rvs(dimensions, random_state=rng)
    centre = rng.uniform(0.3, 0.7, dimensions)
    scales = np.geomspace(1, 100, dimensions)
    evaluate = evaluator_of(lambda u: (((u - centre) @ turn) ** 2 * scales).sum(axis=1))
    run = polish(cube(dimensions), evaluate, np.full((1, dimensions), 0.9), seed=0)
    assert run.best.goal[0] < 1e-6
    np.testing.assert_allclose(run.best.units[0], centre, atol=2e-3)
    assert run.evaluated >= len(run.path)


@pytest.mark.parametrize("start", [0.1, 0.5, 0.9])
def test_whole_numbers_and_grids_are_solved_by_the_pattern_search(start: float) -> None:
    space = make_space()
    run = polish(space, make_evaluator(space, quadratic_risk), np.full((1, space.dimensions), start), seed=0)
    assert run.best.columns["steps"].tolist() == [150]
    assert run.best.goal[0] == pytest.approx(0.3, abs=1e-7)


@pytest.mark.parametrize("smooth", [True, False])
def test_the_polished_plan_is_never_worse_than_the_start_and_stays_feasible(smooth: bool) -> None:
    space = make_space()
    evaluate = make_evaluator(space, diverging_risk)
    for unit in np.random.default_rng(0).random((5, space.dimensions)):
        run = polish(space, evaluate, unit[None, :], seed=0, rounds=1, smooth=smooth)
        assert not better(evaluate(unit[None, :]), run.best)
        assert run.best.feasible[0]


def test_a_start_beyond_the_edge_walks_back_inside() -> None:
    space = make_space()
    evaluate = make_evaluator(space, diverging_risk)
    unit = np.array([0.95, 0.5, 0.5, 0.5])
    assert not evaluate(unit[None, :]).feasible[0]
    assert polish(space, evaluate, unit[None, :], seed=0).best.feasible[0]


def test_a_descent_leaves_what_is_not_continuous_alone() -> None:
    space = make_space()
    evaluate = make_evaluator(space, quadratic_risk)
    start = evaluate(np.full((1, space.dimensions), 0.3))
    end, count = descend(space, evaluate, start)
    assert end.columns["steps"].tolist() == start.columns["steps"].tolist()
    assert end.goal[0] < start.goal[0]
    assert count > 0


def test_moves_include_pairs_and_all_tasks_together() -> None:
    space = make_space(per_task_recipes=True, batch_size=(8, 8))
    unit = np.full(space.dimensions, 0.5)
    points = candidates(space, unit, 0.1, np.random.default_rng(0))
    changed = [frozenset(np.flatnonzero(point != unit).tolist()) for point in points]
    names = [knob.name for knob in space.knobs]
    together = frozenset({names.index("steps_a"), names.index("steps_b")})
    with_rates = together | {names.index("learning_rate_a"), names.index("learning_rate_b")}
    assert together in changed
    assert with_rates in changed
    assert points.min() >= 0
    assert points.max() <= 1


def test_hops_change_one_field_for_all_tasks() -> None:
    space = make_space(per_task_recipes=True, schedules=("constant", "cosine"))
    unit = np.full(space.dimensions, 0.4)
    fields = [
        {space.knobs[k].field for k in np.flatnonzero(point != unit)}
        for point in hops(space, unit)
        if (point != unit).any()
    ]
    assert all(len(changed) == 1 for changed in fields)
    assert {"batch_size", "steps", "schedule"} == set().union(*fields)


def test_moves_are_cut_at_the_edge() -> None:
    assert moved(np.array([0.0, 1.0]), 0.25).tolist() == [[0.25, 1.0], [0.0, 0.75]]
