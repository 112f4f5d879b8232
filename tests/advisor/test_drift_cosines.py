"""Cosines of drifts from Gram matrices made of known drifts and noise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from advisor.displacement_law import DisplacementLaw
from advisor.drift_cosines import drift_cosines
from advisor.exposure import Exposure, TaskScales
from advisor.observations import MergeObservation
from advisor.plan import Plan, PlanTable
from estimators.recipe import Recipe
from tests.advisor.quadratic_merges import QuadraticWorld

WORLD = QuadraticWorld.drawn()
SCALES = TaskScales.from_constants(WORLD.constants())
SAMPLES = WORLD.constants().num_samples
LAW = DisplacementLaw.prior(3)
TRUTH = np.array([[1.0, 0.6, -0.3], [0.6, 1.0, 0.0], [-0.3, 0.0, 1.0]])


def merge_with_gram(rate: float, seed: int, cosines: np.ndarray, noise: float = 0.0) -> MergeObservation:
    plan = Plan.uniform(WORLD.names, Recipe(learning_rate=rate, batch_size=64, steps=40), 1.0)
    v, u2 = LAW.parts(Exposure.of(PlanTable.from_plans([plan], SAMPLES), SCALES), SCALES)
    u = np.sqrt(u2[0])
    gram = np.outer(u, u) * cosines + np.diag(v[0])
    wobble = np.random.default_rng(seed).standard_normal((3, 3))
    gram += noise * np.outer(u, u) * (wobble + wobble.T) * (1 - np.eye(3))
    return dataclasses.replace(WORLD.observe(plan, seed), displacement_gram=tuple(map(tuple, gram.tolist())))


def test_many_exact_gram_matrices_give_the_true_cosines() -> None:
    merges = [merge_with_gram(0.02, seed, TRUTH) for seed in range(60)]
    np.testing.assert_allclose(drift_cosines(merges, LAW, SCALES, SAMPLES), TRUTH, atol=0.05)


def test_without_gram_matrices_they_are_the_gradients_cosines() -> None:
    merges = [WORLD.observe(Plan.uniform(WORLD.names, Recipe(learning_rate=0.01, batch_size=8, steps=9), 1.0))]
    np.testing.assert_allclose(drift_cosines(merges, LAW, SCALES, SAMPLES), SCALES.gradient_cosine, atol=1e-9)


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
    np.testing.assert_allclose(np.diag(cosines), 1.0)
