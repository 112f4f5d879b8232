"""What the risk model predicts, and how far a plan lies beyond the probes it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtr
from scipy.stats import norm

from advisor.exposure import FAMILIES, Exposure
from advisor.plan import FloatArray

# Scatter of the form itself in log risk (development suites): at the probes, and for each log unit beyond them.
SCATTER = 0.025
SCATTER_GROWTH = 0.008
SCATTER_EXCESS = 0.4  # share of log(risk/initial risk) above 0, where the form is coarse

POSTERIOR_SHARE = 0.4  # the Laplace approximation is far too wide on suites, too narrow on the exploration tables

BISECTIONS = 40

# Knobs whose range the probes cover: effective rate, batch size, steps, coefficient.
KNOBS = ("rate", "batch_size", "steps", "coefficients")
CHOSEN_KNOBS = ("rate", "batch_size")  # advice need not leave the probed range here; in steps it must


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RiskPrediction:
    """Predicted risks of M plans.

    Attributes:
        names: the model's N tasks.
        task_risk: [M, N] in nats.
        task_low: [M, N] lower end of the interval (equal to ``task_risk`` if none was asked for).
        task_high: [M, N] upper end.
        goal: [M] weighted mean of the tasks' risks.
        goal_low: [M].
        goal_high: [M].
        relative_low: [M] lower end of goal risk / x_0's, without the error of x_0's measured risk, which both share.
        relative_high: [M] upper end.
        terms: name -> [M, N]; initial risk + the sum of terms = ``task_risk``.
        extrapolation: [M] how far a plan lies beyond the probes, in log units (0: inside).
        untried: [M] the part of it that is in effective rate and batch size.
        initial_risk: [N].
        floor: [N] lowest risk that merging can reach according to the fit.
        level: nominal coverage of the intervals.
    """

    names: tuple[str, ...]
    task_risk: FloatArray
    task_low: FloatArray
    task_high: FloatArray
    goal: FloatArray
    goal_low: FloatArray
    goal_high: FloatArray
    relative_low: FloatArray
    relative_high: FloatArray
    terms: dict[str, FloatArray]
    extrapolation: FloatArray
    untried: FloatArray
    initial_risk: FloatArray
    floor: FloatArray
    level: float

    def __len__(self) -> int:
        return len(self.goal)


def joined(pieces: Sequence[RiskPrediction]) -> RiskPrediction:
    """One prediction of all plans from predictions of some after the others."""
    if len(pieces) == 1:
        return pieces[0]
    parts: dict[str, Any] = {
        name: np.concatenate([getattr(piece, name) for piece in pieces])
        for name in ("task_risk", "task_low", "task_high", "goal", "goal_low", "goal_high")
        + ("relative_low", "relative_high", "extrapolation", "untried")
    }
    terms = {name: np.concatenate([piece.terms[name] for piece in pieces]) for name in pieces[0].terms}
    return replace(pieces[0], terms=terms, **parts)


def probed_ranges(exposures: Sequence[Exposure]) -> FloatArray:
    """Smallest and largest log knob among the probes, [families, knobs, 2]; +inf, -inf where nothing was probed."""
    ranges = np.stack([np.full((len(FAMILIES), len(KNOBS)), np.inf), np.full((len(FAMILIES), len(KNOBS)), -np.inf)], 2)
    for exposure in exposures:
        for family in range(len(FAMILIES)):
            mask = (exposure.family == family) & (exposure.coefficients > 0)
            for k, knob in enumerate(KNOBS):
                values = np.log(getattr(exposure, knob)[mask])
                if values.size:
                    ranges[family, k, 0] = min(ranges[family, k, 0], values.min())
                    ranges[family, k, 1] = max(ranges[family, k, 1], values.max())
    return ranges


def distance_beyond(exposure: Exposure, ranges: FloatArray, knobs: Sequence[str] = KNOBS) -> FloatArray:
    """Distance of plans beyond the probed ranges in log units, [M]: Euclidean over knobs, the farthest expert counts.

    A coefficient below the probed ones is no extrapolation: the risk at 0 is known.
    """
    out = np.zeros(exposure.time.shape)
    for family in range(len(FAMILIES)):
        mask = (exposure.family == family) & (exposure.coefficients > 0)
        if not (mask.any() and np.isfinite(ranges[family]).all()):
            continue
        total = np.zeros(exposure.time.shape)
        for knob in knobs:
            k = KNOBS.index(knob)
            values = np.log(np.where(mask, getattr(exposure, knob), 1.0))
            below = 0.0 if knob == "coefficients" else np.maximum(ranges[family, k, 0] - values, 0.0)
            total += (np.maximum(values - ranges[family, k, 1], 0.0) + below) ** 2
        out = np.where(mask, np.sqrt(total), out)
    return np.asarray(out.max(axis=1))


def interval(
    samples: FloatArray,
    centre: FloatArray,
    initial: FloatArray,
    beyond: FloatArray,
    level: float,
    extra: FloatArray | float = 0.0,
    *,
    jump: tuple[FloatArray, FloatArray] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Ends of predictive intervals around ``centre``: posterior draws and the form's scatter, normal in log risk.

    Args:
        samples: [S, ...] risks under posterior draws.
        centre: [...] predicted risks.
        initial: risks of x_0, broadcast against ``centre``.
        beyond: distance beyond the probes, broadcast against ``centre``.
        level: nominal coverage.
        extra: further relative standard deviation: luck of the run, and the risk of x_0 that all predictions share.
        jump: chance P and log cost C of a jump (``advisor.jump_hazard``), whose mean P C ``centre`` holds: the ends are
            then quantiles of the mixture.
    """
    spread = np.sqrt(np.mean((np.log(samples) - np.log(centre)) ** 2, axis=0))
    excess = np.maximum(np.log(centre / initial), 0.0)
    own = SCATTER + SCATTER_GROWTH * beyond + SCATTER_EXCESS * excess
    deviation = np.sqrt((POSTERIOR_SHARE * spread) ** 2 + own**2 + extra**2)
    tail = 0.5 - level / 2
    if jump is None or not jump[0].any():
        half = -float(norm.ppf(tail)) * deviation
        return np.asarray(centre * np.exp(-half)), np.asarray(centre * np.exp(half))
    chance, cost = (np.broadcast_to(values, deviation.shape) for values in jump)
    low, high = (jump_quantile(share, deviation, chance, cost) - chance * cost for share in (tail, 1 - tail))
    return np.asarray(centre * np.exp(np.minimum(low, 0.0))), np.asarray(centre * np.exp(np.maximum(high, 0.0)))


def jump_quantile(share: float, deviation: FloatArray, chance: FloatArray, cost: FloatArray) -> FloatArray:
    """Quantile of (1 - P) N(0, s^2) + P N(C, s^2), elementwise, by bisection.

    >>> one = np.ones(1)
    >>> float(jump_quantile(0.95, one, 0 * one, 3 * one).round(3)[0])
    1.645
    >>> float(jump_quantile(0.95, 0.01 * one, 0.5 * one, 3 * one).round(3)[0])
    3.013
    """
    low = float(norm.ppf(share)) * deviation
    high = low + cost
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        below = (1 - chance) * ndtr(middle / deviation) + chance * ndtr((middle - cost) / deviation) < share
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray((low + high) / 2)
