"""The fit: its Jacobian against finite differences, its weights, and recovery of a known truth."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest

from advisor.risk_fit import Fit, _Problem, _runs, moves_of_all, targets
from advisor.risk_form import KINDS
from advisor.risk_model import RiskModel
from tests.advisor.quadratic_merges import QuadraticWorld


@pytest.fixture(scope="module")
def model() -> RiskModel:
    return RiskModel().fit(QuadraticWorld.drawn().probes())


def without_luck(model: RiskModel) -> RiskModel:
    bare = copy.copy(model)
    bare.fits_ = {}
    return bare


@pytest.fixture(scope="module")
def problem(model: RiskModel) -> _Problem:
    merges = QuadraticWorld.drawn().probes().merges
    return _Problem(
        family=0,
        moves=moves_of_all(merges, model.scales_.names, without_luck(model)._moves_of, None),
        target=targets(merges, model.scales_.names),
        scales=model.scales_,
        cosines=model.cosines_,
        run=_runs(merges),
    )


def test_the_jacobian_is_that_of_finite_differences(problem: _Problem) -> None:
    at = 0.3 * np.random.default_rng(0).standard_normal(problem.size)
    exact = problem.jacobian(at)
    for column in range(0, problem.size, 7):
        bump = np.zeros(problem.size)
        bump[column] = 1e-5
        slope = (problem.residuals(at + bump) - problem.residuals(at - bump)) / 2e-5
        np.testing.assert_allclose(exact[:, column], slope, rtol=5e-3, atol=5e-3)


def test_merges_of_one_run_share_a_number_whatever_the_checkpoint() -> None:
    run = _runs(QuadraticWorld.drawn().probes().merges)
    assert run.max() == 5  # three rates at two batch sizes
    assert np.bincount(run).tolist() == [10] * 6


def test_draws_have_the_posterior_covariance(model: RiskModel) -> None:
    fit = model.fits_[0]
    draws = fit.draws(20_000, np.random.default_rng(0)).reshape(20_000, -1) - fit.theta.ravel()
    assert np.linalg.norm(np.cov(draws.T) - fit.covariance) < 0.1 * np.linalg.norm(fit.covariance)


def test_probes_narrow_the_prior(model: RiskModel) -> None:
    deviation = np.sqrt(np.diag(model.fits_[0].covariance)).reshape(len(KINDS), -1)[:, 0]
    assert np.all(deviation <= 1.0 + 1e-9)
    information = -0.5 * np.linalg.slogdet(model.fits_[0].covariance)[1]
    assert information > 3.0  # nats learned about the parameters


def test_json_round_trip(model: RiskModel) -> None:
    fit = model.fits_[0]
    twin = Fit.from_json(fit.to_json())
    np.testing.assert_array_equal(twin.covariance, fit.covariance)
    assert twin.num_values == fit.num_values == 60 * 3


def test_thrown_and_early_merges_weigh_less() -> None:
    merges = QuadraticWorld.drawn().probes(rates=(0.01,)).merges
    calm = targets(merges, ("a", "b", "c"))
    late = np.array([merge.plan.recipes["a"].steps == 40 for merge in merges])
    better = calm.values[:, 0] <= 0
    assert calm.weight[late & better, 0].min() > calm.weight[~late & better, 0].max()
    thrown = [dataclasses.replace(merge, risks={n: 15 * r for n, r in merge.initial_risks.items()}) for merge in merges]
    assert np.all(targets(thrown, ("a", "b", "c")).weight[better] < calm.weight[better])


def test_a_diverged_merge_counts_as_thrown_far_and_a_missing_task_not_at_all() -> None:
    merge = QuadraticWorld.drawn().probes(rates=(0.01,)).merges[0]
    partial = dataclasses.replace(
        merge, risks={"a": math.inf}, initial_risks={"a": merge.initial_risks["a"]}, noise={"a": 0.0}
    )
    target = targets([partial], ("a", "b", "c"))
    assert target.values[0, 0] == 3.0
    assert target.weight[0, 0] > 0
    assert target.weight[0, 1:].tolist() == [0.0, 0.0]
