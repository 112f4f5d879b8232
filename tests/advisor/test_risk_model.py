"""The risk model against quadratics whose merged risk is known in closed form, and its promises on any plan."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from advisor.measured_on import MeasuredOn
from advisor.observations import MergeObservation, ProbeData
from advisor.plan import Plan, PlanTable
from advisor.risk_model import RiskModel, TooFewProbes
from estimators.recipe import Recipe
from tests.advisor.quadratic_merges import QuadraticWorld

SEEDS = (0, 1, 2)
LONG_RATES = (0.003, 0.01, 0.03)


def long_plans(world: QuadraticWorld) -> list[Plan]:
    """Plans 4 to 32 times longer than the probes."""
    return [
        Plan.uniform(world.names, Recipe(learning_rate=rate, batch_size=batch, steps=steps), coefficient)
        for rate, batch, steps, coefficient in itertools.product(
            LONG_RATES, (8, 32), (160, 640, 1280), (0.25, 0.4, 0.7, 1.0)
        )
    ]


@pytest.fixture(scope="module")
def worlds() -> list[QuadraticWorld]:
    return [QuadraticWorld.drawn(seed=seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def models(worlds: list[QuadraticWorld]) -> list[RiskModel]:
    return [RiskModel().fit(world.probes()) for world in worlds]


def plan_of(names: tuple[str, ...], coefficient: float = 0.4, **changes: object) -> Plan:
    recipe = Recipe(learning_rate=0.01, batch_size=32, steps=320)
    return Plan.uniform(names, recipe.replace(**changes), coefficient)


def test_ranks_long_merges_of_quadratics_from_short_probes(
    worlds: list[QuadraticWorld], models: list[RiskModel]
) -> None:
    correlations, regrets = [], []
    for world, model in zip(worlds, models, strict=True):
        plans = long_plans(world)
        measured = np.array([np.mean(list(world.observe(plan).risks.values())) for plan in plans])
        predicted = model.predict(plans).goal
        correlations.append(spearmanr(predicted, measured)[0])
        gain = float(np.mean(model.scales_.initial_risk) - measured.min())
        regrets.append((measured[np.argmin(predicted)] - measured.min()) / gain)
    assert np.mean(correlations) > 0.7
    assert np.mean(regrets) < 0.15


def test_risk_of_merges_inside_the_probed_range_is_predicted_within_a_few_percent(
    worlds: list[QuadraticWorld], models: list[RiskModel]
) -> None:
    for world, model in zip(worlds, models, strict=True):
        plans = [plan_of(world.names, c, steps=k, learning_rate=0.005) for c in (0.3, 0.6, 1.0) for k in (15, 30)]
        measured = np.array([list(world.observe(plan).risks.values()) for plan in plans])
        errors = np.abs(np.log(model.predict(plans).task_risk / measured))
        assert errors.mean() < 0.04
        assert errors.max() < 0.15


def test_zero_coefficients_give_exactly_the_initial_risk(models: list[RiskModel]) -> None:
    for model in models:
        prediction = model.predict([plan_of(("a", "b", "c"), 0.0)])
        np.testing.assert_allclose(prediction.task_risk[0], prediction.initial_risk, rtol=1e-6)


@pytest.mark.parametrize("coefficient", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("rate", [1e-8, 1e-2, 1e3])
@pytest.mark.parametrize("steps", [1, 10**7])
def test_any_plan_gets_finite_positive_risks_in_ordered_intervals(
    models: list[RiskModel], coefficient: float, rate: float, steps: int
) -> None:
    plan = plan_of(("a", "b", "c"), coefficient, learning_rate=rate, steps=steps)
    p = models[0].predict([plan], return_interval=True)
    assert np.isfinite(p.task_risk).all()
    assert np.all(p.task_risk > 0)
    assert np.all(p.task_risk >= p.floor - 1e-12)
    assert np.all((p.task_low <= p.task_risk) & (p.task_risk <= p.task_high))
    assert np.all((p.goal_low <= p.goal) & (p.goal <= p.goal_high))
    assert np.all(p.task_low > 0)


def test_terms_and_initial_risk_add_up_to_the_prediction(models: list[RiskModel]) -> None:
    p = models[1].predict(long_plans(QuadraticWorld.drawn(seed=1)))
    np.testing.assert_allclose(p.initial_risk + sum(p.terms.values()), p.task_risk, rtol=1e-10)
    for name in ("interference", "noise", "collapse", "generalisation"):
        assert np.all(p.terms[name] >= 0), name


def test_a_task_left_out_counts_as_coefficient_zero(models: list[RiskModel]) -> None:
    recipe = Recipe(learning_rate=0.01, batch_size=32, steps=200)
    named = Plan(recipes=dict.fromkeys("abc", recipe), coefficients={"a": 0.5, "b": 0.0, "c": 0.5})
    absent = Plan(recipes=dict.fromkeys("ac", recipe), coefficients={"a": 0.5, "c": 0.5})
    model = models[0]
    np.testing.assert_allclose(model.predict([named]).task_risk, model.predict([absent]).task_risk, rtol=1e-12)


def test_leaving_out_the_own_expert_raises_that_task_risk(models: list[RiskModel]) -> None:
    changes = []
    for model, (j, name) in itertools.product(models, enumerate("abc")):
        whole = model.predict([plan_of(("a", "b", "c"), 0.25)]).task_risk[0, j]
        rest = model.predict([plan_of(tuple(n for n in "abc" if n != name), 0.25)]).task_risk[0, j]
        changes.append(np.log(rest / whole))
    assert np.mean(changes) > 0.02
    assert np.mean(np.array(changes) > 0) > 0.8


def test_the_goal_weighs_the_tasks(worlds: list[QuadraticWorld]) -> None:
    probes = worlds[0].probes()
    model = RiskModel(task_weights={"a": 3.0, "b": 1.0, "c": 0.0}).fit(probes)
    p = model.predict([plan_of(("a", "b", "c"))])
    assert p.goal[0] == pytest.approx(0.75 * p.task_risk[0, 0] + 0.25 * p.task_risk[0, 1])


def test_unequal_recipes_are_predicted_task_by_task(worlds: list[QuadraticWorld], models: list[RiskModel]) -> None:
    base = Recipe(learning_rate=0.01, batch_size=32, steps=160)
    recipes = {"a": base, "b": base.replace(steps=20, learning_rate=0.003), "c": base.replace(batch_size=8)}
    for world, model in zip(worlds, models, strict=True):
        plan = Plan(recipes=recipes, coefficients={"a": 0.5, "b": 1.0, "c": 0.3})
        measured = np.array(list(world.observe(plan).risks.values()))
        np.testing.assert_allclose(model.predict([plan]).task_risk[0], measured, rtol=0.15)


def test_task_order_changes_nothing(worlds: list[QuadraticWorld], models: list[RiskModel]) -> None:
    world = worlds[0]
    turned = dataclasses.replace(world, names=world.names[::-1], minima=world.minima[::-1])
    plans = [plan_of(world.names, c) for c in (0.2, 0.6)]
    swapped = [plan_of(turned.names, c) for c in (0.2, 0.6)]
    expected = models[0].predict(plans).task_risk
    np.testing.assert_allclose(
        RiskModel().fit(turned.probes()).predict(swapped).task_risk[:, ::-1], expected, rtol=2e-3
    )


def test_json_round_trip_predicts_the_same(models: list[RiskModel]) -> None:
    copy = RiskModel.from_json(json.loads(json.dumps(models[0].to_json())))
    plans = [plan_of(("a", "b", "c"), c) for c in (0.2, 0.6)]
    for one, other in ((models[0].predict(plans, return_interval=True), copy.predict(plans, return_interval=True)),):
        np.testing.assert_array_equal(one.goal_high, other.goal_high)
        np.testing.assert_array_equal(one.task_risk, other.task_risk)
        np.testing.assert_array_equal(one.extrapolation, other.extrapolation)


def test_another_model_version_is_refused(models: list[RiskModel]) -> None:
    with pytest.raises(ValueError, match="version=99 .* fit it again"):
        RiskModel.from_json(models[0].to_json() | {"version": 99})


def test_measured_long_merges_refit_and_sharpen(worlds: list[QuadraticWorld], models: list[RiskModel]) -> None:
    errors = []
    for world, model in zip(worlds, models, strict=True):
        plan = plan_of(world.names, 0.5, steps=640)
        more = [world.observe(plan_of(world.names, c, steps=640)) for c in (0.25, 0.5, 1.0)]
        refitted = RiskModel().fit(world.probes().with_merges(more))
        before, after = (m.predict([plan], return_interval=True) for m in (model, refitted))
        truth = np.mean(list(world.observe(plan).risks.values()))
        errors.append([abs(np.log(p.goal[0] / truth)) for p in (before, after)])
        assert after.goal_high[0] - after.goal_low[0] < before.goal_high[0] - before.goal_low[0]
        assert after.extrapolation[0] == 0
        assert before.extrapolation[0] == pytest.approx(np.log(16))
    mean_before, mean_after = np.mean(errors, axis=0)
    assert mean_after < max(0.6 * mean_before, 0.03)


def test_intervals_widen_with_the_distance_beyond_the_probes(models: list[RiskModel]) -> None:
    plans = [plan_of(("a", "b", "c"), 0.3, steps=steps) for steps in (40, 160, 640)]
    p = models[0].predict(plans, return_interval=True)
    width = np.log(p.goal_high / p.goal_low)
    assert np.all(np.diff(p.extrapolation) > 0)
    assert np.all(np.diff(width) > 0)


def test_intervals_of_a_higher_level_are_wider(worlds: list[QuadraticWorld]) -> None:
    probes = worlds[0].probes()
    plans = [plan_of(("a", "b", "c"))]
    narrow, wide = (RiskModel(level=level).fit(probes).predict(plans, return_interval=True) for level in (0.5, 0.99))
    assert wide.goal_high[0] > narrow.goal_high[0] > narrow.goal[0]


def test_displacement_of_long_runs_is_predicted(worlds: list[QuadraticWorld], models: list[RiskModel]) -> None:
    for world, model in zip(worlds, models, strict=True):
        plans = [plan_of(world.names, steps=steps) for steps in (20, 40, 160)]
        squared = [list(world.observe(plan).squared_displacements.values()) for plan in plans]
        errors = np.abs(np.log(model.predict_displacement(plans) / np.sqrt(squared)))
        assert np.max(errors[:2]) < 0.2
        assert np.max(errors) < 0.5


def test_elasticities_are_slopes_of_the_predicted_log_goal(models: list[RiskModel]) -> None:
    model, plan = models[0], plan_of(("a", "b", "c"), steps=400)
    exponents = model.elasticities(plan, step=0.01)
    up, down = (model.predict([plan_of(("a", "b", "c"), steps=steps)]).goal[0] for steps in (404, 396))
    slope = np.log(up / down) / np.log(404 / 396)
    value, low, high = exponents["steps"]
    assert value == pytest.approx(slope, rel=0.02, abs=1e-4)
    assert set(exponents) == {"learning_rate", "batch_size", "steps", "num_samples", "coefficients", "num_tasks"}
    for value, low, high in exponents.values():
        assert low <= value <= high
    assert exponents["num_samples"][0] <= 0


def test_the_number_of_tasks_has_no_exponent_for_a_single_expert(models: list[RiskModel]) -> None:
    assert "num_tasks" not in models[0].elasticities(plan_of(("a",)))


def test_the_stability_edge_rises_with_the_batch_size_and_is_near_two_over_curvature(models: list[RiskModel]) -> None:
    small, large = (models[0].edge("sgd", batch) for batch in (4, 256))
    assert small[0] < large[0]
    for value, low, high in (small, large):
        assert low <= value <= high
    assert 0.3 < large[0] / (2 / 40.0) < 5
    assert models[0].edge("momentum", 256)[0] == pytest.approx(0.1 * large[0])


def test_an_optimizer_that_was_not_probed_is_refused(models: list[RiskModel]) -> None:
    with pytest.raises(TooFewProbes, match="adaptive.*probe that optimizer first"):
        models[0].predict([plan_of(("a", "b", "c"), optimizer="adamw")])
    with pytest.raises(TooFewProbes, match="'adamw' was not probed"):
        models[0].edge("adamw", 8)


def test_a_method_that_was_not_probed_is_refused(models: list[RiskModel]) -> None:
    plan = Plan.uniform("abc", Recipe(learning_rate=0.01, batch_size=8, steps=20), 0.5, "ties")
    with pytest.raises(ValueError, match=r"methods \['ties'\] were not among the probes' merges"):
        models[0].predict([plan])


def test_a_method_that_halves_progress_and_interference_alike_is_recognised(worlds: list[QuadraticWorld]) -> None:
    """A made-up operator that merges at half the coefficient: progress share 1/2, interference share 1/4."""
    world = worlds[0]
    probes = world.probes()
    halved: list[MergeObservation] = []
    for merge in probes.merges:
        half = {name: value / 2 for name, value in merge.plan.coefficients.items()}
        seen = world.observe(dataclasses.replace(merge.plan, coefficients=half))
        halved.append(dataclasses.replace(merge, plan=dataclasses.replace(merge.plan, method="half"), risks=seen.risks))
    model = RiskModel().fit(ProbeData(constants=probes.constants, merges=(*probes.merges, *halved)))
    progress, interference = model.method_shares_["half"]
    assert progress == pytest.approx(0.5, rel=0.15)
    assert interference == pytest.approx(0.25, rel=0.25)
    plain = model.predict([plan_of(world.names, 0.3)]).goal
    other = model.predict([dataclasses.replace(plan_of(world.names, 0.6), method="half")]).goal
    np.testing.assert_allclose(other, plain, rtol=0.05)


def test_predicting_before_fitting_says_so() -> None:
    with pytest.raises(ValueError, match=r"not fitted; call fit\(probes\) first"):
        RiskModel().predict([plan_of(("a",))])


def test_a_level_outside_zero_and_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"level=1.5 must lie in \(0, 1\)"):
        RiskModel(level=1.5)


def test_weights_of_other_tasks_are_refused(worlds: list[QuadraticWorld]) -> None:
    with pytest.raises(ValueError, match="task_weights name .* give each one a weight"):
        RiskModel(task_weights={"a": 1.0}).fit(worlds[0].probes())


def test_a_table_predicts_like_its_plans(models: list[RiskModel]) -> None:
    plans = long_plans(QuadraticWorld.drawn())
    table = PlanTable.from_plans(plans, models[0].constants_.num_samples)
    np.testing.assert_array_equal(models[0].predict(table).goal, models[0].predict(plans).goal)


def test_intervals_of_measured_figures_hold_the_sampling_error_of_the_test_samples(
    worlds: list[QuadraticWorld],
) -> None:
    """With as many test samples as x_0 was measured on, the level's relative error grows by sqrt(2), and it alone."""
    world = worlds[0]
    plans, found = [plan_of(world.names)], {}
    for size in (None, 50, 10**9):
        figures = None if size is None else MeasuredOn(sizes=dict.fromkeys(world.names, size), shared={})
        model = RiskModel(measured_on=figures).fit(world.probes())
        spread, samples = np.full(len(world.names), 0.1), np.full(len(world.names), 50.0)
        model.scales_ = dataclasses.replace(model.scales_, initial_spread=spread, initial_samples=samples)
        found[size] = model.predict(plans, return_interval=True)
        assert RiskModel.from_json(json.loads(json.dumps(model.to_json()))).measured_on == model.measured_on
        if size == 50:
            np.testing.assert_allclose(model._level_spread()[0], np.sqrt(2) * 0.1)
            one = {name: dict.fromkeys(world.names, 1.0) for name in world.names}
            model.measured_on = dataclasses.replace(figures, shared=one)
            together = model.predict(plans, return_interval=True)
    risk, figure, many = found.values()
    assert figure.goal.tolist() == risk.goal.tolist()
    assert figure.relative_low.tolist() == risk.relative_low.tolist()  # the gain is measured on the same samples
    assert (figure.task_high > risk.task_high).all()
    assert (figure.goal_high > risk.goal_high).all()
    np.testing.assert_allclose(many.goal_high, risk.goal_high, rtol=1e-6)
    assert (together.goal_high > figure.goal_high).all()  # tasks on the same samples err together
    assert together.task_high.tolist() == figure.task_high.tolist()
