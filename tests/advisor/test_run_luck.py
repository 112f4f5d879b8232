"""Luck of runs: what one probe says of its own recipe, of near ones and of far ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from advisor.exposure import Exposure, TaskScales
from advisor.observations import MergeObservation
from advisor.plan import Plan, PlanTable
from advisor.risk_model import RiskModel
from advisor.run_luck import OWN, SMOOTH, RunLuck, places_of
from estimators.recipe import Recipe
from tests.advisor.quadratic_merges import QuadraticWorld

WORLD = QuadraticWorld.drawn()
SCALES = TaskScales.from_constants(WORLD.constants())


def exposure(coefficient: float = 1.0, **changes: object) -> Exposure:
    recipe = Recipe(learning_rate=0.01, batch_size=16, steps=40).replace(**changes)
    table = PlanTable.from_plans([Plan.uniform(WORLD.names, recipe, coefficient)], WORLD.constants().num_samples)
    return Exposure.of(table, SCALES)


LUCK = RunLuck(places=places_of(exposure()), smooth=np.array([0.5]), own=np.array([1.0]))


def test_a_probe_knows_the_luck_of_its_own_recipe() -> None:
    mean, spread = LUCK.at(exposure())
    assert mean[0] == pytest.approx(1.5, abs=1e-4)
    assert spread[0] < 0.01


def test_other_coefficients_share_the_luck_and_far_recipes_do_not() -> None:
    assert LUCK.at(exposure(3.0))[0][0] == pytest.approx(1.5, abs=1e-4)
    mean, spread = LUCK.at(exposure(learning_rate=3e-5))
    assert mean[0] == pytest.approx(0.0, abs=1e-6)
    assert spread[0] == pytest.approx(np.hypot(SMOOTH, OWN), rel=1e-6)


def test_a_higher_rate_is_no_luckier_than_the_highest_probe_but_less_certain() -> None:
    mean, spread = LUCK.at(exposure(learning_rate=3.0))
    assert mean[0] == pytest.approx(LUCK.at(exposure())[0][0])
    assert spread[0] == pytest.approx(np.hypot(SMOOTH, OWN), rel=1e-6)


def test_near_recipes_share_the_smooth_part_alone() -> None:
    mean, _ = LUCK.at(exposure(learning_rate=0.005))
    assert 0.2 < mean[0] < 0.6


def test_two_probes_of_one_recipe_average_their_own_luck() -> None:
    twice = RunLuck(places=np.repeat(LUCK.places, 2, axis=0), smooth=np.zeros(2), own=np.array([1.0, 0.0]))
    assert twice.at(exposure())[0][0] == pytest.approx(0.5)


def test_json_round_trip() -> None:
    copy = RunLuck.from_json(LUCK.to_json())
    np.testing.assert_array_equal(copy.at(exposure(steps=80))[0], LUCK.at(exposure(steps=80))[0])


def test_one_run_that_jumped_changes_predictions_near_it_more_than_far_from_it() -> None:
    """The worst kind of outlier: a middling recipe whose merges are all thrown to five times their risk."""
    probes = WORLD.probes()

    def jump(merge: MergeObservation) -> MergeObservation:
        recipe = merge.plan.recipes["a"]
        if (recipe.learning_rate, recipe.batch_size) != (0.01, 8):
            return merge
        return dataclasses.replace(merge, risks={name: 5 * risk for name, risk in merge.risks.items()})

    jumped = dataclasses.replace(probes, merges=tuple(jump(merge) for merge in probes.merges))
    near = Plan.uniform(WORLD.names, Recipe(learning_rate=0.01, batch_size=8, steps=80), 0.5)
    far = Plan.uniform(WORLD.names, Recipe(learning_rate=0.003, batch_size=32, steps=80), 0.5)
    calm = RiskModel().fit(probes).predict([near, far]).goal
    wild = RiskModel().fit(jumped).predict([near, far]).goal
    change = np.log(wild / calm)
    assert change[0] > 0.3
    assert abs(change[1]) < 0.25 * change[0]
