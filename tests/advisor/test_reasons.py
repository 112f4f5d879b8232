"""Reasons answer for the plan that is advised: nothing is said of a rate that enters no model."""

import dataclasses
import re

import pytest

from advisor.goal import Goal
from advisor.plan import Plan
from advisor.reasons import give_reasons
from advisor.risk_model import RiskModel
from advisor.what_if import WhatIf, with_coefficients
from estimators.recipe import Recipe
from tests.advisor.quadratic_merges import QuadraticWorld


@pytest.fixture(scope="module")
def world() -> QuadraticWorld:
    return QuadraticWorld.drawn()


@pytest.fixture(scope="module")
def ask(world: QuadraticWorld) -> WhatIf:
    return WhatIf(model=RiskModel(seed=0).fit(world.probes()), goal=Goal(weights=dict.fromkeys(world.names, 1.0)))


def reasons(ask: WhatIf, world: QuadraticWorld, plan: Plan) -> tuple[str, ...]:
    return give_reasons(
        plan,
        ask,
        goal=ask.goals([plan])[0],
        edges={},
        turning_point=None,
        steps_range=(20, 320),
        num_samples=world.constants().num_samples,
        other_optimizers={"adamw": ask.goals([plan])[0]},
    )


@pytest.fixture
def plan(world: QuadraticWorld) -> Plan:
    return Plan.uniform(world.names, Recipe(learning_rate=0.01, batch_size=8, steps=80), 1 / 3)


def test_a_plan_that_merges_nothing_says_so_and_nothing_of_its_recipe(ask, world, plan):
    said = reasons(ask, world, with_coefficients(plan, 0.0))
    assert said[0].startswith("Coefficients 0: no merge was found")
    initial = ask.goals([with_coefficients(plan, 0.0)])[0].value
    average = ask.goals([with_coefficients(plan, 1 / 3)])[0].value
    assert f"{initial:.3f}" in said[0]
    assert f"{average:.3f}" in said[0]
    for word in ("Learning rate", "Batch size", "Steps", "Data:"):
        assert not any(sentence.startswith(word) for sentence in said), word


def test_a_plan_with_a_real_gain_begins_with_its_recipe(ask, world, plan):
    assert ask.gain(plan).value > 0.05 * ask.goals([plan])[0].value
    assert reasons(ask, world, plan)[0].startswith("Learning rate 0.01")


def test_a_gain_that_is_not_worth_training_for_is_said_first(ask, world, plan):
    small = with_coefficients(plan, 1e-4)
    first = reasons(ask, world, small)[0]
    assert first.startswith("Gain 0.0")
    assert "not worth training for" in first
    value, initial = (float(number) for number in re.findall(r"at (\d+\.\d+)", first))
    assert value == pytest.approx(ask.goals([small])[0].value, abs=1e-3)
    assert initial == pytest.approx(ask.goals([with_coefficients(plan, 0.0)])[0].value, abs=1e-3)


def test_recipes_of_experts_that_are_left_out_are_not_explained(ask, world, plan):
    first = world.names[0]
    odd = dataclasses.replace(
        plan,
        recipes={**plan.recipes, first: plan.recipes[first].replace(learning_rate=0.09, steps=300)},
        coefficients={**plan.coefficients, first: 0.0},
    )
    said = "\n".join(reasons(ask, world, odd))
    assert "Learning rate 0.01:" in said
    assert "Steps 80:" in said
    assert "0.09" not in said.split("predicted goal risk")[0]
