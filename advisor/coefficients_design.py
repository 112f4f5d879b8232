r"""Which merges a tuning measures before it searches.

    all labels      0;  1/N;  prior;  prior + step_i e_i        step_i = max(prior_i, mean(prior)/4, 0.02)
    fewer labels    0;  e_i;  1/N;  prior                       an expert's own logits are the evidence there

x_0 and the simple average are what a merge is compared with, ``prior`` is what the weights suggest
(``advisor.coefficients_prior``).  The search then needs a direction for each expert.  Short steps in the useful region
tell more than experts alone, which may be far outside it: on 18 development problems the search came within 0.001 nats
of the best two merges sooner.  Experts alone are measured for the verdicts all the same.

The steps also tell how strongly the logits answer to each expert's weights, so that the search's distances
(``advisor.coefficients_surrogate``) can be in what merges do instead of how far their weights lie apart:

    metric_ij = w_i w_j <tau_i, tau_j>,   w_i ~ ||z(prior + step_i e_i) - z(prior)|| / (step_i ||tau_i||),   prod w = 1

A short expert's weights were moved in few, effective directions, a long one's much by noise: on the development
problems w differs severalfold between experts of unequal histories, and with it the search stops two merges sooner.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from advisor.coefficients import Settings
from advisor.coefficients_prior import prior_coefficients
from advisor.coefficients_recombining import Recombination
from advisor.coefficients_verdicts import NEGLIGIBLE
from advisor.merging.registry import build_operator

FloatArray = NDArray[np.float64]
BEFORE_STEPS = 2  # where in ``first_merges`` the prior and the steps from it begin
LEAST_SHARE, LEAST_STEP = 0.25, 0.02  # of the mean coefficient, and at all: how far an expert is raised at least


def first_merges(merges: Recombination, settings: Settings) -> list[FloatArray]:
    """Coefficients [N] of the merges that a search of linear merges starts from; the first is x_0."""
    count = len(merges.labels)
    total = 1.0 if settings.simplex else None
    prior = prior_coefficients(merges.gram(), float(merges.start.norm()), bounds=settings.bounds, total=total)
    known = [np.zeros(count), np.full(count, 1 / count), prior]
    if settings.labels != "all":
        return [known[0], *np.eye(count), *known[1:]]
    raised = prior + np.diag(np.maximum(prior, max(LEAST_SHARE * prior.mean(), LEAST_STEP)))
    if settings.simplex:
        return [*known, *(raised / raised.sum(axis=1, keepdims=True))]
    return [*known, *np.clip(raised, *settings.bounds)]


def response_metric(gram: FloatArray, rows: list[FloatArray], values: list[FloatArray]) -> FloatArray:
    """The metric [N, N] from a merge and N steps away from it; ``gram`` itself where a step tells nothing.

    Args:
        gram: inner products of the task vectors [N, N].
        rows: coefficients of the merge and of the steps, N + 1.
        values: their logits [S].
    """
    lengths = np.diag(np.stack(rows[1:]) - rows[0]) * np.sqrt(np.diag(gram))
    moved = np.array([np.linalg.norm(value - values[0]) for value in values[1:]])
    if not (np.isfinite(moved).all() and (moved > 0).all() and (lengths > 0).all()):
        return gram
    strength = moved / lengths
    strength /= np.exp(np.log(strength).mean())
    return np.asarray(gram * np.outer(strength, strength))


def operator_merges(method: str, best: FloatArray, settings: Settings) -> list[FloatArray]:
    """X_0 and three common scales of an operator, shaped like the best linear merge ``best`` [N]."""
    count = len(best)
    usual = build_operator(method, {}).default_coefficient
    shape = best / best.mean() if best.mean() > NEGLIGIBLE else np.ones(count)
    scales = [np.full(count, usual), usual * 0.5 * np.ones(count), usual * 0.5 * shape]
    return [np.zeros(count), *(np.clip(row, *settings.bounds) for row in scales)]
