r"""Coefficients that tune themselves, for finished experts of known or unknown history.

    tune(base, experts)                                from weights alone: norms, overlaps, a stated prior
    tune(base, experts, data=project, labels=0)        unlabelled samples: agree with each expert on its own task
    tune(base, experts, data=project, labels=5)        so many labels a class, agreement for the rest
    tune(base, experts, data=project)                  all validation labels

Every merge is recombined in memory from cached task vectors, measured once on validation images, and its logits feed a
surrogate that says where to measure next (``advisor.coefficients_search``).  Test data are never opened.  Choosing on
unlabelled samples adapts to those images: figures measured on the same ones are transductive, those on new images are
not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from advisor.coefficients_hedging import describe_hedge, hedged_coefficients
from advisor.coefficients_prior import (
    describe_trust,
    interference_shares,
    prior_coefficients,
    prior_interval,
)
from advisor.coefficients_result import TunedCoefficients
from advisor.merging.registry import OPERATORS, build_operator
from advisor.merging.streaming import task_vector_gram
from advisor.progress import Progress, silent
from studies.coefficient_space import CoefficientSpace

if TYPE_CHECKING:
    from advisor.coefficients_problem import TuningProblem
    from advisor.merging.sources import Location
    from advisor.project import Project

FloatArray = NDArray[np.float64]
Labels = int | Literal["all"]
Granularity = Literal["task", "group"]
LINEAR = "task_arithmetic"
METHODS = (LINEAR, "ties", "tsv_m")  # compared by method="auto"
TOLERANCE = 0.02  # standard errors
LAYER_STEPS = 12
OPERATOR_MERGES = 6  # measured for each operator beyond task arithmetic that is compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to tune.

    Attributes:
        labels: labels a class that are looked at: 0, a number, or all.
        granularity: one coefficient an expert, or one an expert and layer group.
        simplex: coefficients add up to 1 instead of being free in ``bounds``.
        bounds: smallest and largest coefficient.
        method: merge operator, or ``auto`` to compare several.
        max_merges: most measured merges; ``None`` for enough (6 N + 12).
        seed: decides which labels are looked at, and the chance of random operators.
    """

    labels: Labels = "all"
    granularity: Granularity = "task"
    simplex: bool = False
    bounds: tuple[float, float] = (0.0, 2.0)
    method: str = LINEAR
    max_merges: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be tuned."""
        if self.labels != "all" and not (isinstance(self.labels, int) and self.labels >= 0):
            raise ValueError(f"labels={self.labels!r} must be 'all' or a whole number a class; give 0 for none")
        if self.granularity not in ("task", "group"):
            raise ValueError(f"granularity={self.granularity!r} must be 'task' or 'group'")
        low, high = self.bounds
        if not (0 <= low < high and np.isfinite(high)):
            raise ValueError(f"bounds={self.bounds} must rise from at least 0; give (0, 2)")
        if self.method != "auto":
            rule = build_rule(self.method)
            if rule != "scale":
                raise ValueError(
                    f"method={self.method!r} does not scale task vectors, so it has no coefficients to tune; choose "
                    f"{LINEAR} (with simplex=True for an average) or give shares by hand"
                )
        if self.granularity == "group" and (self.method != LINEAR or self.simplex):
            raise ValueError(
                f"granularity='group' goes with method={LINEAR!r} in a box, not with method={self.method!r}, "
                f"simplex={self.simplex}; leave the other option out"
            )

    def space(self, names: Sequence[str]) -> CoefficientSpace:
        """Where coefficients may lie."""
        low, high = self.bounds
        return CoefficientSpace(names=tuple(names), low=low, high=high, total=1.0 if self.simplex else None)


def build_rule(method: str) -> str:
    """How an operator uses coefficients: ``scale``, ``normalize`` or ``equal``."""
    if method in OPERATORS and OPERATORS[method].needs_data:
        return "normalize"
    return build_operator(method, {}).weights


def tune(
    base: Location,
    experts: Mapping[str, Location],
    *,
    data: Path | str | Project | None = None,
    labels: Labels = "all",
    granularity: Granularity = "task",
    simplex: bool = False,
    bounds: tuple[float, float] = (0.0, 2.0),
    method: str = LINEAR,
    max_merges: int | None = None,
    seed: int = 0,
    study: Path | None = None,
    measured: Path | None = None,
    device: str | None = None,
    progress: Progress = silent,
) -> TunedCoefficients:
    """Choose merging coefficients for finished experts.

    Args:
        base: the pretrained checkpoint.
        experts: expert -> checkpoint; with ``data``, named like the project's tasks (further experts are allowed).
        data: project file, project or run directory; ``None`` to go by weights alone.
        labels: labels a class of the validation data that may be looked at.
        granularity: ``task`` or ``group``.
        simplex: coefficients that add up to 1.
        bounds: smallest and largest coefficient.
        method: merge operator, or ``auto``.
        max_merges: most measured merges.
        seed: decides which labels are looked at.
        study: journal file of the Optuna study that keeps every measured merge.
        measured: folder that keeps what merges answered; a tuning of the same experts that was stopped goes on there
            and measures nothing twice.  It may be deleted when the tuning has ended.
        device: overrides the project's device.
        progress: told every measured merge.

    Raises:
        ValueError: arguments or checkpoints that do not fit; each says what to do.
    """
    settings = Settings(
        labels=labels,
        granularity=granularity,
        simplex=simplex,
        bounds=bounds,
        method=method,
        max_merges=max_merges,
        seed=seed,
    )
    if data is None:
        return tune_from_weights(base, experts, settings)
    from advisor.coefficients_problem import open_problem

    problem = open_problem(base, experts, data, device=device)
    return tune_on_data(problem, settings, study=study, measured=measured, progress=progress)


def tune_from_weights(base: Location, experts: Mapping[str, Location], settings: Settings) -> TunedCoefficients:
    """Coefficients from norms and overlaps; the weights are read once, as a stream.

    Raises:
        ValueError: what only data can answer was asked.
    """
    if settings.granularity == "group" or settings.method not in (LINEAR, "auto"):
        raise ValueError(
            f"granularity={settings.granularity!r}, method={settings.method!r}: weights alone say nothing of layers or "
            f"of operators other than {LINEAR}; give data (--data PROJECT)"
        )
    measured = task_vector_gram(base, experts)
    total = 1.0 if settings.simplex else None
    guess = prior_coefficients(measured.gram, measured.base_norm, bounds=settings.bounds, total=total)
    row = hedged_coefficients(measured.gram, measured.base_norm, bounds=settings.bounds, total=total)
    ends = (0.0, 1.0) if settings.simplex else settings.bounds
    low, high = prior_interval(guess, ends, chosen=row)
    names = measured.labels
    return TunedCoefficients(
        source="weights",
        method=LINEAR,
        coefficients=dict(zip(names, row.tolist(), strict=True)),
        intervals=dict(zip(names, zip(low.tolist(), high.tolist(), strict=True), strict=True)),
        disturbance=interference_shares(row, measured.gram),
        notes=(*describe_trust(names, measured.norms, measured.base_norm), *describe_hedge(names, guess, row)),
    )


def tune_on_data(
    problem: TuningProblem,
    settings: Settings,
    *,
    study: Path | None = None,
    measured: Path | None = None,
    progress: Progress = silent,
) -> TunedCoefficients:
    """Coefficients from measured merges of a problem whose task vectors are cached."""
    from advisor.coefficients_memory import MeasuredMemory
    from advisor.coefficients_tuning import Tuning

    memory = MeasuredMemory(folder=measured)
    return Tuning(problem=problem, settings=settings, study=study, memory=memory, progress=progress).run()
