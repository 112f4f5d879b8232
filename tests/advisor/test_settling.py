"""Probing stops when the last probes did not change the advice, and not before every optimizer was probed."""

from __future__ import annotations

import dataclasses

import numpy as np

from advisor.goal import Goal
from advisor.probing import Probe, design_probes
from advisor.project_search import SearchSettings
from advisor.settling import LEAST_GAIN, TOLERANCE, UNCHANGED, Settling, coarse_plans, is_settled
from estimators.recipe import Recipe
from tests.advisor.quadratic_merges import QuadraticWorld

WORLD = QuadraticWorld.drawn()
SEARCH = SearchSettings(
    learning_rate={"sgd": (1e-3, 1e-1)}, batch_size=(8, 64), steps=(20, 640), schedule=("constant", "warmup_cosine")
)
BOTH = SEARCH.model_copy(update={"learning_rate": {"sgd": (1e-3, 1e-1), "adamw": (1e-5, 1e-3)}})
GOAL = Goal(weights=dict.fromkeys(WORLD.names, 1.0))


def settling(search: SearchSettings = SEARCH, goal: Goal = GOAL) -> Settling:
    constants = WORLD.constants()
    design = design_probes(
        constants,
        rates=dict(search.learning_rate),
        batch_range=search.batch_size,
        max_steps=search.steps[1],
        budget=1e6,
        validation_samples=100,
    )
    return Settling(design, search, constants, goal)


def probe(rate: float, steps: int = 40) -> Probe:
    data = WORLD.probes(rates=(rate,), steps=steps)
    recipe = Recipe(learning_rate=rate, batch_size=8, steps=steps)
    return Probe(recipe=recipe, traces=data.traces, merges=data.merges, outcomes={}, cost=1.0)


def test_probes_that_repeat_what_is_known_settle_the_advice() -> None:
    again = [
        dataclasses.replace(one, merges=tuple(dataclasses.replace(merge, seed=number) for merge in one.merges))
        for number, one in enumerate([probe(0.02)] * 8)
    ]
    asked = settling()
    answers = [asked(again[:count]) for count in range(1, 9)]
    assert answers[:UNCHANGED] == [False] * UNCHANGED
    assert answers[-1]


def test_a_probe_that_changes_the_advice_unsettles_it() -> None:
    """Two probes at a tiny rate know nothing of the useful rates: the advice moves when one is probed."""
    assert not settling()([probe(0.001, steps=20), probe(0.0015, steps=20), probe(0.03, steps=160)])


def test_nothing_is_settled_before_every_optimizer_was_probed() -> None:
    ask, probes = settling(BOTH), [probe(0.02), probe(0.02), probe(0.02), probe(0.02)]
    assert not ask(probes)


def test_probes_that_cannot_be_fitted_settle_nothing() -> None:
    empty = [dataclasses.replace(probe(0.02), merges=()) for _ in range(4)]
    assert not settling()(empty)


def test_the_same_probes_are_decided_the_same_by_another_session() -> None:
    probes = [probe(0.01), probe(0.03), probe(0.02), probe(0.025)]
    first = settling()
    grown = [first(probes[:count]) for count in range(1, 5)]
    assert [settling()(probes[:count]) for count in range(1, 5)] == grown


def test_the_grid_lies_in_the_search_space_and_names_every_schedule() -> None:
    ask = settling(BOTH)
    plans = coarse_plans(BOTH, WORLD.constants(), ask.design)
    assert set(plans) == {"sgd", "adamw"}
    for optimizer, group in plans.items():
        low, high = BOTH.learning_rate[optimizer]
        recipes = [next(iter(plan.recipes.values())) for plan in group]
        assert {recipe.schedule for recipe in recipes} == set(BOTH.schedule)
        assert all(low * 0.999 <= recipe.learning_rate <= high * 1.001 for recipe in recipes)
        assert all(8 <= recipe.batch_size <= 64 and 20 <= recipe.steps <= 640 for recipe in recipes)
        assert max(recipe.steps for recipe in recipes) == 640


def test_a_difference_within_the_tolerance_counts_as_none() -> None:
    now = np.array([0.8, 0.8 + 0.9 * TOLERANCE * 0.2, 0.8 + 1.1 * TOLERANCE * 0.2])
    chose = np.eye(3) * -1.0 + 1.0  # row k has its least at k
    assert is_settled(now, [chose[0], chose[1]], 1.0)
    assert not is_settled(now, [chose[0], chose[2]], 1.0)


def test_a_gain_of_nothing_is_measured_against_the_least_gain() -> None:
    now = np.array([1.0, 1.0 + 0.9 * TOLERANCE * LEAST_GAIN, 1.0 + 1.1 * TOLERANCE * LEAST_GAIN])
    chose = np.eye(3) * -1.0 + 1.0
    assert is_settled(now, [chose[1]] * UNCHANGED, 1.0)
    assert not is_settled(now, [chose[2]] * UNCHANGED, 1.0)
