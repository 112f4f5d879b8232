"""After a refit: trained experts stay advised unless others are worth training; on tasks with known merged risks."""

import dataclasses
import math

import numpy as np
import pytest

from advisor.goal import Goal
from advisor.keeping import MEASURED_SCALES, WORTH_TRAINING, best_trained, keep_trained, scaled
from advisor.observations import MergeObservation
from advisor.plan import Plan
from advisor.recommending import recommend_plan
from advisor.risk_model import RiskModel
from advisor.what_if import WhatIf
from estimators.recipe import Recipe
from tests.advisor.quadratic_merges import QuadraticWorld
from tests.advisor.test_recommending import SEARCH, situation

SEEDS = (0, 1, 2)


def measured(world: QuadraticWorld, plan: Plan) -> tuple[MergeObservation, ...]:
    return tuple(world.observe(scaled(plan, scale)) for scale in MEASURED_SCALES)


def refitted(world: QuadraticWorld, merges: tuple[MergeObservation, ...]) -> WhatIf:
    model = RiskModel(seed=0).fit(world.probes().with_merges(merges))
    return WhatIf(model=model, goal=Goal(weights=dict.fromkeys(world.names, 1.0)))


def goal(merge: MergeObservation) -> float:
    return float(np.mean(list(merge.risks.values())))


def long_plan(world: QuadraticWorld, coefficient: float = 0.4) -> Plan:
    return Plan.uniform(world.names, Recipe(learning_rate=0.01, batch_size=8, steps=200), coefficient)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_kept_coefficients_are_measurably_as_good_as_the_best_of_those_tried(seed):
    world = QuadraticWorld.drawn(seed=seed)
    merges = measured(world, long_plan(world))
    plan, _ = best_trained(refitted(world, merges), merges, situation(world))
    assert plan.recipes == merges[0].plan.recipes
    ladder = [goal(world.observe(scaled(long_plan(world), scale))) for scale in np.geomspace(0.2, 5, 40)]
    start = float(np.mean(list(merges[0].initial_risks.values())))
    assert goal(world.observe(plan)) - min(ladder) < 0.03 * start


@pytest.mark.parametrize("seed", SEEDS)
def test_rounds_of_training_and_refitting_end_in_experts_that_are_kept_and_no_worse(seed):
    world = QuadraticWorld.drawn(seed=seed)
    advice = recommend_plan(refitted(world, ()), situation(world), seed=0)
    first, merges, known = goal(world.observe(advice.plan)), (), []
    while advice.plan.recipes not in known:
        assert len(known) < 4
        known.append(advice.plan.recipes)
        merges += measured(world, advice.plan)
        advice = recommend_plan(refitted(world, merges), situation(world), seed=0, trained=merges)
    assert goal(world.observe(advice.plan)) <= 1.005 * first
    assert advice.sentence.startswith("Keep the experts trained with ")
    assert "experts_kept" in [caveat.name for caveat in advice.caveats]
    best = next(other for other in advice.alternatives if other.label == "best of the search")
    assert advice.goal.value - best.goal.value <= WORTH_TRAINING * advice.initial_goal + 1e-9


def test_experts_that_hardly_learned_are_not_kept():
    world = QuadraticWorld.drawn()
    weak = Plan.uniform(world.names, Recipe(learning_rate=1e-3, batch_size=8, steps=20), 0.3)
    merges = measured(world, weak)
    advice = recommend_plan(refitted(world, merges), situation(world), seed=0, trained=merges)
    assert advice.plan.recipes != weak.recipes
    assert advice.sentence.startswith("Train every expert with ")
    assert "experts_kept" not in [caveat.name for caveat in advice.caveats]
    assert "best of the search" not in [other.label for other in advice.alternatives]


def test_where_the_search_is_ahead_by_more_than_it_is_worth_decides():
    world = QuadraticWorld.drawn()
    merges = measured(world, long_plan(world))
    ask = refitted(world, merges)
    plan, value = best_trained(ask, merges, situation(world))
    margin = WORTH_TRAINING * float(np.mean(ask.model.scales_.initial_risk))
    assert keep_trained(ask, merges, situation(world), value - 0.99 * margin) == plan
    assert keep_trained(ask, merges, situation(world), value - 1.01 * margin) is None


def test_experts_that_diverged_and_no_experts_at_all_are_no_choice():
    world = QuadraticWorld.drawn()
    merges = measured(world, long_plan(world))
    ask = refitted(world, merges)
    thrown = tuple(dataclasses.replace(m, risks=dict.fromkeys(m.risks, math.inf)) for m in merges)
    assert best_trained(ask, thrown, situation(world)) is None
    assert keep_trained(ask, (), situation(world), math.inf) is None


def test_a_plan_that_breaks_the_limits_is_no_choice():
    world = QuadraticWorld.drawn()
    merges = measured(world, long_plan(world))
    ask = refitted(world, merges)
    strict = dataclasses.replace(ask, goal=dataclasses.replace(ask.goal, max_drop=-0.9))
    assert best_trained(strict, merges, situation(world)) is None


def test_experts_and_coefficients_outside_the_search_are_not_kept():
    world = QuadraticWorld.drawn()
    merges = measured(world, long_plan(world))
    ask = refitted(world, merges)
    free, _ = best_trained(ask, merges, situation(world))
    low = 0.9 * max(free.coefficients.values())
    inside = SEARCH.model_copy(update={"coefficients": SEARCH.coefficients.model_copy(update={"range": (0.0, low)})})
    plan, _ = best_trained(ask, merges, situation(world, search=inside))
    assert max(plan.coefficients.values()) <= low * (1 + 1e-6)
    for change in (
        {"learning_rate": {"sgd": (1e-3, 5e-3)}},
        {"learning_rate": {"adamw": (1e-3, 0.2)}},
        {"steps": (20, 100)},
        {"batch_size": (16, 32)},
        {"schedule": ("warmup_cosine",)},
    ):
        assert best_trained(ask, merges, situation(world, search=SEARCH.model_copy(update=change))) is None, change
    assert best_trained(ask, merges, situation(world, methods=("ties",))) is None
