"""Refused advice: whole, with numbers and a way on, where nothing can be fitted or nothing meets the limits."""

import dataclasses
import math

import pytest

from advisor.advice import Recommendation
from advisor.goal import Goal
from advisor.observations import ProbeData
from advisor.recommending import recommend_plan
from advisor.refusing import SLOWER, refuse_unfitted
from advisor.report import Report, check_report
from advisor.risk_model import RiskModel
from advisor.what_if import WhatIf
from tests.advisor.quadratic_merges import QuadraticWorld
from tests.advisor.test_recommending import situation


@pytest.fixture(scope="module")
def world() -> QuadraticWorld:
    return QuadraticWorld.drawn()


@pytest.fixture(scope="module")
def model(world: QuadraticWorld) -> RiskModel:
    return RiskModel(seed=0).fit(world.probes())


def equal(world: QuadraticWorld, **changes) -> Goal:
    return Goal(weights=dict.fromkeys(world.names, 1.0), **changes)


def all_diverged(world: QuadraticWorld) -> ProbeData:
    probes = world.probes()
    dead = [dataclasses.replace(m, risks=dict.fromkeys(m.risks, math.inf)) for m in probes.merges]
    return dataclasses.replace(probes, merges=tuple(dead))


def test_diverged_probes_end_in_advice_to_leave_the_model_alone(world):
    probes = all_diverged(world)
    advice = refuse_unfitted(probes, equal(world), situation(world), "all merges diverged; probe slower")
    assert (advice.status, advice.answer) == ("refuse", "do_not_merge")
    assert set(advice.plan.coefficients.values()) == {0.0}
    slowest = min(r.learning_rate for m in probes.merges for r in m.plan.recipes.values())
    assert {r.learning_rate for r in advice.plan.recipes.values()} == {slowest / SLOWER}
    truth = {name: world.observe(advice.plan).initial_risks[name] for name in world.names}
    assert {name: cell.value for name, cell in advice.tasks.items()} == pytest.approx(truth)
    assert advice.goal.value == pytest.approx(sum(truth.values()) / len(truth))
    assert "all merges diverged; probe slower" in advice.sentence
    assert advice.caveats[0].name == "nothing_fitted"
    assert any(f"{len(probes.merges)} measured merges diverged" in reason for reason in advice.reasons)


def test_without_any_probe_the_searchs_slowest_recipe_is_named(world):
    none = ProbeData(constants=world.constants(), merges=())
    advice = refuse_unfitted(none, equal(world, kind="worst"), situation(world), "no merge was measured")
    recipe = next(iter(advice.plan.recipes.values()))
    assert (recipe.learning_rate, recipe.batch_size, recipe.steps) == (1e-3, 8, 20)
    assert advice.goal.value == max(cell.value for cell in advice.tasks.values())


def test_refused_advice_round_trips_and_makes_a_whole_report(world):
    probes = all_diverged(world)
    advice = refuse_unfitted(probes, equal(world), situation(world), "all merges diverged")
    assert Recommendation.from_json(advice.to_json()) == advice
    report = Report(
        title="t",
        run_id="r",
        recommendation=advice,
        constants=probes.constants,
        validation=None,
        cost={"probes": 10.0},
        probes=probes,
    )
    check_report(report.to_json())
    assert "Advice refused" in report.to_html()
    assert "all merges diverged" in report.to_markdown()


def test_limits_that_no_plan_meets_end_in_refused_advice_that_says_what_they_take(world, model):
    whole = recommend_plan(WhatIf(model=model, goal=equal(world)), situation(world), seed=0)
    advice = recommend_plan(WhatIf(model=model, goal=equal(world)), situation(world, affordable=100.0), seed=0)
    assert (advice.status, advice.answer) == ("refuse", "do_not_merge")
    cheapest = 3 * 8 * 20  # tasks x smallest batch x fewest steps
    assert advice.training_cost == cheapest
    assert f"raise --max-cost by {cheapest - 100}" in advice.sentence
    assert advice.caveats[0].name == "no_feasible_plan"
    best = next(other for other in advice.alternatives if other.label == "best without the limits")
    assert best.goal.value == pytest.approx(whole.goal.value, rel=1e-2)
    assert Recommendation.from_json(advice.to_json()) == advice


def test_a_drop_that_no_plan_can_avoid_is_named_with_its_task(world, model):
    goal = equal(world, max_drop=-1e3)  # every task must gain more than there is
    advice = recommend_plan(WhatIf(model=model, goal=goal), situation(world), seed=0)
    assert advice.status == "refuse"
    assert "objective.max_drop=-1000: it is predicted to lose" in advice.sentence
