"""The effective form: limits that are known, monotonicity, and its agreement with itself over parameter sets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from advisor.displacement_law import DisplacementLaw
from advisor.exposure import Exposure, TaskScales
from advisor.plan import FloatArray, Plan, PlanTable
from advisor.risk_form import (
    KINDS,
    TERMS,
    Moves,
    cooling,
    edge_excess,
    natural_parameters,
    saturate,
    task_risk,
    unpack,
)
from estimators.recipe import Recipe
from tests.advisor.quadratic_merges import QuadraticWorld

WORLD = QuadraticWorld.drawn()
SCALES = TaskScales.from_constants(WORLD.constants())
ZERO = np.zeros((len(KINDS), 4))


def moves_of(*plans: Plan) -> Moves:
    exposure = Exposure.of(PlanTable.from_plans(plans, WORLD.constants().num_samples), SCALES)
    v, u2 = DisplacementLaw.prior(3).parts(exposure, SCALES)
    return Moves(
        exposure=exposure,
        linear=exposure.coefficients,
        square=exposure.coefficients,
        drift=np.sqrt(u2),
        walk=v,
        luck=np.zeros(len(v)),
    )


def risk_of(*plans: Plan, theta: FloatArray = ZERO, cosines: FloatArray | None = None) -> FloatArray:
    return task_risk(
        {0: unpack(theta, 0), 1: unpack(theta, 1)},
        moves_of(*plans),
        SCALES,
        SCALES.gradient_cosine if cosines is None else cosines,
    )[0]


def plan(coefficient: float = 0.3, **changes: object) -> Plan:
    recipe = Recipe(learning_rate=0.005, batch_size=16, steps=100).replace(**changes)
    return Plan.uniform(WORLD.names, recipe, coefficient)


def test_small_moves_lower_the_risk_by_slope_times_gradient_times_drift() -> None:
    lone = Plan(recipes={"a": Recipe(learning_rate=1e-6, batch_size=10**6, steps=10)}, coefficients={"a": 1.0})
    slope = np.exp(unpack(ZERO, 0)[KINDS.index("slope"), 0])
    _, terms = task_risk({0: unpack(ZERO, 0)}, moves_of(lone), SCALES, SCALES.gradient_cosine)
    drift = moves_of(lone).drift[0, 0]
    assert -terms["progress"][0, 0] == pytest.approx(slope * SCALES.gradient_norm[0] * drift, rel=0.02)


def test_uphill_pull_is_linear_and_gains_never_exceed_all() -> None:
    tail = np.array([0.7])
    assert saturate(np.array([-3.0]), tail)[0] == -3.0
    assert saturate(np.array([1e12]), tail)[0] <= 1.0
    grid = saturate(np.linspace(-1, 5, 200), tail)
    assert np.all(np.diff(grid) > 0)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
def test_far_coefficients_hurt_more_and_more(optimizer: str) -> None:
    plans = [plan(c, optimizer=optimizer) for c in (2.0, 4.0, 8.0, 16.0)]
    assert np.all(np.diff(risk_of(*plans), axis=0) > 0)


def test_more_samples_never_hurt() -> None:
    risks = [risk_of(plan(num_samples=n)) for n in (50, 500, 5000)]
    assert np.all(risks[0] > risks[1])
    assert np.all(risks[1] > risks[2])


def test_larger_batches_have_less_noise() -> None:
    _, small = task_risk({0: unpack(ZERO, 0)}, moves_of(plan(batch_size=2)), SCALES, SCALES.gradient_cosine)
    _, large = task_risk({0: unpack(ZERO, 0)}, moves_of(plan(batch_size=64)), SCALES, SCALES.gradient_cosine)
    assert np.all(large["noise"] < small["noise"])


def test_agreeing_tasks_help_and_opposed_tasks_hurt() -> None:
    apart = risk_of(plan(), cosines=np.eye(3))
    agreeing = risk_of(plan(), cosines=np.full((3, 3), 0.1) + 0.9 * np.eye(3))
    opposed = risk_of(plan(), cosines=np.full((3, 3), -0.1) + 1.1 * np.eye(3))
    assert np.all(agreeing < apart)
    assert np.all(opposed > apart)


def test_the_edge_is_two_over_the_curvature_of_the_batch() -> None:
    p = natural_parameters(unpack(ZERO, 0), SCALES)
    curvature = SCALES.curvature[0] * (1 + p["sample_edge"][0] / 16) * p["edge"][0]
    exposure = moves_of(plan(learning_rate=float(20 / curvature)), plan(learning_rate=float(0.2 / curvature))).exposure
    far, near = edge_excess(p, exposure, SCALES)[:, 0]
    assert far == pytest.approx(81.0, rel=1e-6)  # (20/2 - 1)^2
    assert near < 0.01


def test_terms_have_fixed_names_and_add_up() -> None:
    risk, terms = task_risk({0: unpack(ZERO, 0)}, moves_of(plan()), SCALES, SCALES.gradient_cosine)
    assert tuple(terms) == TERMS
    np.testing.assert_allclose(SCALES.initial_risk + sum(terms.values()), risk)


def test_several_parameter_sets_at_once_equal_one_after_another() -> None:
    theta = np.random.default_rng(0).standard_normal((5, len(KINDS), 4))
    moves = moves_of(plan(), plan(1.0, learning_rate=0.05), plan(2.0, batch_size=2))
    together = task_risk({0: unpack(theta, 0)}, moves, SCALES, SCALES.gradient_cosine)[0]
    for s in range(5):
        alone = task_risk({0: unpack(theta[s], 0)}, moves, SCALES, SCALES.gradient_cosine)[0]
        np.testing.assert_allclose(together[s], alone, rtol=1e-12)


def test_a_task_has_only_its_own_and_the_shared_parameters() -> None:
    """What the fit's Jacobian rests on."""
    bumped = ZERO.copy()
    bumped[:, 2] = 0.5
    changed = risk_of(plan(), theta=bumped) - risk_of(plan())
    assert changed[0, 1] != 0
    # Parameters that tasks share are read from the first task, whose own deviations are nearly pinned.
    np.testing.assert_allclose(changed[0, [0, 2]], 0.0, atol=1e-12)


def test_experts_of_two_families_are_each_judged_by_their_own() -> None:
    sgd = Recipe(learning_rate=0.005, batch_size=16, steps=100)
    adamw = Recipe(learning_rate=1e-4, batch_size=16, steps=100, optimizer="adamw")
    mixed = Plan(recipes={"a": sgd, "b": adamw, "c": sgd}, coefficients=dict.fromkeys("abc", 0.3))
    only = Plan(recipes={"a": sgd, "c": sgd}, coefficients=dict.fromkeys("ac", 0.3))
    lone = dataclasses.replace(mixed, coefficients={"a": 0.3, "b": 0.0, "c": 0.3})
    np.testing.assert_allclose(risk_of(lone), risk_of(only), rtol=1e-12)
    barely = dataclasses.replace(mixed, coefficients={"a": 0.3, "b": 1e-6, "c": 0.3})
    assert risk_of(mixed)[0, 1] < risk_of(barely)[0, 1]


def test_the_unit_of_length_changes_no_prediction() -> None:
    """Weights measured in units c times smaller: G / c, L / c^2, sigma^2 / c^2, and rates c^2 times larger."""
    c = 7.0
    scales = dataclasses.replace(
        SCALES,
        gradient_norm=SCALES.gradient_norm / c,
        gradient_variance=SCALES.gradient_variance / c**2,
        curvature=SCALES.curvature / c**2,
    )
    table = PlanTable.from_plans([plan(learning_rate=0.005 * c**2)], WORLD.constants().num_samples)
    exposure = Exposure.of(table, scales)
    moves = moves_of(plan())
    scaled = dataclasses.replace(moves, exposure=exposure, drift=moves.drift * c, walk=moves.walk * c**2)
    values = {0: unpack(ZERO, 0)}
    risk, terms = task_risk(values, scaled, scales, scales.gradient_cosine)
    expected, parts = task_risk(values, moves, SCALES, SCALES.gradient_cosine)
    np.testing.assert_allclose(risk, expected, rtol=1e-10)
    np.testing.assert_allclose(terms["noise"], parts["noise"], rtol=1e-10)


def test_luck_multiplies_interference_and_leaves_progress() -> None:
    moves = moves_of(plan())
    values = {0: unpack(ZERO, 0)}
    _, calm = task_risk(values, moves, SCALES, SCALES.gradient_cosine)
    _, unlucky = task_risk(values, dataclasses.replace(moves, luck=np.log([3.0])), SCALES, SCALES.gradient_cosine)
    assert np.all(unlucky["noise"] > 2.5 * calm["noise"])
    np.testing.assert_allclose(unlucky["progress"], calm["progress"], rtol=1e-3)


def relaxed(turns: float, rates: np.ndarray) -> float:
    """Variance of an Ornstein-Uhlenbeck process at a run's end, over its value at a constant peak rate's equilibrium.

    dV/dk = -2 s eta_k V + 2 s eta_k^2 c, exactly a step at a time, averaged over exponential curvatures s.
    """
    share = rates / rates.sum()
    nodes, weights = np.polynomial.laguerre.laggauss(60)
    variance = np.zeros_like(nodes)
    for rate, step in zip(rates, share, strict=True):
        decay = np.exp(-turns * nodes * step)
        variance = variance * decay + rate * (1 - decay)
    return float(weights @ variance)


@pytest.mark.parametrize("turns", [0.1, 1.0, 10.0, 30.0])
def test_a_falling_rate_cools_noise_as_the_relaxing_process_does(turns: float) -> None:
    t = (np.arange(4000) + 0.5) / 4000
    falling = 0.5 * (1 + np.cos(np.pi * t))
    ratio = relaxed(turns, falling) / relaxed(turns, np.ones(4000))
    assert float(cooling(np.array(turns))) == pytest.approx(ratio, rel=0.05)


def test_a_falling_rate_leaves_less_noise_and_less_beyond_the_edge() -> None:
    for name, rate in (("noise", 0.01), ("collapse", 1.0)):
        constant = moves_of(plan(learning_rate=rate, steps=100))
        falls = np.ones_like(constant.exposure.falls)
        falling = dataclasses.replace(constant, exposure=dataclasses.replace(constant.exposure, falls=falls))
        _, terms = task_risk({0: unpack(ZERO, 0)}, constant, SCALES, SCALES.gradient_cosine)
        _, cooled = task_risk({0: unpack(ZERO, 0)}, falling, SCALES, SCALES.gradient_cosine)
        assert (cooled[name] < 0.75 * terms[name]).all()


def test_each_family_has_its_own_cosines() -> None:
    """Only the cosines of the experts' own family count."""
    moves = moves_of(plan())
    own = SCALES.gradient_cosine
    alike, apart = np.stack([own, np.ones_like(own)]), np.stack([own, np.eye(len(own))])
    first, second = (task_risk({0: unpack(ZERO, 0)}, moves, SCALES, cosines)[0] for cosines in (alike, apart))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, task_risk({0: unpack(ZERO, 0)}, moves, SCALES, own)[0])
    other = np.stack([np.eye(len(own)), own])
    assert (task_risk({0: unpack(ZERO, 0)}, moves, SCALES, other)[0] != first).any()
