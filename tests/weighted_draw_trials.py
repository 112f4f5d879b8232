"""Repeated trials of the estimators on weighted draws from finite splits, whose constants are known by summing up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from estimators.constants import Estimate
from estimators.gradient_rows import GradientMeasurement, RowCollector, Sketch
from estimators.gradient_variance import GradientVariance
from estimators.heterogeneity import Heterogeneity
from estimators.initial_gradient import InitialGradientNorm, ProgressRate
from estimators.sample_design import SampleKnowledge, design_gradients
from estimators.tasks import LinearHead
from tests.estimator_trials import summary

Array = np.ndarray
INPUTS, FEATURES, CLASSES = 8, 5, 4


@dataclass(frozen=True, kw_only=True)
class WeightedSetting:
    """One family of splits: n samples, of which m gradients are taken."""

    name: str
    population: int
    count: int


WEIGHTED_SETTINGS = (
    WeightedSetting(name="a third of the split", population=360, count=120),
    WeightedSetting(name="a tenth of the split", population=1000, count=100),
    WeightedSetting(name="half of a small split", population=120, count=60),
)


@dataclass(frozen=True)
class KnownSplit:
    """A classification task on features tanh(A z) with every gradient by A, in closed form.

    Attributes:
        gradients: of every sample [n, FEATURES * INPUTS].
        knowledge: what is known of the samples beforehand.
    """

    gradients: Array
    knowledge: SampleKnowledge


def known_split(weights: Array, rng: np.random.Generator, population: int) -> KnownSplit:
    """A random task: labels of a random teacher, a head fitted on the features."""
    inputs = rng.standard_normal((population, INPUTS)) * rng.lognormal(0.0, 0.4, (population, 1))
    features = np.tanh(inputs @ weights.T)
    scores = 2.0 * np.sin(inputs @ rng.standard_normal((INPUTS, CLASSES)))
    scores += 3.0 * features @ rng.standard_normal((FEATURES, CLASSES))
    labels = (scores + rng.gumbel(size=scores.shape)).argmax(1)
    labels[:CLASSES] = np.arange(CLASSES)
    model = LogisticRegression(C=10.0, max_iter=500).fit(features, labels)
    head = LinearHead(weight=torch.tensor(model.coef_), bias=torch.tensor(model.intercept_))
    knowledge = SampleKnowledge.of(torch.tensor(features), head, torch.tensor(labels))
    pulled = knowledge.slopes * (1 - features**2)
    return KnownSplit(gradients=(pulled[:, :, None] * inputs[:, None, :]).reshape(population, -1), knowledge=knowledge)


def drawn_gradients(split: KnownSplit, count: int, seed: int) -> GradientMeasurement:
    """``count`` of its gradients, as ``measure_gradients`` hands them on."""
    design = design_gradients(split.knowledge, count, seed)
    rows = torch.tensor(split.gradients[design.draw.places.numpy()])
    collector = RowCollector(torch.zeros(rows.shape[1], dtype=torch.float64), Sketch(rows.shape[1]))
    collector.add(rows, torch.from_numpy(design.mean_weights))
    return GradientMeasurement(single=collector.rows(1, design.draw.population, "", design), batched=None)


def run_weighted_trials(setting: WeightedSetting, count: int, *, seed: int = 0) -> dict[str, dict[str, float]]:
    """Coverage, median width and mean interval score, and bias, for each constant."""
    found: dict[str, list[tuple[float, Estimate]]] = defaultdict(list)
    for trial in range(count):
        for name, truth, estimate in _trial(setting, np.random.default_rng([seed, trial])):
            found[name].append((truth, estimate))
    return {name: summary(pairs) for name, pairs in found.items()}


def _trial(setting: WeightedSetting, rng: np.random.Generator) -> Iterator[tuple[str, float, Estimate]]:
    weights = rng.standard_normal((FEATURES, INPUTS)) / np.sqrt(INPUTS)
    splits = {name: known_split(weights, rng, setting.population) for name in "abc"}
    measured = {name: drawn_gradients(split, setting.count, int(rng.integers(2**31))) for name, split in splits.items()}
    means = np.stack([split.gradients.mean(0) for split in splits.values()])
    first, rows = splits["a"].gradients, {name: item.best for name, item in measured.items()}
    variance = float(((first - means[0]) ** 2).sum() / (len(first) - 1))
    yield "gradient_variance", variance, GradientVariance().fit_gradients(measured["a"]).estimate_
    yield "initial_gradient_norm", float(np.linalg.norm(means[0])), InitialGradientNorm().fit(rows["a"]).estimate_
    spread = Heterogeneity().fit(rows)
    yield "heterogeneity", float(((means[0] - means.mean(0)) ** 2).sum()), spread.estimates_["a"]
    yield "gram_off_diagonal", float(means[0] @ means[1]), spread.gram_[0][1]
    gaps = {name: Estimate(value=1.0, low=1.0, high=1.0) for name in rows}
    yield "progress_rate", float(means[0] @ means.mean(0)), ProgressRate().fit(rows, gaps).estimates_["a"]
