from __future__ import annotations

import numpy as np
import pytest

from studies.evaluation import RiskBatch, make_evaluator
from studies.knobs import Columns, FloatArray
from studies.recipes import search_recipes
from studies.sensitivity import find_sensitivity, sobol_indices, trial_importance
from tests.studies.plan_problems import diverging_risk, make_space, quadratic_risk

FEW = {"trials": 8, "batch": 4, "sweep": 512}


def test_sobol_indices_are_those_of_the_ishigami_function() -> None:
    """sin x1 + 7 sin^2 x2 + 0.1 x3^4 sin x1 on [-pi, pi]^3, closed form in Saltelli et al. 2008."""

    def ishigami(x: FloatArray) -> FloatArray:
        return np.asarray(np.sin(x[:, 0]) * (1 + 0.1 * x[:, 2] ** 4) + 7 * np.sin(x[:, 1]) ** 2)

    v1, v2, v13 = 0.5 * (1 + 0.1 * np.pi**4 / 5) ** 2, 49 / 8, 0.01 * np.pi**8 * 8 / 225
    variance = v1 + v2 + v13
    edge = np.full(3, np.pi)
    first, total, spread = sobol_indices(ishigami, -edge, edge, samples=8192, seed=0)
    np.testing.assert_allclose(first, [v1 / variance, v2 / variance, 0], atol=0.01)
    np.testing.assert_allclose(total, [(v1 + v13) / variance, v2 / variance, v13 / variance], atol=0.01)
    assert spread == pytest.approx(np.sqrt(variance), rel=0.01)


def test_indices_of_an_additive_function_add_up_to_one_and_converge() -> None:
    weights = np.array([1.0, 2.0, 4.0])
    exact = weights**2 / (weights**2).sum()

    def error(samples: int) -> float:
        runs = [
            sobol_indices(lambda x: x @ weights, np.zeros(3), np.ones(3), samples=samples, seed=s)[0] for s in range(8)
        ]
        return float(np.mean([np.abs(run - exact).max() for run in runs]))

    assert error(4096) < 0.3 * error(64)
    assert error(4096) < 0.01


def test_a_constant_function_has_no_sensitivity() -> None:
    first, total, spread = sobol_indices(lambda x: np.ones(len(x)), np.zeros(2), np.ones(2), samples=16, seed=0)
    assert (first.tolist(), total.tolist(), spread) == ([0, 0], [0, 0], 0)


def test_knobs_that_do_nothing_are_free_and_last() -> None:
    study = search_recipes(make_space(), quadratic_risk, seed=0, **FEW)
    found = find_sensitivity(make_space(), quadratic_risk, study)
    last = found.knobs[-1]
    assert last.name == "batch_size"
    assert last.total == pytest.approx(0, abs=1e-9)
    assert (last.low, last.high) == (8, 128)
    assert last.freedom > 0.7
    assert last.importance == min(knob.importance for knob in found.knobs)
    assert sum(knob.importance for knob in found.knobs) == pytest.approx(1)


def test_near_optimal_ranges_are_those_of_the_ellipsoid() -> None:
    study = search_recipes(make_space(), quadratic_risk, seed=0, trials=8, batch=4, sweep=8192, tolerance=0.05)
    found = {knob.name: knob for knob in find_sensitivity(make_space(), quadratic_risk, study).knobs}
    # 0.1 q <= 0.05: |coefficient - 0.6| <= sqrt(0.5 / 4), |log rate / best| <= sqrt(0.5 / 0.36).
    reach = np.sqrt(0.5 / 4)
    assert found["coefficient"].low == pytest.approx(0.6 - reach, abs=0.08)
    assert found["coefficient"].high == pytest.approx(0.6 + reach, abs=0.08)
    assert found["coefficient"].freedom == pytest.approx(reach, abs=0.08)
    high = found["learning_rate"].high
    assert high is not None
    assert np.log(high / 0.02) == pytest.approx(np.sqrt(0.5 / 0.36), abs=0.3)
    assert found["learning_rate"].total > found["learning_rate"].first


def test_optimizers_and_schedules_are_ranked_too() -> None:
    space = make_space(learning_rate={"sgd": (1e-3, 1.0), "adamw": (1e-5, 1e-2)}, schedules=("constant", "cosine"))

    def risk(columns: Columns) -> RiskBatch:
        goal = quadratic_risk(columns).goal + 3.0 * (columns["optimizer"] == "adamw")
        return RiskBatch(goal=goal, low=goal - 0.01, high=goal + 0.01, violation=np.full(len(goal), -1.0))

    study = search_recipes(space, risk, seed=0, **FEW)
    found = {knob.name: knob for knob in find_sensitivity(space, risk, study).knobs}
    assert found["optimizer"].choices == ("sgd",)
    assert found["optimizer"].freedom == 0.5
    assert set(found["schedule"].choices) == {"constant", "cosine"}
    assert found["schedule"].total == pytest.approx(0, abs=1e-9)
    assert found["optimizer"].importance > found["schedule"].importance
    evaluate = make_evaluator(space, risk)
    spread = trial_importance(space, evaluate(np.random.default_rng(0).random((300, space.dimensions))))
    assert set(spread) == {knob.name for knob in space.knobs}
    assert spread["learning_rate"] > spread["schedule"]


def test_infeasible_plans_of_the_box_are_counted() -> None:
    study = search_recipes(make_space(), diverging_risk, seed=0, tolerance=2.0, **FEW)
    found = find_sensitivity(make_space(), diverging_risk, study)
    assert 0 <= found.infeasible < 1
    assert found.spread > 0
    assert {entry["name"] for entry in found.to_json()["knobs"]} == {knob.name for knob in found.knobs}


def test_a_box_without_a_feasible_point_and_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="no point of the box is feasible"):
        sobol_indices(lambda x: np.full(len(x), np.nan), np.zeros(2), np.ones(2), samples=4, seed=0)
    with pytest.raises(ValueError, match="samples=1 must be at least 2"):
        sobol_indices(lambda x: x[:, 0], np.zeros(2), np.ones(2), samples=1, seed=0)
