r"""Risks of merges that nobody made: any subset of the experts at any coefficients, from N + 3 measured merges.

    measured:   x_0;  each expert alone at ``scale``;  all at 1/N and at 2/N
    foretold:   z_s(lambda) = z_s(0) + sum_i lambda_i b_is + g_s(lambda)        logits of every sample

b_i is what expert i does to the logits on its own; g, a Gaussian process over weight space, is what experts do to each
other as far as the two common merges show it (``advisor.coefficients_surrogate`` with ``trend``).  Risks are those of
the foretold logits, so a task's own expert, its helpers and its disturbers all count.  There are 2^N subsets; N + 3
merges foretell them all.

    found = measure_responses(problem, criterion, scale=1 / 3)
    found.risks({"a": 1 / 3, "b": 1 / 3})          # task -> risk, for the tasks that have samples
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.coefficients_evidence import Criterion
from advisor.coefficients_problem import TuningProblem
from advisor.coefficients_surrogate import Surrogate, fit_surrogate

FloatArray = NDArray[np.float64]
COMMON = (1.0, 2.0)  # sums of the common coefficients that are measured


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MergeResponses:
    """What N + 3 merges told.

    Attributes:
        labels: the experts.
        criterion: what the samples ask for.
        surrogate: of their logits.
        rows: measured coefficients [M, N].
        values: measured logits [M, S].
    """

    labels: tuple[str, ...]
    criterion: Criterion
    surrogate: Surrogate
    rows: FloatArray
    values: FloatArray

    def risks(self, coefficients: Mapping[str, float]) -> dict[str, float]:
        """Foretold risk of every task; experts that are not named stay out.

        Raises:
            ValueError: an expert is unknown, or a coefficient is not finite.
        """
        unknown = [name for name in coefficients if name not in self.labels]
        if unknown:
            raise ValueError(f"experts {unknown} are not among {list(self.labels)}; name experts that were measured")
        row = np.array([float(coefficients.get(name, 0.0)) for name in self.labels])
        if not np.isfinite(row).all():
            raise ValueError(f"coefficients={dict(coefficients)} must be finite; give numbers")
        return self.criterion.risks(self.surrogate.predict(row))


def measure_responses(problem: TuningProblem, criterion: Criterion, *, scale: float) -> MergeResponses:
    """Measure N + 3 merges.

    Args:
        problem: experts, heads, samples.
        criterion: labels or the experts' own answers.
        scale: coefficient of each expert alone; best one that the merges asked about will have.

    Raises:
        ValueError: an expert alone has no finite output at that scale.
    """
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"scale={scale} must be positive and finite; give the coefficient of the merges in question")
    names = problem.merges.labels
    count = len(names)
    rows = np.vstack([np.zeros(count), scale * np.eye(count), *(np.full((1, count), c / count) for c in COMMON)])
    values = np.stack([problem.logits(problem.merges.weights(row)) for row in rows])
    whole = np.array([bool(np.isfinite(value).all()) for value in values])
    broken = [name for name, fine in zip(names, whole[1 : 1 + count], strict=True) if not fine]
    if broken or not whole[0]:
        raise ValueError(f"{broken or ['x_0']} has no finite output at scale={scale}; lower it or leave the expert out")
    known = rows[whole], values[whole]
    # One of the two common merges may have broken; with both, nothing is known of what experts do to each other.
    if len(known[0]) < count + 2:
        raise ValueError(f"no merge of all {count} experts has a finite output; leave out the one that went furthest")
    surrogate = fit_surrogate(*known, values[0], problem.merges.gram(), trend=True)
    return MergeResponses(labels=names, criterion=criterion, surrogate=surrogate, rows=rows, values=values)
