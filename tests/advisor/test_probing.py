"""The probe design as a pure function of what was measured."""

import dataclasses
import math

import numpy as np
import pytest

from advisor.observations import MergeObservation
from advisor.plan import Plan
from advisor.probing import (
    LINEAR_METHOD,
    BudgetTooSmall,
    Probe,
    anchor,
    design_probes,
    next_probe,
)
from estimators.constants import Constants, Estimate, TaskConstants

NAMES = ("a", "b", "c")
METHODS = (LINEAR_METHOD, "ties")
WEIGHTS = dict.fromkeys(NAMES, 1.0)


def constants(curvature: float = 20.0) -> Constants:
    def exact(value: float) -> Estimate:
        return Estimate(value=value, low=value, high=value)

    return Constants(
        tasks={n: TaskConstants(initial_risk=exact(1.0), top_curvature=exact(curvature)) for n in NAMES},
        num_samples=dict.fromkeys(NAMES, 500),
        num_classes=dict.fromkeys(NAMES, 5),
        num_parameters=1000,
    )


def design(budget: float = 20_000.0, **changes):
    options = {
        "rates": {"sgd": (1e-4, 1.0)},
        "batch_range": (8, 64),
        "max_steps": 640,
        "budget": budget,
        "validation_samples": 100,
    } | changes
    return design_probes(constants(), **options)


def probe(recipe, edge: float) -> Probe:
    """A probe in a world where merging helps below ``edge`` and hurts above."""
    gain = math.log1p(recipe.learning_rate / edge) if recipe.learning_rate < edge else -1.0
    merges = tuple(
        MergeObservation(
            plan=Plan.uniform(NAMES, recipe, value),
            risks=dict.fromkeys(NAMES, 1.0 - 0.3 * gain * value),
            initial_risks=dict.fromkeys(NAMES, 1.0),
            num_samples=100,
            noise=dict.fromkeys(NAMES, 0.001),
        )
        for value in (0.35, 1.0)
    )
    return Probe(recipe=recipe, traces=(), merges=merges, outcomes=dict.fromkeys(NAMES, "finished"), cost=1000.0)


def explore(plan, edge: float, limit: int = 20) -> list[Probe]:
    done: list[Probe] = []
    while len(done) < limit:
        recipe = next_probe(plan, done, WEIGHTS, spent=sum(p.cost for p in done))
        if recipe is None:
            break
        done.append(probe(recipe, edge))
    return done


def test_the_first_rate_lies_a_quarter_below_the_measured_edge():
    assert anchor(constants(20.0), "sgd", (1e-4, 1.0)) == pytest.approx(2 / 20 / 4)
    assert anchor(constants(20.0), "momentum", (1e-4, 1.0)) == pytest.approx(2 / 20 / 4 * 0.1)
    assert anchor(constants(20.0), "adamw", (1e-5, 1e-1)) == pytest.approx(1e-3)
    assert anchor(constants(1e-9), "sgd", (1e-4, 1.0)) == 1.0


@pytest.mark.parametrize("edge", [3e-4, 0.004, 0.03, 0.3])
def test_rates_bracket_the_edge_wherever_it_lies(edge):
    rates = [p.recipe.learning_rate for p in explore(design(budget=1e9), edge)]
    assert min(rates) < edge
    assert max(rates) > edge or max(rates) == 1.0


def test_a_second_batch_size_is_probed_once_the_edge_is_bracketed():
    done = explore(design(budget=1e9), edge=0.1)
    assert {p.recipe.batch_size for p in done} == {8, 32}


def test_no_probe_is_repeated_and_all_lie_in_the_search_space():
    for edge in (1e-9, 0.01, 1e9):
        done = explore(design(budget=1e9), edge)
        settings = [(p.recipe.learning_rate, p.recipe.batch_size) for p in done]
        assert len(set(settings)) == len(settings)
        assert all(1e-4 <= rate <= 1.0 for rate, _ in settings)


def test_probes_stop_where_the_budget_ends():
    plan = design(budget=9000.0)
    done = explore(plan, edge=0.1)
    spent = 1000.0 * len(done)
    assert spent <= 9000
    recipe = next_probe(plan, done, WEIGHTS, spent=spent)
    assert recipe is None


def test_the_same_history_gives_the_same_probe():
    plan = design(budget=1e9)
    done = explore(plan, edge=0.05, limit=3)
    assert next_probe(plan, done, WEIGHTS, spent=0) == next_probe(plan, list(done), dict(WEIGHTS), spent=0)


def test_probes_are_at_most_a_quarter_of_the_longest_run():
    assert design(budget=1e9).steps(8) == 160


def test_every_optimizer_gets_its_probes_in_turn():
    plan = design(budget=1e9, rates={"sgd": (1e-4, 1.0), "adamw": (1e-5, 1e-2)})
    first_four = [p.recipe.optimizer for p in explore(plan, edge=0.01, limit=4)]
    assert first_four.count("sgd") == first_four.count("adamw") == 2


def test_cost_of_a_probe_is_training_and_merged_evaluations():
    plan = design()
    recipe = next_probe(plan, [], WEIGHTS, spent=0)
    assert recipe is not None
    done = []
    while (point := plan.next_merge(recipe, done, number=0, first=True)) is not None:
        done.append((point, 0.1))
    expected = 3 * recipe.batch_size * recipe.steps + len(done) * 3 * plan.evaluation_samples / 3
    assert plan.cost(recipe, first=True) == pytest.approx(expected)


def test_a_budget_below_one_probe_is_refused_with_what_it_takes():
    with pytest.raises(BudgetTooSmall, match="budget=50 .* the cheapest probe takes .* raise budget.probe_share"):
        design(budget=50.0)


def lean_design(budget: float, **changes):
    return design(budget=budget, rates={"sgd": (1e-4, 1.0), "adamw": (1e-5, 1e-2)}, methods=METHODS, **changes)


def test_a_budget_too_small_for_whole_probes_pays_for_one_ladder_of_each_optimizer():
    """Three tasks, 48 samples each: a merge takes 48 units, a probe of 8 steps at batch 8 192 and three merges."""
    plan = lean_design(48 + 2 * (192 + 3 * 48) + 100)
    assert plan.is_lean
    assert plan.merge_cost() == 48
    done: list[Probe] = []
    while (recipe := next_probe(plan, done, WEIGHTS, spent=plan.merge_cost() + sum(p.cost for p in done))) is not None:
        points: list = []
        while (point := plan.next_merge(recipe, points, number=len(done), first=True)) is not None:
            points.append((point, 0.1))
        assert {point.method for point, _ in points} == {LINEAR_METHOD}
        assert {point.step for point, _ in points} == set(plan.checkpoints(recipe)) == {recipe.steps}
        assert len(points) == 3
        cost = 3 * recipe.cost() + 3 * plan.merge_cost()
        assert plan.cost(recipe, first=True) == pytest.approx(cost)
        done.append(dataclasses.replace(probe(recipe, 1.0), cost=cost))
    assert [p.recipe.optimizer for p in done] == ["adamw", "sgd"]
    assert plan.merge_cost() + sum(p.cost for p in done) <= plan.budget


def test_where_only_one_probe_is_affordable_it_is_of_adamw_and_as_long_as_the_budget_allows():
    plan = lean_design(48 + 3 * 48 + 12 * 24)
    recipe = next_probe(plan, [], WEIGHTS, spent=plan.merge_cost())
    assert recipe is not None
    assert (recipe.optimizer, recipe.steps) == ("adamw", 12)
    assert plan.merge_cost() + plan.cost(recipe, first=True) == pytest.approx(plan.budget)


def test_a_lean_budget_still_measures_the_one_method_that_was_asked_for():
    plan = lean_design(900.0)
    only = design_probes(
        constants(),
        rates=dict(plan.rates),
        batch_range=(8, 64),
        max_steps=640,
        budget=900.0,
        validation_samples=100,
        methods=("ties",),
    )
    assert only.is_lean
    recipe = next_probe(only, [], WEIGHTS, spent=0)
    assert recipe is not None
    points: list = []
    while (point := only.next_merge(recipe, points, number=0, first=True)) is not None:
        points.append((point, 0.1))
    assert [point.method for point, _ in points] == [LINEAR_METHOD] * 3 + ["ties"] * 2


def test_every_optimizer_gets_a_probe_where_the_budget_pays_for_the_shortest_ones():
    """A first probe of 8 steps takes 192 units and seven merges of 96; the first must not eat the second's share."""
    plan = lean_design(96 + 2 * (192 + 7 * 96) + 200)
    assert not plan.is_lean
    done: list[Probe] = []
    while (recipe := next_probe(plan, done, WEIGHTS, spent=plan.merge_cost() + sum(p.cost for p in done))) is not None:
        first = all(p.recipe.optimizer != recipe.optimizer for p in done)
        done.append(dataclasses.replace(probe(recipe, 1.0), cost=plan.cost(recipe, first=first)))
    assert {p.recipe.optimizer for p in done} == {"adamw", "sgd"}
    assert plan.merge_cost() + sum(p.cost for p in done) <= plan.budget


def test_a_budget_for_whole_probes_is_not_lean():
    assert not lean_design(20_000.0).is_lean


def test_a_probe_whose_merges_all_diverged_hurts():
    recipe = next_probe(design(), [], WEIGHTS, spent=0)
    assert recipe is not None
    good = probe(recipe, edge=1.0)
    merges = tuple(
        MergeObservation(
            plan=merge.plan,
            risks=dict.fromkeys(NAMES, math.inf),
            initial_risks=merge.initial_risks,
            num_samples=100,
            noise=dict.fromkeys(NAMES, 0.0),
        )
        for merge in good.merges
    )
    bad = Probe(recipe=recipe, traces=(), merges=merges, outcomes=good.outcomes, cost=1.0)
    assert bad.hurts(WEIGHTS)
    assert not good.hurts(WEIGHTS)
    assert good.gain(WEIGHTS) > 0
    assert np.isneginf(bad.gain(WEIGHTS))
