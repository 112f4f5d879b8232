"""Merged risk over the steps of the base run: series at a fixed or tuned coefficient, and where they turn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from advisor.probing import LINEAR_METHOD
from benchmarks.claim_design import COEFFICIENTS, METHOD_COEFFICIENTS, PROBE_STEPS
from benchmarks.claim_tables import BrokenTable, UnitTable, risk


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Risks over steps.

    Attributes:
        steps: increasing.
        validation: risks that choose.
        test: risks that judge.
    """

    steps: tuple[int, ...]
    validation: tuple[float, ...]
    test: tuple[float, ...]

    @property
    def best(self) -> int:
        """Position of the lowest validation risk, the earliest of equal ones."""
        return int(np.argmin(self.validation))

    @property
    def turning_point(self) -> int:
        """K*: the step of the lowest validation risk."""
        return self.steps[self.best]

    @property
    def rise(self) -> float:
        """Log test risk at the end over that at K*; 0 where the series is lowest at its end."""
        return math.log(self.test[-1] / self.test[self.best])


def coefficients_of(method: str) -> tuple[float, ...]:
    """Coefficients with which a method was measured on the base run."""
    return COEFFICIENTS if method == LINEAR_METHOD else METHOD_COEFFICIENTS[method]


def fixed(table: UnitTable, coefficient: float, method: str = LINEAR_METHOD) -> Series:
    """The series at one coefficient."""
    return _series(table, (coefficient,), method)


def tuned(table: UnitTable, method: str = LINEAR_METHOD) -> Series:
    """The series with the coefficient chosen anew at every step on validation samples."""
    return _series(table, coefficients_of(method), method)


def early_choice(table: UnitTable, method: str = LINEAR_METHOD) -> float:
    """The coefficient that is best on validation samples after ``PROBE_STEPS`` steps."""
    kind = "linear" if method == LINEAR_METHOD else "method"
    values = coefficients_of(method)
    return min(values, key=lambda c: risk(table.one(kind, "base", PROBE_STEPS, c, method), "validation"))


def predicted_turning_point(table: UnitTable, coefficient: float | None, method: str = LINEAR_METHOD) -> float:
    """K* of the predicted curve within the measured steps (``None``: at re-tuned coefficients); NaN if unknown."""
    curves = table.predictions.get("curves", {}).get(method)
    if not curves:
        return math.nan
    chosen = list(curves.values()) if coefficient is None else [curves[f"{coefficient:g}"]]
    risks = np.array([[np.nan if value is None else value for value in curve] for curve in chosen], dtype=float)
    if not np.isfinite(risks).all():
        return math.nan
    steps, measured = np.array(table.predictions["steps"]), table.steps("base")
    inside = (steps >= measured[0]) & (steps <= measured[-1])
    return float(steps[inside][np.argmin(risks.min(axis=0)[inside])])


def _series(table: UnitTable, coefficients: tuple[float, ...], method: str) -> Series:
    kind = "linear" if method == LINEAR_METHOD else "method"
    steps = tuple(table.steps("base"))
    if len(steps) < 2:
        raise BrokenTable(f"table {table.name} holds {len(steps)} checkpoints of the base run; build the unit again")
    validation, test = [], []
    for step in steps:
        rows = [table.one(kind, "base", step, value, method) for value in coefficients]
        best = min(rows, key=lambda row: risk(row, "validation"))
        validation.append(risk(best, "validation"))
        test.append(risk(best, "test"))
    return Series(steps=steps, validation=tuple(validation), test=tuple(test))
