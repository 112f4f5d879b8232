"""Cosines of drifts from Gram matrices made of known drifts and noise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from advisor.displacement_law import DisplacementLaw
from advisor.drift_cosines import ALIGNED, NOISE_DIMENSIONS, OTHER_FAMILY, PRIOR_WIDTH, drift_cosines
from advisor.exposure import Exposure, TaskScales
from advisor.observations import MergeObservation
from advisor.plan import Plan, PlanTable
from advisor.risk_form import family_index
from estimators.recipe import Recipe
from tests.advisor.quadratic_merges import QuadraticWorld

WORLD = QuadraticWorld.drawn()
SCALES = TaskScales.from_constants(WORLD.constants())
SAMPLES = WORLD.constants().num_samples
LAW = DisplacementLaw.prior(3)
TRUTH = np.array([[1.0, 0.6, -0.3], [0.6, 1.0, 0.0], [-0.3, 0.0, 1.0]])


def merge_with_gram(
    rate: float, seed: int, cosines: np.ndarray, noise: float = 0.0, *, optimizer: str = "sgd", steps: int = 40
) -> MergeObservation:
    recipe = Recipe(learning_rate=rate, batch_size=64, steps=steps, optimizer=optimizer)
    plan = Plan.uniform(WORLD.names, recipe, 1.0)
    v, u2 = LAW.parts(Exposure.of(PlanTable.from_plans([plan], SAMPLES), SCALES), SCALES)
    u = np.sqrt(u2[0])
    gram = np.outer(u, u) * cosines + np.diag(v[0])
    wobble = np.random.default_rng(seed).standard_normal((3, 3))
    gram += noise * np.outer(u, u) * (wobble + wobble.T) * (1 - np.eye(3))
    return dataclasses.replace(WORLD.observe(plan, seed), displacement_gram=tuple(map(tuple, gram.tolist())))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_many_exact_gram_matrices_give_the_true_cosines(optimizer: str) -> None:
    family = family_index(optimizer)
    merges = [merge_with_gram(0.02, seed, TRUTH, optimizer=optimizer, steps=4000) for seed in range(60)]
    np.testing.assert_allclose(drift_cosines(merges, LAW, SCALES, SAMPLES)[family], TRUTH, atol=0.05)


def test_without_gram_matrices_they_follow_from_the_gradients() -> None:
    merges = [WORLD.observe(Plan.uniform(WORLD.names, Recipe(learning_rate=0.01, batch_size=8, steps=9), 1.0))]
    expected = ALIGNED * SCALES.gradient_cosine
    np.fill_diagonal(expected, 1.0)
    for family in drift_cosines(merges, LAW, SCALES, SAMPLES):
        np.testing.assert_allclose(family, expected, atol=1e-9)


def test_one_gram_matrix_is_weighed_as_the_formula_says() -> None:
    """One probe of SGD by hand; AdamW's cosines learn half as much from it."""
    one = merge_with_gram(0.02, 0, TRUTH)
    u = np.sqrt(LAW.parts(Exposure.of(PlanTable.from_plans([one.plan], SAMPLES), SCALES), SCALES)[1][0])
    gram = np.array(one.displacement_gram)
    weight = NOISE_DIMENSIONS[0] * (u[0] * u[1]) ** 2 / (gram[0, 0] * gram[1, 1])
    prior = ALIGNED * SCALES.gradient_cosine[0, 1]
    found = drift_cosines([one], LAW, SCALES, SAMPLES)[:, 0, 1]
    for value, seen in zip(found, (weight, weight * OTHER_FAMILY), strict=True):
        expected = (seen * gram[0, 1] / (u[0] * u[1]) + prior / PRIOR_WIDTH**2) / (seen + 1 / PRIOR_WIDTH**2)
        assert value == pytest.approx(expected)


def test_mixed_families_say_nothing_of_each_other() -> None:
    """The drifts of an SGD and an AdamW expert are taken as orthogonal: their product is no measurement."""
    one = merge_with_gram(0.02, 0, TRUTH)
    recipes = dict(one.plan.recipes) | {"a": one.plan.recipes["a"].replace(optimizer="adamw", learning_rate=1e-4)}
    mixed = dataclasses.replace(one, plan=dataclasses.replace(one.plan, recipes=recipes))
    without = drift_cosines([], LAW, SCALES, SAMPLES)
    found = drift_cosines([mixed], LAW, SCALES, SAMPLES)
    np.testing.assert_allclose(found[:, 0, 1:], without[:, 0, 1:])
    assert found[0, 1, 2] != without[0, 1, 2]


def test_merges_of_the_same_experts_count_once() -> None:
    one = merge_with_gram(0.02, 0, TRUTH)
    other = dataclasses.replace(one, plan=Plan.uniform(WORLD.names, one.plan.recipes["a"], 0.3))
    np.testing.assert_array_equal(
        drift_cosines([one], LAW, SCALES, SAMPLES), drift_cosines([one, other], LAW, SCALES, SAMPLES)
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_noise_never_makes_impossible_cosines(seed: int) -> None:
    cosines = drift_cosines([merge_with_gram(0.02, seed, TRUTH, noise=5.0)], LAW, SCALES, SAMPLES)
    assert np.linalg.eigvalsh(cosines).min() > -1e-9
    np.testing.assert_allclose(np.diagonal(cosines, axis1=1, axis2=2), 1.0)
