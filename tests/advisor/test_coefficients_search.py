"""The search against minimisers that see the true function, and against grids."""

import numpy as np
import pytest
from scipy.optimize import minimize

from advisor.coefficients_evidence import Criterion, labelled
from advisor.coefficients_search import MeasuredMerges, is_allowed, propose, search_merges
from advisor.coefficients_surrogate import fit_surrogate
from advisor.goal import Goal
from studies.coefficient_space import CoefficientSpace
from tests.advisor.logistic_merges import logistic_problem, true_risks

NAMES = ("a", "b", "c")


def setting(seed=0, total=None, goal=None):
    problem = logistic_problem(NAMES, seed=seed, goal=goal)
    evidence = {name: labelled(split.labels.numpy(), 3) for name, split in problem.samples.items()}
    criterion = Criterion(evidence=evidence, goal=problem.goal)
    space = CoefficientSpace(names=NAMES, total=total)
    return problem, criterion, space


def search(problem, criterion, space, measure=None, **changes):
    design = [np.zeros(3), *np.eye(3), np.full(3, 1 / 3)]
    given = {"max_merges": 40, "tolerance": 0.02} | changes
    return search_merges(
        measure or (lambda row: problem.logits(problem.merges.weights(row))),
        criterion,
        space,
        problem.merges.gram(),
        design,
        **given,
    )


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_few_merges_find_what_a_minimiser_of_the_true_risk_finds(seed):
    problem, criterion, space = setting(seed)
    found = search(problem, criterion, space)
    truth = minimize(lambda row: true_risks(problem, row).mean(), np.full(3, 0.3), bounds=[(0, 2)] * 3)
    best = found.merges.rows[found.merges.best]
    assert found.converged
    assert len(found.merges.rows) < 25
    assert true_risks(problem, best).mean() <= truth.fun + 1e-3
    assert found.merges.goals[found.merges.best] == pytest.approx(true_risks(problem, best).mean(), abs=1e-5)


def test_on_the_simplex_the_best_lies_on_it_and_equals_a_grids():
    problem, criterion, space = setting(1, total=1.0)
    found = search(problem, criterion, space)
    best = found.merges.rows[found.merges.best]
    assert best.sum() == pytest.approx(1, abs=1e-6)
    axis = np.linspace(0, 1, 21)
    grid = [np.array([x, y, 1 - x - y]) for x in axis for y in axis if x + y <= 1]
    lowest = min(true_risks(problem, np.maximum(row, 0)).mean() for row in grid)
    assert true_risks(problem, best).mean() <= lowest + 2e-3


def test_the_worst_task_is_what_a_worst_goal_lowers():
    goal = Goal(weights=dict.fromkeys(NAMES, 1.0), kind="worst")
    problem, criterion, space = setting(2, goal=goal)
    found = search(problem, criterion, space)
    truth = minimize(
        lambda row: true_risks(problem, row).max(), np.full(3, 0.3), bounds=[(0, 2)] * 3, method="Nelder-Mead"
    )
    best = found.merges.rows[found.merges.best]
    assert true_risks(problem, best).max() <= truth.fun + 0.02


def test_merges_that_break_are_kept_apart_and_the_search_goes_on():
    problem, criterion, space = setting(0)
    broken = []

    def measure(row):
        values = problem.logits(problem.merges.weights(row))
        if row[0] > 0.9:
            broken.append(row)
            return np.full_like(values, np.nan)
        return values

    found = search(problem, criterion, space, measure)
    assert broken
    assert np.isfinite(found.merges.goals[found.merges.best])
    assert sum(np.isinf(found.merges.goals)) == len(broken)


def test_what_is_measured_is_told_with_what_was_predicted():
    problem, criterion, space = setting(0)
    told = []
    found = search(problem, criterion, space, found=lambda *cell: told.append(cell))
    assert len(told) == len(found.merges.rows)
    assert [np.isnan(cell[2]) for cell in told[:5]] == [True] * 5
    foretold = np.array([cell[2] for cell in told[5:]])
    measured = np.array([cell[1] for cell in told[5:]])
    assert np.isfinite(foretold).all()
    assert np.abs(foretold - measured)[-2:].max() < 0.01


def test_the_search_stops_at_its_limit_and_says_so():
    problem, criterion, space = setting(0)
    found = search(problem, criterion, space, max_merges=6)
    assert len(found.merges.rows) == 6
    assert not found.converged


def test_proposals_stay_within_their_radius():
    problem, criterion, space = setting(0)
    rows = np.vstack([np.zeros(3), np.eye(3)])
    values = np.stack([problem.logits(problem.merges.weights(row)) for row in rows])
    surrogate = fit_surrogate(rows, values, values[0], problem.merges.gram())
    row, _ = propose(surrogate, criterion, space, [rows[0]], 0.1)
    assert (row >= 0).all()
    assert (row <= 0.1 + 1e-9).all()


def test_too_few_merges_and_a_design_without_the_start_are_refused():
    problem, criterion, space = setting(0)
    with pytest.raises(ValueError, match="the merges of the design"):
        search(problem, criterion, space, max_merges=3)
    with pytest.raises(ValueError, match="whose first is x_0"):
        search_merges(lambda row: row, criterion, space, np.eye(3), [np.ones(3)], max_merges=5, tolerance=0.1)
    broken = MeasuredMerges(criterion=criterion, space=space)
    broken.add(np.zeros(3), np.full(criterion.size, np.nan))
    with pytest.raises(ValueError, match="no measured merge has a finite risk"):
        _ = broken.best


def test_what_a_space_allows():
    box, simplex = CoefficientSpace(names=NAMES), CoefficientSpace(names=NAMES, total=1.0)
    assert is_allowed(box, np.zeros(3))
    assert not is_allowed(box, np.array([0, 0, 2.1]))
    assert is_allowed(simplex, np.array([0.5, 0.5, 0]))
    assert not is_allowed(simplex, np.zeros(3))
