"""Repeated trials of every random estimator on quadratic problems whose constants are known: coverage and sharpness."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from estimators.constants import Estimate
from estimators.directional_curvature import DriftCurvature, NoiseCurvature
from estimators.gradient_rows import GradientMeasurement
from estimators.gradient_variance import GradientVariance
from estimators.heterogeneity import Heterogeneity
from estimators.initial_gradient import InitialGradientNorm, ProgressRate
from estimators.intervals import positive_mean_interval
from estimators.outcomes import LostInNoise
from tests.known_problems import NoiseLaw, QuadraticProblem, random_quadratic_problem
from tests.quadratic_objectives import QuadraticObjective, interval_score, measurement_of, split_of


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One family of problems."""

    name: str
    spread: float
    noise: NoiseLaw = "gaussian"
    num_samples: int = 64
    batched_from: int | None = None
    num_parameters: int = 12
    num_tasks: int = 3


SETTINGS = (
    Setting(name="signal above noise", spread=1.0),
    Setting(name="signal below noise", spread=0.1),
    Setting(name="no signal", spread=0.0),
    Setting(name="heavy-tailed noise", spread=0.5, noise="laplace"),
    Setting(name="further samples in batches", spread=0.3, num_samples=384, batched_from=128),
)


def run_trials(setting: Setting, count: int, *, seed: int = 0) -> dict[str, dict[str, float]]:
    """Coverage, median width and mean interval score (both over the truth's size), and bias, for each constant."""
    found: dict[str, list[tuple[float, Estimate]]] = defaultdict(list)
    for trial in range(count):
        for name, truth, estimate in _trial(setting, np.random.default_rng([seed, trial])):
            found[name].append((truth, estimate))
    return {name: summary(pairs) for name, pairs in found.items()}


def summary(pairs: list[tuple[float, Estimate]]) -> dict[str, float]:
    truths = np.array([truth for truth, _ in pairs])
    scale = np.maximum(np.abs(truths), 1e-12) if (truths != 0).all() else np.ones(len(truths))
    lows, highs = np.array([e.low for _, e in pairs]), np.array([e.high for _, e in pairs])
    values = np.array([e.value for _, e in pairs])
    finite = np.isfinite(highs)
    scores = np.array([interval_score(t, e.low, e.high) for t, e in pairs]) / scale
    slack = 1e-9 * np.maximum(np.abs(truths), 1.0)
    return {
        "trials": float(len(pairs)),
        "coverage": float(((lows <= truths + slack) & (truths - slack <= highs)).mean()),
        "missed_low": float((highs < truths - slack).mean()),
        "median_width": float(np.median((highs - lows) / scale)) if finite.mean() > 0.5 else float("inf"),
        "interval_score": float(scores[finite].mean()) if finite.any() else float("inf"),
        "median_error": float(np.median((values - truths) / scale)),
        "identifiable": float(np.mean([e.identifiable for _, e in pairs])),
    }


def _trial(setting: Setting, rng: np.random.Generator) -> Iterator[tuple[str, float, Estimate]]:
    problem = random_quadratic_problem(
        rng,
        num_tasks=setting.num_tasks,
        num_parameters=setting.num_parameters,
        spread=setting.spread,
        noise=setting.noise,
    )
    names = list(problem.names)
    draws = {name: task.sample(setting.num_samples, rng) for name, task in zip(names, problem.tasks, strict=True)}
    gradients: dict[str, GradientMeasurement] = {
        name: measurement_of(task.gradients(problem.start, draws[name]), batched_from=setting.batched_from)
        for name, task in zip(names, problem.tasks, strict=True)
    }
    yield from _one_task(problem, gradients[names[0]], draws[names[0]], rng)
    yield from _all_tasks(problem, gradients)


def _one_task(
    problem: QuadraticProblem, gradients: GradientMeasurement, draws: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[str, float, Estimate]]:
    task, start = problem.tasks[0], problem.start
    squared = float(task.gradient(start) @ task.gradient(start))
    variance = GradientVariance().fit_gradients(gradients)
    yield "gradient_variance", task.gradient_variance, variance.estimate_
    if squared > 0:
        yield "noise_scale", task.gradient_variance / squared, variance.noise_scale_
    norm = InitialGradientNorm().fit(gradients.best)
    yield "initial_gradient_norm", squared**0.5, norm.estimate_
    losses = task.losses(start, draws)
    low, high = positive_mean_interval(losses)
    yield "initial_risk", task.risk(start), Estimate(value=float(losses.mean()), low=low, high=high)
    noise = NoiseCurvature(num_directions=12, num_samples=2).start(
        QuadraticObjective(task, start), split_of(draws), torch.as_tensor(start)
    )
    signs = np.tile([1.0, -1.0], 4) / np.sqrt(8)
    for batch in task.gradients(start, task.sample(96, rng)).reshape(12, 8, -1):
        noise.observe(torch.as_tensor(signs @ batch))
    yield "noise_curvature", task.noise_curvature, noise.finish().estimate_
    if squared == 0:
        return
    try:
        drift = DriftCurvature(num_samples=2, num_exact=1).fit(
            QuadraticObjective(task, start), split_of(draws), gradients.best, norm.squared_, noise.estimate_
        )
    except LostInNoise:
        return
    yield "drift_curvature", task.drift_curvature(start), drift.estimate_


def _all_tasks(
    problem: QuadraticProblem, gradients: dict[str, GradientMeasurement]
) -> Iterator[tuple[str, float, Estimate]]:
    rows = {name: item.best for name, item in gradients.items()}
    weights = dict(zip(rows, problem.task_weights.tolist(), strict=True))
    spread = Heterogeneity(task_weights=weights).fit(rows)
    first = next(iter(rows))
    yield "heterogeneity", float(problem.heterogeneity(problem.start)[0]), spread.estimates_[first]
    gram = problem.gram(problem.start)
    yield "gram_diagonal", float(gram[0, 0]), spread.gram_[0][0]
    yield "gram_off_diagonal", float(gram[0, 1]), spread.gram_[0][1]
    gaps = {name: Estimate(value=1.0, low=1.0, high=1.0) for name in rows}
    truth = float(gram[0] @ problem.task_weights)
    yield "progress_rate", truth, ProgressRate(shares=weights).fit(rows, gaps).estimates_[first]
