"""The law of displacement: its closed limits, its recovery from its own data, and quadratics and AdamW as truth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from advisor.displacement_law import DisplacementLaw
from advisor.exposure import Exposure, TaskScales
from advisor.observations import DisplacementTrace, ProbeData
from advisor.plan import Plan, PlanTable
from estimators.recipe import Recipe
from tests.advisor.quadratic_merges import QuadraticWorld


@pytest.fixture(scope="module")
def world() -> QuadraticWorld:
    return QuadraticWorld.drawn()


def exposure_of(world: QuadraticWorld, recipe: Recipe) -> tuple[Exposure, TaskScales]:
    scales = TaskScales.from_constants(world.constants())
    table = PlanTable.from_plans([Plan.uniform(world.names, recipe, 1.0)], world.constants().num_samples)
    return Exposure.of(table, scales), scales


def test_first_steps_diffuse_as_a_free_walk_and_drift_along_the_gradient(world: QuadraticWorld) -> None:
    """With a1 = a2 = 1 (logs 0): v -> eta^2 K sigma^2 / b and u -> eta K G as T -> 0."""
    law = DisplacementLaw.prior(3)
    law.shared["gradient"][:2] = 0.0
    exposure, scales = exposure_of(world, Recipe(learning_rate=1e-7, batch_size=4, steps=10))
    v, u2 = law.parts(exposure, scales)
    np.testing.assert_allclose(v[0], 1e-14 * 10 * scales.gradient_variance / 4, rtol=1e-4)
    np.testing.assert_allclose(np.sqrt(u2[0]), 1e-6 * scales.gradient_norm, rtol=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
def test_displacement_grows_with_rate_and_steps(world: QuadraticWorld, optimizer: str) -> None:
    law = DisplacementLaw.prior(3)
    base = Recipe(learning_rate=1e-3, batch_size=8, steps=50, optimizer=optimizer)
    totals = [
        sum(law.parts(*exposure_of(world, recipe))).sum()
        for recipe in (base, base.replace(steps=100), base.replace(steps=100, learning_rate=2e-3))
    ]
    assert totals[0] < totals[1] < totals[2]


def test_without_probes_the_law_is_its_prior(world: QuadraticWorld) -> None:
    scales = TaskScales.from_constants(world.constants())
    law = DisplacementLaw.fit(ProbeData(constants=world.constants(), merges=()), scales)
    np.testing.assert_array_equal(law.shared["adaptive"], DisplacementLaw.prior(3).shared["adaptive"])


def test_traces_of_the_law_itself_are_predicted_far_beyond_them(world: QuadraticWorld) -> None:
    truth = DisplacementLaw.prior(3)
    truth.shared["gradient"][:] += np.array([0.2, -0.2, 0.3, 0.3, 0.3, 0.3])
    traces = []
    for rate in (0.003, 0.03):
        for batch in (4, 64):
            looks = np.array([1, 3, 10, 30, 80])
            values = []
            for k in looks:
                recipe = Recipe(learning_rate=rate, batch_size=batch, steps=int(k))
                exposure, scales = exposure_of(world, recipe)
                values.append(sum(truth.parts(exposure, scales))[0])
            for j, name in enumerate(world.names):
                recipe = Recipe(learning_rate=rate, batch_size=batch, steps=80)
                traces.append(
                    DisplacementTrace(
                        task=name,
                        recipe=recipe,
                        seed=0,
                        steps=looks,
                        squared_displacements=np.array(values)[:, j],
                        losses=np.ones(5),
                    )
                )
    probes = ProbeData(constants=world.constants(), merges=(), traces=tuple(traces))
    law = DisplacementLaw.fit(probes, scales)
    exposure, _ = exposure_of(world, Recipe(learning_rate=0.01, batch_size=16, steps=640))
    np.testing.assert_allclose(sum(law.parts(exposure, scales)), sum(truth.parts(exposure, scales)), rtol=0.15)


def test_a_diverged_trace_is_left_aside(world: QuadraticWorld) -> None:
    probes = world.probes(rates=(0.01,))
    trace = probes.traces[0]
    wild = dataclasses.replace(trace, seed=5, squared_displacements=np.full(len(trace.steps), np.inf))
    scales = TaskScales.from_constants(probes.constants)
    with_wild = DisplacementLaw.fit(probes.with_merges((), (wild,)), scales)
    np.testing.assert_array_equal(with_wild.shared["gradient"], DisplacementLaw.fit(probes, scales).shared["gradient"])


def test_json_round_trip(world: QuadraticWorld) -> None:
    law = DisplacementLaw.fit(world.probes(rates=(0.01,)), TaskScales.from_constants(world.constants()))
    copy = DisplacementLaw.from_json(law.to_json())
    for name in ("shared", "drift_factor", "diffusion_factor"):
        for family, values in getattr(law, name).items():
            np.testing.assert_array_equal(getattr(copy, name)[family], values)


def test_sign_like_steps_of_adamw_give_the_walk_of_its_first_steps(world: QuadraticWorld) -> None:
    """When noise rules every entry, AdamW's first steps have length eta in each of P coordinates: d^2 = eta^2 P K."""
    noisy = dataclasses.replace(world, noise=world.noise * 1e8)
    exposure, _ = exposure_of(noisy, Recipe(learning_rate=1e-4, batch_size=8, steps=6, optimizer="adamw"))
    # of a step's square at batch 8 the usual gradient, sigma^2/1250, takes its share; the rest is the walk
    noise = 1 / (1 + 8 / 1250)
    np.testing.assert_allclose(exposure.walk[0], 1e-8 * len(world.curvature) * 6 * noise, rtol=1e-3)
