"""Sampling errors of chosen coefficients against the sandwich written out, and against fresh samples."""

import numpy as np
import pytest

from advisor.coefficients_evidence import Criterion, labelled, softmax
from advisor.coefficients_intervals import sampling_error
from advisor.coefficients_search import search_merges
from studies.coefficient_space import CoefficientSpace
from tests.advisor.logistic_merges import logistic_problem

NAMES = ("a", "b")


def tuned(seed=0, samples=200):
    problem = logistic_problem(NAMES, seed=seed, samples=samples)
    evidence = {name: labelled(split.labels.numpy(), 3) for name, split in problem.samples.items()}
    criterion = Criterion(evidence=evidence, goal=problem.goal)
    found = search_merges(
        lambda row: problem.logits(problem.merges.weights(row)),
        criterion,
        CoefficientSpace(names=NAMES),
        problem.merges.gram(),
        [np.zeros(2), *np.eye(2), np.full(2, 0.5), np.array([0.3, 0.6])],
        max_merges=40,
        tolerance=0.001,
    )
    return problem, criterion, found


def written_out(problem, row):
    """H and the tasks' slope covariances from the exact, constant derivatives of the logits."""
    zero = problem.logits(problem.merges.weights(np.zeros(2)))
    jacobian = np.stack([problem.logits(problem.merges.weights(e)) - zero for e in np.eye(2)], axis=1)
    at = problem.logits(problem.merges.weights(row))
    hessian, covariances, start = np.zeros((2, 2)), {}, 0
    for name, split in problem.samples.items():
        n = len(split)
        cells = slice(start, start + 3 * n)
        start += 3 * n
        J, p = jacobian[cells].reshape(n, 3, 2), softmax(at[cells].reshape(n, 3))
        for s in range(n):
            hessian += 0.5 / n * J[s].T @ (np.diag(p[s]) - np.outer(p[s], p[s])) @ J[s]
        slopes = np.einsum("sc,scd->sd", p - np.eye(3)[split.labels.numpy()], J)
        covariances[name] = np.cov(slopes.T) / n
    return hessian, covariances


@pytest.mark.parametrize("seed", [0, 1])
def test_errors_and_optimism_equal_the_formula_written_out(seed):
    problem, criterion, found = tuned(seed)
    row = found.merges.rows[found.merges.best]
    uncertain = sampling_error(found.surrogate, criterion, row, np.ones(2))
    hessian, covariances = written_out(problem, row)
    inverse = np.linalg.inv(hessian)
    total = sum(0.25 * cov for cov in covariances.values())
    np.testing.assert_allclose(uncertain.errors, np.sqrt(np.diag(inverse @ total @ inverse)), rtol=0.05)
    for name, cov in covariances.items():
        assert uncertain.optimism[name] == pytest.approx(0.5 * np.trace(inverse @ cov), rel=0.05)


def test_coefficients_spread_over_fresh_samples_as_the_errors_say():
    problem, criterion, found = tuned(0, samples=400)
    row = found.merges.rows[found.merges.best]
    errors = sampling_error(found.surrogate, criterion, row, np.ones(2)).errors
    rng = np.random.default_rng(0)
    hessian, _ = written_out(problem, row)
    zero = problem.logits(problem.merges.weights(np.zeros(2)))
    jacobian = np.stack([problem.logits(problem.merges.weights(e)) - zero for e in np.eye(2)], axis=1)
    at, ends = problem.logits(problem.merges.weights(row)), []
    for _ in range(300):  # one Newton step on samples drawn again
        slope, start = np.zeros(2), 0
        for split in problem.samples.values():
            n = len(split)
            cells = slice(start, start + 3 * n)
            start += 3 * n
            residual = softmax(at[cells].reshape(n, 3)) - np.eye(3)[split.labels.numpy()]
            each = np.einsum("sc,scd->sd", residual, jacobian[cells].reshape(n, 3, 2))
            slope += 0.5 * each[rng.integers(n, size=n)].mean(axis=0)
        ends.append(row - np.linalg.solve(hessian, slope))
    np.testing.assert_allclose(errors, np.std(ends, axis=0), rtol=0.2)


def test_coefficients_held_at_a_bound_bring_no_optimism():
    _, criterion, found = tuned(1)
    row = found.merges.rows[found.merges.best]
    both = sampling_error(found.surrogate, criterion, row, np.ones(2))
    one = sampling_error(found.surrogate, criterion, row, np.array([1.0, 0.0]))
    none = sampling_error(found.surrogate, criterion, row, np.zeros(2))
    for name in NAMES:
        assert none.optimism[name] == 0
        assert 0 < one.optimism[name] < both.optimism[name]


def test_intervals_hold_the_coefficients_and_stay_inside():
    _, criterion, found = tuned(0)
    row = found.merges.rows[found.merges.best]
    uncertain = sampling_error(found.surrogate, criterion, row, np.ones(2))
    low, high = uncertain.interval(row, 0.0, 2.0)
    assert ((low <= row) & (row <= high) & (low >= 0) & (high <= 2)).all()
    assert (high - low > 0).all()
