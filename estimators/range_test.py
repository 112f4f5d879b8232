r"""Learning-rate range test (Smith 2017, *Cyclical Learning Rates*): what a careful user would do without a probe.

One short SGD run whose rate rises exponentially; the suggestion is a tenth of the rate at which the smoothed loss is
lowest, the common rule (the minimum itself is already too large).  Losses are smoothed by an exponential average
with bias correction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.cost import CostMeter
from estimators.fine_tuning import Run, fine_tune
from estimators.objectives import Objective
from estimators.recipe import Recipe
from estimators.snapshot_folder import Snapshots
from estimators.tasks import Split

SMOOTHING = 0.8
SAFETY_FACTOR = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeTest:
    """Result of a range test.

    Attributes:
        suggestion: suggested learning rate.
        rates: learning rate of each step done.
        losses: smoothed loss of each step done.
    """

    suggestion: float
    rates: NDArray[np.float64]
    losses: NDArray[np.float64]


def run_range_test(
    objective: Objective,
    train: Split,
    *,
    highest: float,
    batch_size: int,
    steps: int,
    seed: int,
    meter: CostMeter | None = None,
    snapshots: Snapshots | None = None,
) -> RangeTest:
    """Sweep the rate over four decades up to ``highest`` and suggest one; costs batch_size * steps units."""
    recipe = Recipe(learning_rate=highest, batch_size=batch_size, steps=steps, schedule="range_test")
    run = Run(task="range test", recipe=recipe, seed=seed)
    done = fine_tune(objective, train, run, meter=meter, snapshots=snapshots)
    finite = np.isfinite(done.losses)
    losses = smooth(done.losses[finite])
    rates = (highest * recipe.schedule_factors())[: len(done.losses)][finite]
    return RangeTest(suggestion=float(rates[int(np.argmin(losses))] / SAFETY_FACTOR), rates=rates, losses=losses)


def smooth(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exponential average with bias correction, shape as given.

    >>> smooth(np.array([2.0, 2.0, 2.0])).tolist()
    [2.0, 2.0, 2.0]
    """
    average, out = 0.0, np.empty(len(losses))
    for k, loss in enumerate(losses):
        average = SMOOTHING * average + (1 - SMOOTHING) * float(loss)
        out[k] = round(average / (1 - SMOOTHING ** (k + 1)), 12)
    return out
