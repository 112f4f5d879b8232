"""The fit: its Jacobian against finite differences, its weights, and recovery of a known truth."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from advisor.risk_fit import Fit, targets
from advisor.risk_form import KINDS
from advisor.risk_model import RiskModel
from tests.advisor.quadratic_merges import QuadraticWorld


@pytest.fixture(scope="module")
def model() -> RiskModel:
    return RiskModel().fit(QuadraticWorld.drawn().probes())


def test_the_maximum_is_a_maximum_in_every_direction(model: RiskModel) -> None:
    """Predictions of the probes fit no better after any small move of the parameters, prior included."""
    from advisor.risk_fit import _moves_of_all  # the objective is rebuilt here from its definition
    from advisor.risk_form import task_risk, unpack

    merges = QuadraticWorld.drawn().probes().merges
    moves = _moves_of_all(merges, model.scales_.names, model._moves_of, None)
    target = targets(merges, model.scales_.names)

    def objective(theta: np.ndarray) -> float:
        risk, _ = task_risk({0: unpack(theta, 0)}, moves, model.scales_, model.cosines_)
        misfit = (np.log(risk / model.scales_.initial_risk) - target.values) * target.weight
        return float(0.5 * np.sum(misfit**2) + 0.5 * np.sum(theta**2))

    fit = model.fits_[0]
    assert objective(fit.theta) == pytest.approx(fit.cost, rel=1e-6)
    generator = np.random.default_rng(0)
    for _ in range(20):
        step = generator.standard_normal(fit.theta.shape)
        assert objective(fit.theta + 0.05 * step) > fit.cost * (1 - 1e-4)


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
    copy = Fit.from_json(fit.to_json())
    np.testing.assert_array_equal(copy.covariance, fit.covariance)
    assert copy.num_values == fit.num_values == 60 * 3


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
