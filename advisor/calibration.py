r"""Are the intervals honest?  Predicted against measured for every merge that was measured.

For a merge with predicted goal risk v, interval [l, h] (90 %, log-normal) and measured risk m,

    z = log(m/v) / (log(h/v)/z90)   for m > v,   log(m/v) / (log(v/l)/z90)   else,   z90 = 1.645

m counts from the model's own level of x_0's risk: what is measured is the ratio to x_0 on the merge's own samples.  At
nominal level q a share P(|z| <= Phi^-1((1+q)/2)) of the merges should lie inside.  The probes' merges were used to fit
the model, so they can only show intervals that are too narrow, never prove them wide enough.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from advisor.observations import MergeObservation
from advisor.what_if import WhatIf

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
MOST_MERGES = 400
Z90 = float(norm.ppf(0.95))


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Coverage of predictive intervals over measured merges.

    Attributes:
        predicted: goal risks, nats, one a merge.
        measured: goal risks, nats.
        levels: nominal levels.
        coverage: share of merges inside the interval of each level.
        left_out: merges that diverged or were not measured on every task.
    """

    predicted: tuple[float, ...]
    measured: tuple[float, ...]
    levels: tuple[float, ...]
    coverage: tuple[float, ...]
    left_out: int

    @property
    def at_90(self) -> float:
        """Share of merges inside their 90 % interval."""
        return self.coverage[self.levels.index(0.9)]


def calibrate(ask: WhatIf, merges: Sequence[MergeObservation]) -> Calibration | None:
    """Coverage over measured merges, the last ``MOST_MERGES`` of them; ``None`` without any."""
    names = list(ask.goal.weights)
    whole = [m for m in merges if not m.diverged and set(names) <= set(m.risks) and set(m.plan.names) == set(names)]
    known = [m for m in whole if m.plan.method in ask.model.method_shares_][-MOST_MERGES:]
    if not known:
        return None
    predicted = ask.goals([m.plan for m in known])
    start = ask.model.initial_risks
    measured = [ask.goal.of(m.risks_at(start)) for m in known]
    scores = np.array([_score(p.value, p.low, p.high, m) for p, m in zip(predicted, measured, strict=True)])
    coverage = [float(np.mean(np.abs(scores) <= norm.ppf((1 + level) / 2))) for level in LEVELS]
    return Calibration(
        predicted=tuple(p.value for p in predicted),
        measured=tuple(measured),
        levels=LEVELS,
        coverage=tuple(coverage),
        left_out=len(merges) - len(known),
    )


def _score(value: float, low: float, high: float, measured: float) -> float:
    """How many standard deviations of log risk a measurement lies from its prediction."""
    distance = math.log(max(measured, 1e-12) / value)
    width = math.log(high / value) if distance > 0 else math.log(value / low)
    return distance / max(width / Z90, 1e-12)
