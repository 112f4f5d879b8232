"""Distance beyond the probes and the ends of intervals."""

from __future__ import annotations

import numpy as np
import pytest

from advisor.exposure import Exposure, TaskScales
from advisor.plan import Plan, PlanTable
from advisor.risk_prediction import SCATTER, SCATTER_GROWTH, distance_beyond, interval, jump_quantile, probed_ranges
from estimators.recipe import Recipe
from tests.advisor.quadratic_merges import QuadraticWorld

WORLD = QuadraticWorld.drawn()
SCALES = TaskScales.from_constants(WORLD.constants())


def exposure(coefficient: float = 1.0, **changes: object) -> Exposure:
    recipe = Recipe(learning_rate=0.01, batch_size=16, steps=40).replace(**changes)
    table = PlanTable.from_plans([Plan.uniform(WORLD.names, recipe, coefficient)], WORLD.constants().num_samples)
    return Exposure.of(table, SCALES)


RANGES = probed_ranges([exposure(), exposure(2.0, learning_rate=0.03, steps=10)])


def test_probed_plans_and_small_coefficients_are_inside() -> None:
    assert distance_beyond(exposure(), RANGES)[0] == 0
    assert distance_beyond(exposure(0.01, learning_rate=0.02, steps=20), RANGES)[0] == 0


@pytest.mark.parametrize(
    ("changes", "distance"),
    [
        ({"steps": 160}, np.log(4)),
        ({"learning_rate": 0.3}, np.log(10)),
        ({"learning_rate": 0.001}, np.log(10)),
        ({"batch_size": 32}, np.log(2)),
        ({"steps": 160, "batch_size": 64}, np.hypot(np.log(4), np.log(4))),
    ],
)
def test_distance_is_in_log_units(changes: dict[str, object], distance: float) -> None:
    assert distance_beyond(exposure(**changes), RANGES)[0] == pytest.approx(distance)


def test_large_coefficients_are_beyond() -> None:
    assert distance_beyond(exposure(6.0), RANGES)[0] == pytest.approx(np.log(3))


def test_an_interval_without_parameter_spread_is_the_scatter_of_the_form() -> None:
    centre = np.array([0.5])
    low, high = interval(np.full((8, 1), 0.5), centre, np.array([0.6]), np.array([2.0]), 0.9)
    half = 1.6448536 * (SCATTER + 2 * SCATTER_GROWTH)
    assert high[0] == pytest.approx(0.5 * np.exp(half))
    assert low[0] == pytest.approx(0.5 * np.exp(-half))


def test_parameter_spread_and_collapse_widen_an_interval() -> None:
    centre, inside = np.array([0.5]), np.array([0.0])
    calm = interval(np.full((8, 1), 0.5), centre, np.array([0.6]), inside, 0.9)
    spread = interval(0.5 * np.exp(np.array([[0.2], [-0.2]])), centre, np.array([0.6]), inside, 0.9)
    above = interval(np.full((8, 1), 0.5), centre, np.array([0.2]), inside, 0.9)
    assert spread[1][0] > calm[1][0]
    assert above[1][0] > calm[1][0]


def test_an_uncertain_start_widens_an_interval() -> None:
    arguments = (np.full((8, 1), 0.5), np.array([0.5]), np.array([0.6]), np.array([0.0]), 0.9)
    low, high = interval(*arguments, 0.1)
    half = 1.6448536 * np.hypot(0.1, SCATTER)
    assert high[0] == pytest.approx(0.5 * np.exp(half))
    assert low[0] == pytest.approx(0.5 * np.exp(-half))


def test_ends_with_a_possible_jump_are_those_of_drawn_runs() -> None:
    generator = np.random.default_rng(0)
    for chance in (0.02, 0.08, 0.4, 0.97):
        runs = 0.1 * generator.standard_normal(400_000) + 1.5 * (generator.random(400_000) < chance)
        for share in (0.05, 0.95):
            found = jump_quantile(share, np.array([0.1]), np.array([chance]), np.array([1.5]))[0]
            assert np.mean(runs < found) == pytest.approx(share, abs=0.002)


def test_a_jump_less_likely_than_the_tail_hardly_widens_an_interval_and_a_likelier_one_reaches_up_alone() -> None:
    arguments = (np.full((8, 1), 0.5), np.array([0.5]), np.array([0.6]), np.array([0.0]), 0.9, 0.1)
    calm = interval(*arguments)
    rare = interval(*arguments, jump=(np.array([0.01]), np.array([1.0])))
    likely = interval(*arguments, jump=(np.array([0.2]), np.array([1.0])))
    assert rare[1][0] / calm[1][0] == pytest.approx(1.0, abs=0.02)
    assert likely[1][0] == pytest.approx(0.5 * np.exp(0.8), rel=0.1)
    assert likely[0][0] == pytest.approx(calm[0][0] * np.exp(-0.2), rel=0.03)  # below calm runs' centre, not further
