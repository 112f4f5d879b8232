r"""l2-stability by twin runs: the same seed and batch order, one training sample replaced by a fresh one.

    s = (1/n) sum_j E ||x - x^(j)||^2        |x|^2          (docs/theory.md section 2)

estimated from a few replaced samples j, each with its own seed: a twin pair shares its batches, so that the difference
is the replaced sample's doing alone.  For each pair the distance along the run is kept where the trainer reports it.
The estimate has a t interval over pairs (on a logarithmic scale: squared distances are skewed).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch import Tensor

from estimators.constants import Estimate
from estimators.cost import CostMeter
from estimators.fine_tuning import Run, fine_tune
from estimators.intervals import positive_mean_interval
from estimators.objectives import Objective
from estimators.outcomes import MeasurementFailed, require_samples
from estimators.recipe import Recipe
from estimators.tasks import Split

Trainer = Callable[[Objective, Split, Recipe, int, CostMeter | None], Tensor]


class TwinDiverged(MeasurementFailed):
    """A twin run diverged, so its distance to the other says nothing."""


class StabilityTwins(BaseEstimator):  # type: ignore[misc]
    """Mean squared distance between runs that differ in one training sample.

    Args:
        recipe: how both twins are trained; its ``num_samples`` bounds n.
        num_pairs: pairs of runs, each with its own replaced sample and seed.
        trainer: (objective, train split, recipe, seed, meter) -> final weights [D]; ``None``: ``fine_tune``.
        random_state: decides replaced samples, fresh samples and seeds.
        n_jobs: pairs at once, as joblib takes it (and where ``joblib.parallel_config`` says, a Ray cluster too); the
            result is the same for any number.

    Attributes:
        estimate_: s with interval.
        squared_distances_: ||x - x^(j)||^2 of each pair.
        replaced_: index of the replaced sample of each pair.
    """

    estimate_: Estimate
    squared_distances_: NDArray[np.float64]
    replaced_: NDArray[np.int64]

    def __init__(
        self,
        recipe: Recipe,
        *,
        num_pairs: int = 8,
        trainer: Trainer | None = None,
        random_state: int = 0,
        n_jobs: int | None = None,
    ) -> None:
        self.recipe = recipe
        self.num_pairs = num_pairs
        self.trainer = trainer
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(
        self, objective: Objective, train: Split, fresh: Split, *, meter: CostMeter | None = None
    ) -> StabilityTwins:
        """Train the pairs; ``fresh`` holds samples that are not in ``train`` (the held-out split)."""
        data = train.head(self.recipe.num_samples)
        require_samples(self.num_pairs, 2, "a stability with an interval (pairs)")
        rng = np.random.default_rng(self.random_state)
        self.replaced_ = rng.choice(len(data), self.num_pairs, replace=self.num_pairs > len(data)).astype(np.int64)
        newcomers = rng.choice(len(fresh), self.num_pairs, replace=self.num_pairs > len(fresh))
        train_one = _train if self.trainer is None else self.trainer
        before = 0.0 if meter is None else meter.units
        pairs = [
            delayed(_pair)(train_one, objective, data, fresh, self.recipe, self.random_state * 1000 + pair, old, new)
            for pair, (old, new) in enumerate(zip(self.replaced_.tolist(), newcomers.tolist(), strict=True))
        ]
        done = Parallel(n_jobs=self.n_jobs)(pairs)
        if meter is not None:
            for _, counts in done:
                meter.add(**counts)
        self.squared_distances_ = np.array([distance for distance, _ in done])
        value = float(self.squared_distances_.mean())
        low, high = positive_mean_interval(self.squared_distances_)
        self.estimate_ = Estimate(
            value=value,
            low=min(low, value),
            high=max(high, value),
            num_samples=self.num_pairs,
            cost=0.0 if meter is None else meter.units - before,
            identifiable=value > 0 and high <= 4 * low,
            note="" if value > 0 else "no pair moved apart: the replaced samples were never drawn or have no gradient",
        )
        return self


def stability_bound(
    *,
    gradient_variance: float,
    learning_rate: float,
    batch_size: int,
    steps: int,
    num_samples: int,
    smoothness: float = 0.0,
    form: str = "refined",
) -> float:
    r"""Upper bound of s for plain SGD at a constant rate, |x|^2; g = 1 + eta L (``smoothness=0``: convex, g = 1).

    refined    s <= 2 sigma^2 eta^2 (Q_1/n + sqrt(Q_2/(n b)))^2,  Q_r = sum_{t<K} g^{rt}
    paper      s <= 8 sigma^2 eta^2 K (b/n) Q_2/K                 an upper bound only if K <= n b

    >>> round(stability_bound(gradient_variance=1.0, learning_rate=0.1, batch_size=1, steps=4, num_samples=4), 6)
    0.08
    """
    growth = 1.0 + learning_rate * smoothness
    powers = growth ** np.arange(steps)
    first, second = float(powers.sum()), float((powers**2).sum())
    if form == "refined":
        spread = first / num_samples + float(np.sqrt(second / (num_samples * batch_size)))
        return 2 * gradient_variance * learning_rate**2 * spread**2
    if form == "paper":
        return 8 * gradient_variance * learning_rate**2 * second * batch_size / num_samples
    raise ValueError(f"form={form!r} is not one of refined, paper; choose one of them")


def _train(objective: Objective, train: Split, recipe: Recipe, seed: int, meter: CostMeter | None) -> Tensor:
    options: dict[str, Any] = {"meter": meter}
    result = fine_tune(objective, train, Run(task="twin", recipe=recipe, seed=seed), **options)
    if result.outcome != "finished":
        raise TwinDiverged(
            f"outcome={result.outcome!r} ({result.cause}): twins cannot be compared; lower the learning rate"
        )
    return result.weights


def _pair(
    train_one: Trainer, objective: Objective, data: Split, fresh: Split, recipe: Recipe, seed: int, old: int, new: int
) -> tuple[float, dict[str, float]]:
    """Squared distance of one pair, and what training it counted."""
    meter = CostMeter()
    first = train_one(objective, data, recipe, seed, meter)
    second = train_one(objective, _with_replaced(data, old, fresh, new), recipe, seed, meter)
    shared = objective.num_shared
    return float((first[:shared].cpu().double() - second[:shared].cpu().double()).square().sum()), meter.counts()


def _with_replaced(train: Split, old: int, fresh: Split, new: int) -> Split:
    inputs, labels = train.inputs.clone(), train.labels.clone()
    inputs[old] = fresh.inputs[new].to(inputs)
    labels[old] = fresh.labels[new].to(labels)
    return Split(inputs=inputs, labels=labels)
