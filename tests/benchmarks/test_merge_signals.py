"""Published signals against their definitions written out, and ceilings on made-up losses."""

import numpy as np
import pytest
import torch

from benchmarks.merge_signals import gradients, pair_signals
from benchmarks.mergeability import halves
from tests.advisor.logistic_merges import logistic_problem

NAMES = ("a", "b", "c")


def test_signals_of_a_subset_are_means_over_its_pairs():
    problem = logistic_problem(NAMES, seed=0)
    signals = pair_signals(problem, seed=0)
    vectors = problem.merges.vectors.double()
    found = signals.of((0, 2))
    assert found["distance"] == pytest.approx(float((vectors[0] - vectors[2]).norm()))
    assert found["minus cosine"] == pytest.approx(-float(torch.cosine_similarity(vectors[0], vectors[2], dim=0)))
    assert found["kinship"] == pytest.approx(-np.corrcoef(vectors[0], vectors[2])[0, 1])
    assert found["squared norms"] == pytest.approx(float(vectors[[0, 2]].square().sum()), rel=1e-5)
    three = signals.of((0, 1, 2))
    pairs = [signals.of(pair) for pair in ((0, 1), (0, 2), (1, 2))]
    for name in ("distance", "encoder gradient", "input gradient", "kinship", "gradient at x_0"):
        assert three[name] == pytest.approx(np.mean([pair[name] for pair in pairs]))


def test_gradients_are_those_of_ten_samples_at_the_merge():
    problem = logistic_problem(NAMES, seed=1)
    row = np.array([0.0, 1.0, 0.0])
    by_weights, by_images = gradients(problem, "b", row, seed=3)
    chosen = np.random.default_rng(3).permutation(60)[:10]
    split, head = problem.samples["b"], problem.heads["b"]

    def loss(weights, shift):
        backbone = problem.merges.backbone
        features = backbone.features(weights, split.inputs[chosen] + shift)
        logits = torch.nn.functional.linear(features, head.weight, head.bias)
        return float(torch.nn.functional.cross_entropy(logits.double(), split.labels[chosen]))

    weights, step = problem.merges.weights(row), 1e-2
    for k in (0, 7):
        moved = torch.zeros_like(weights)
        moved[k] = step
        slope = (loss(weights + moved, 0) - loss(weights - moved, 0)) / (2 * step)
        assert float(by_weights[k]) == pytest.approx(slope, abs=1e-3)
    shift = torch.zeros(split.inputs.shape[1:])
    shift[0, 0, 1] = step
    slope = (loss(weights, shift) - loss(weights, -shift)) / (2 * step)
    assert float(by_images[1]) == pytest.approx(slope, abs=1e-3)


def test_the_ceiling_is_one_without_noise_and_falls_with_it():
    rng = np.random.default_rng(0)
    levels = np.linspace(0.2, 1.0, 25)
    exact = [{"a": np.full(40, level), "b": np.full(40, 2 * level)} for level in levels]
    assert halves(exact, 0) == pytest.approx(1)
    noisy = [{"a": level + rng.standard_normal(40) * 2, "b": level + rng.standard_normal(40) * 2} for level in levels]
    assert halves(noisy, 0) < 0.8
