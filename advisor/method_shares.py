r"""Merge methods in the risk model: each one's share of progress and of interference, fitted on merges of the probes.

A method's merge at lambda acts like the linear merge with lambda pi in progress and lambda sqrt(kappa) in interference
(``docs/theory.md``); either share may exceed 1.  Both are fitted in logarithms around the linear merge's (1, 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from advisor.exposure import TaskScales
from advisor.observations import MergeObservation
from advisor.plan import FloatArray
from advisor.risk_fit import Fit, MovesOf, Targets, moves_of_all, targets
from advisor.risk_form import task_risk, unpack

METHOD_SCATTER = 0.03  # of a method against the linear merge of the same experts, in log risk
METHOD_WIDTH = 0.4  # prior width of a method's log shares of progress and interference


def fit_methods(
    merges: Sequence[MergeObservation],
    fits: Mapping[int, Fit],
    moves_of: MovesOf,
    scales: TaskScales,
    cosines: FloatArray,
) -> dict[str, tuple[float, float]]:
    """Shares (progress pi, interference kappa) of every merge method among the merges, given the linear merge's fit."""
    shares = {}
    parameters = {family: unpack(fit.theta, family) for family, fit in fits.items()}
    for method in sorted({merge.plan.method for merge in merges}):
        group = [merge for merge in merges if merge.plan.method == method]
        target = targets(group, scales.names, scatter=METHOD_SCATTER, paired=True)

        def residuals(
            logs: NDArray[np.float64],
            method: str = method,
            group: list[MergeObservation] = group,
            target: Targets = target,
        ) -> FloatArray:
            pair = (float(np.exp(logs[0])), float(np.exp(logs[1])))
            moves = moves_of_all(group, scales.names, moves_of, {method: pair})
            risk, _ = task_risk(parameters, moves, scales, cosines)
            misfit = (np.log(risk / scales.initial_risk) - target.values) * target.weight
            return np.concatenate([misfit.ravel(), logs / METHOD_WIDTH])

        logs = least_squares(residuals, np.zeros(2), max_nfev=40).x
        shares[method] = (float(np.exp(logs[0])), float(np.exp(logs[1])))
    return shares
