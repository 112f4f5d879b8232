"""What a claim shows beside its verdict: panels of curves, and a table; and the arithmetic that claims share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from benchmarks.claim_parts import ALPHA
from benchmarks.claim_tables import UnitTable

NETWORKS = ("resnet", "vit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A curve, with a band where there is one.

    Attributes:
        label: in the legend.
        x: abscissae.
        y: ordinates.
        low: lower end of the band; empty for none.
        high: upper end.
        network: decides the colour.
        style: ``measured``, ``predicted``, ``other`` or ``points``.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    network: str = ""
    style: str = "measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One pair of axes."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    x_scale: str = "log"
    y_scale: str = "log"
    marks: Mapping[str, float] = field(default_factory=dict)  # label -> vertical line
    ticks: Sequence[str] = ()  # names of x = 0, 1, ...
    zero: float = 0.0  # where such a panel has a horizontal line


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a claim shows: panels, and a table with a heading row."""

    panels: Sequence[Panel]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def by_network(tables: Sequence[UnitTable]) -> dict[str, list[UnitTable]]:
    """Units of each network."""
    found: dict[str, list[UnitTable]] = {}
    for table in tables:
        found.setdefault(str(table.data["network"]), []).append(table)
    return found


def over_seeds(
    label: str,
    x: Sequence[float],
    tables: Sequence[UnitTable],
    values: Callable[[UnitTable], Sequence[float]],
    *,
    style: str = "measured",
) -> Line:
    """Mean over the units with its t interval (no band for predictions)."""
    stacked = np.array([values(table) for table in tables], dtype=float)
    mean = stacked.mean(axis=0)
    band = len(tables) > 1 and style != "predicted"
    half = (
        stats.t.ppf(1 - ALPHA, len(tables) - 1) * stacked.std(axis=0, ddof=1) / np.sqrt(len(tables)) if band else None
    )
    return Line(
        label=label,
        x=list(x),
        y=mean.tolist(),
        low=() if half is None else (mean - half).tolist(),
        high=() if half is None else (mean + half).tolist(),
        network=str(tables[0].data["network"]),
        style=style,
    )


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of log y in log x; NaN unless all are positive and finite.

    >>> round(slope([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(xs) < 2 or not (np.isfinite(ys).all() and (ys > 0).all() and (xs > 0).all()):
        return np.nan
    return float(np.polyfit(np.log(xs), np.log(ys), 1)[0])


def crossing(x: Sequence[float], y: Sequence[float], level: float) -> float:
    """Where y first rises above a level, interpolated in logarithms; NaN if it starts above or never does.

    >>> crossing([1.0, 4.0], [1.0, 4.0], 2.0)
    2.0
    """
    for i in range(len(x)):
        if y[i] > level:
            if i == 0:
                return np.nan
            share = (np.log(level) - np.log(y[i - 1])) / (np.log(y[i]) - np.log(y[i - 1]))
            return float(round(np.exp(np.log(x[i - 1]) + share * (np.log(x[i]) - np.log(x[i - 1]))), 12))
    return np.nan


def cell(values: Sequence[float], digits: int = 3) -> str:
    """Mean and range of a few values, for a table."""
    array = np.asarray(values, dtype=float)
    if not np.isfinite(array).all():
        return "–"
    return f"{array.mean():.{digits}g} ({array.min():.{digits}g} … {array.max():.{digits}g})"
