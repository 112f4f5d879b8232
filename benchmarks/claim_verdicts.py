"""From statistics of units to verdicts, by the rules of ``benchmarks.claim_parts``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from benchmarks.claim_parts import ALPHA, LEAST_SEEDS, Claim, Part

Outcome = Literal["holds", "does not hold", "not decidable"]
Unit = tuple[str, int]  # network and seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Mean of units with its Student-t interval, ``ALPHA`` on either side."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PartVerdict:
    """What the data say of a part.

    Attributes:
        part: what was asked.
        values: statistic of each unit.
        interval: over all units; ``None`` where it decides nothing.
        networks: interval of each network's seeds.
        outcome: of all units together.
        by_network: of each network's own.
        reason: why nothing is decided, where that is no matter of the interval.
    """

    part: Part
    values: Mapping[Unit, float]
    interval: Interval | None
    networks: Mapping[str, Interval | None]
    outcome: Outcome
    by_network: Mapping[str, Outcome]
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimVerdict:
    """What the data say of a claim.

    Attributes:
        claim: what is claimed.
        parts: verdict of each part.
        outcome: of the parts of role ``claim`` together.
        prediction: of those of role ``prediction``; ``None`` where there are none.
    """

    claim: Claim
    parts: tuple[PartVerdict, ...]
    outcome: Outcome
    prediction: Outcome | None


def t_interval(values: Sequence[float]) -> Interval:
    """Mean and Student-t interval of at least two values.

    >>> t_interval([1.0, 1.0, 1.0])
    Interval(mean=1.0, low=1.0, high=1.0)
    """
    mean = float(np.mean(values))
    half = float(stats.t.ppf(1 - ALPHA, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return Interval(mean=mean, low=mean - half, high=mean + half)


def decide(part: Part, interval: Interval) -> Outcome:
    """The part's rule on an interval."""
    if part.rule == "above":
        holds, fails = interval.low > part.low, interval.high < part.low
    elif part.rule == "below":
        holds, fails = interval.high < part.low, interval.low > part.low
    else:
        holds = part.low < interval.low and interval.high < part.high
        fails = interval.high < part.low or interval.low > part.high
    return "holds" if holds else "does not hold" if fails else "not decidable"


def judge_part(part: Part, values: Mapping[Unit, float]) -> PartVerdict:
    """Judge a part on its units."""
    networks = sorted({network for network, _ in values})
    own = {name: [value for (network, _), value in values.items() if network == name] for name in networks}
    reason = _undecidable(values, own)
    intervals = {name: _interval(found) for name, found in own.items()}
    by_network: dict[str, Outcome] = {
        name: "not decidable" if interval is None else decide(part, interval) for name, interval in intervals.items()
    }
    whole = None if reason else t_interval(list(values.values()))
    outcome: Outcome = "not decidable" if whole is None else decide(part, whole)
    if {"holds", "does not hold"} <= set(by_network.values()):
        outcome, reason = "not decidable", reason or "the networks contradict each other"
    return PartVerdict(
        part=part,
        values=dict(values),
        interval=whole,
        networks=intervals,
        outcome=outcome,
        by_network=by_network,
        reason=reason,
    )


def judge_claim(claim: Claim, statistics: Mapping[Unit, Mapping[str, float]]) -> ClaimVerdict:
    """Judge a claim; a unit that lacks a part's statistic counts as one whose statistic is no number."""
    parts = tuple(
        judge_part(part, {unit: found.get(part.key, math.nan) for unit, found in statistics.items()})
        for part in claim.parts
    )
    predictions = [verdict.outcome for verdict in parts if verdict.part.role == "prediction"]
    return ClaimVerdict(
        claim=claim,
        parts=parts,
        outcome=combine([verdict.outcome for verdict in parts if verdict.part.role == "claim"]),
        prediction=combine(predictions) if predictions else None,
    )


def combine(outcomes: Sequence[Outcome]) -> Outcome:
    """All must hold; one that does not hold decides.

    >>> combine(["holds", "not decidable"]), combine(["not decidable", "does not hold"])
    ('not decidable', 'does not hold')
    """
    if "does not hold" in outcomes:
        return "does not hold"
    return "holds" if outcomes and all(outcome == "holds" for outcome in outcomes) else "not decidable"


def _interval(values: Sequence[float]) -> Interval | None:
    enough = len(values) >= LEAST_SEEDS and all(math.isfinite(value) for value in values)
    return t_interval(values) if enough else None


def _undecidable(values: Mapping[Unit, float], own: Mapping[str, Sequence[float]]) -> str:
    if not values:
        return "no unit was measured"
    few = [name for name, found in own.items() if len(found) < LEAST_SEEDS]
    if few:
        return f"{', '.join(few)}: fewer than {LEAST_SEEDS} seeds"
    lost = [f"{network}-{seed}" for (network, seed), value in values.items() if not math.isfinite(value)]
    return f"no finite statistic in {', '.join(lost)}" if lost else ""
