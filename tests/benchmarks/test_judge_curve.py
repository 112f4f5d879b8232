"""The judge's curve after the first advice: what is kept, what is measured, what it costs."""

from pathlib import Path

import numpy as np
import pytest

from advisor.keeping import MEASURED_SCALES, WORTH_TRAINING
from benchmarks.judge_advisor import _same_experts, advise_on_suite, advisor_curve, keep_or_train
from benchmarks.suite_format import candidate_plans, evaluation_units, load_suite

SUITES = Path(__file__).resolve().parents[2] / "benchmarks" / "suites"


def test_the_trained_plan_is_kept_unless_another_is_worth_training():
    trained = np.array([True, True, False])
    ahead = np.array([0.9, 0.8, 0.8 - 0.9 * WORTH_TRAINING])
    assert keep_or_train(ahead, ahead, trained, 1.0) == 1
    far = np.array([0.9, 0.8, 0.8 - 1.1 * WORTH_TRAINING])
    assert keep_or_train(far, far, trained, 1.0) == 2
    nothing = np.array([1.0, 0.995, 0.996])
    assert keep_or_train(nothing, nothing, trained, 1.0) is None


@pytest.fixture(scope="module")
def suite():
    return load_suite(SUITES / "resnet-fashion")


def test_what_is_measured_merges_the_same_experts_at_half_to_twice_the_coefficients(suite):
    candidates = candidate_plans(suite, 0)
    wanted = advise_on_suite(suite, 0).choice
    plan = candidates.plans[wanted]
    rows = np.flatnonzero(_same_experts(candidates, wanted, MEASURED_SCALES))
    assert wanted in rows
    assert len(rows) > 1
    for row in rows:
        other = candidates.plans[row]
        assert (other.recipes, other.method) == (plan.recipes, plan.method)
        ratios = {other.coefficients[name] / plan.coefficients[name] for name in plan.names}
        assert 0.5 <= min(ratios) <= max(ratios) <= 2.0


def test_a_training_is_paid_with_its_evaluations_and_all_rounds_cost_less_than_the_grid(suite):
    candidates, first = candidate_plans(suite, 0), advise_on_suite(suite, 0)
    points = advisor_curve(suite, 0, first=first)
    measured = int(_same_experts(candidates, first.choice, MEASURED_SCALES).sum())
    step = float(candidates.training_cost[first.choice]) + measured * evaluation_units(suite, 0)
    assert points[0].cost == first.replay.units
    assert points[1].cost - points[0].cost == pytest.approx(step)
    costs = np.diff([point.cost for point in points])
    assert np.all(costs > 0)
    grid = sum(len(suite.tasks) * recipe.cost() for recipe in suite.recipes.values())
    assert costs.sum() < grid + len(candidates) * evaluation_units(suite, 0)
