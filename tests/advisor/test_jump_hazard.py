"""Where the edge is thought to lie after runs that jumped and runs that did not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from advisor.displacement_law import DisplacementLaw
from advisor.exposure import Exposure, TaskScales
from advisor.jump_hazard import COST, EDGE_MEAN, EDGE_SPREAD, RUN_SPREAD, JumpHazard, beyond
from advisor.observations import DisplacementTrace, ProbeData
from advisor.plan import Plan, PlanTable
from advisor.risk_form import CALMED
from advisor.risk_model import RiskModel
from estimators.recipe import Recipe
from tests.advisor.quadratic_merges import QuadraticWorld

WORLD = QuadraticWorld.drawn()
SCALES = TaskScales.from_constants(WORLD.constants())


def exposure(coefficient: float = 0.25, **changes: object) -> Exposure:
    recipe = Recipe(learning_rate=0.01, batch_size=16, steps=40).replace(**changes)
    table = PlanTable.from_plans([Plan.uniform(WORLD.names, recipe, coefficient)], WORLD.constants().num_samples)
    return Exposure.of(table, SCALES)


def trace(rate: float, *, jumped: bool, optimizer: str = "sgd") -> DisplacementTrace:
    """A run of the first task that moved as the law expects, or a hundred times as far."""
    walk, drift = DisplacementLaw.prior(len(WORLD.names)).parts(exposure(learning_rate=rate, steps=20), SCALES)
    moved = float(walk[0, 0] + drift[0, 0]) * (1e4 if jumped else 1.0)
    recipe = Recipe(learning_rate=rate, batch_size=16, steps=20, optimizer=optimizer)
    return DisplacementTrace(
        task=WORLD.names[0], recipe=recipe, seed=0, steps=[20], squared_displacements=[moved], losses=[1.0]
    )


def hazard(*traces: DisplacementTrace) -> JumpHazard:
    return JumpHazard.fit(ProbeData(constants=WORLD.constants(), merges=(), traces=traces), SCALES)


def test_without_runs_the_edge_is_the_prior() -> None:
    found = hazard()
    assert found.mean == pytest.approx(EDGE_MEAN, abs=1e-9)
    assert found.spread == pytest.approx(EDGE_SPREAD, rel=1e-2)


@pytest.mark.parametrize("jumped", [True, False])
def test_one_run_moves_the_edge_as_the_integral_says(jumped: bool) -> None:
    rate = 0.02
    place = float(beyond(exposure(learning_rate=rate), SCALES)[0, 0])

    def posterior(edge: float) -> float:
        chance = norm.cdf((place - edge) / RUN_SPREAD)
        return norm.pdf(edge, EDGE_MEAN, EDGE_SPREAD) * (chance if jumped else 1 - chance)

    ends = (EDGE_MEAN - 6 * EDGE_SPREAD, EDGE_MEAN + 6 * EDGE_SPREAD)
    total = quad(posterior, *ends)[0]
    mean = quad(lambda edge: edge * posterior(edge), *ends)[0] / total
    found = hazard(trace(rate, jumped=jumped))
    assert found.mean == pytest.approx(mean, abs=1e-3)
    assert (found.runs, found.jumps) == (1, int(jumped))


def test_the_edge_ends_between_the_last_calm_and_the_first_wild_rate() -> None:
    calm = [trace(rate, jumped=False) for rate in (0.001, 0.003)]
    wild = [trace(rate, jumped=True) for rate in (0.03, 0.1)]
    found = hazard(*calm, *wild)
    chances = [float(found.chance(exposure(learning_rate=rate), SCALES)[0, 0]) for rate in (0.001, 0.01, 0.1)]
    assert chances[0] < 0.1 < chances[1] < 0.9 < chances[2]


def test_adamw_runs_do_not_jump_and_say_nothing_of_the_edge() -> None:
    assert hazard(trace(10.0, jumped=True, optimizer="adamw")).runs == 0
    added = JumpHazard().mean_at(exposure(learning_rate=10.0, optimizer="adamw"), SCALES)
    assert added[0] == 0


def test_a_jump_is_charged_once_and_only_to_the_experts_that_are_merged() -> None:
    hazard_of_all = JumpHazard(mean=-50.0, spread=0.1)  # every run jumps
    chance, cost = hazard_of_all.at(exposure(0.5), SCALES)
    assert chance[0] == pytest.approx(1.0)
    assert cost[0] == pytest.approx(np.log1p(COST * 0.5 * len(WORLD.names)))
    assert hazard_of_all.mean_at(exposure(0.5), SCALES)[0] == pytest.approx(cost[0])
    assert hazard_of_all.mean_at(exposure(0.0), SCALES)[0] == 0


def test_the_risk_model_never_prefers_a_rate_above_one_whose_runs_all_jumped() -> None:
    probes = WORLD.probes()
    highest = max(trace.recipe.learning_rate for trace in probes.traces)
    wild = tuple(
        dataclasses.replace(trace, squared_displacements=trace.squared_displacements * 1e4)
        if trace.recipe.learning_rate == highest
        else trace
        for trace in probes.traces
    )
    model = RiskModel().fit(dataclasses.replace(probes, traces=wild))
    rates = highest * np.array([1.0, 2.0, 4.0, 8.0, 32.0])
    plans = [Plan.uniform(WORLD.names, Recipe(learning_rate=r, batch_size=8, steps=80), 0.3) for r in rates]
    assert np.all(model.predict(plans).goal > model.predict(plans[:1]).initial_risk.mean() * 0.98)


def test_json_round_trip() -> None:
    found = hazard(trace(0.02, jumped=True))
    assert JumpHazard.from_json(found.to_json()) == found


def test_a_falling_rate_calms_jumps() -> None:
    found, fast = hazard(), {"learning_rate": 1.0}
    constant, _ = found.at(exposure(**fast), SCALES)
    falling, _ = found.at(exposure(**fast, schedule="warmup_cosine"), SCALES)
    np.testing.assert_allclose(falling, CALMED * constant)
    assert constant[0] > 0.5
