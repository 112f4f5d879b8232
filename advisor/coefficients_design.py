r"""Which merges a tuning measures before it searches.

    all labels      0;  1/N;  prior;  prior + step_i e_i        step_i = max(prior_i, mean(prior)/4)
    fewer labels    0;  e_i;  1/N;  prior                       an expert's own logits are the evidence there

x_0 and the simple average are what a merge is compared with, ``prior`` is what the weights suggest
(``advisor.coefficients_prior``).  The search then needs a direction for each expert.  Short steps in the useful region
tell more than experts alone, which may be far outside it: on 18 development problems the search came within 0.001 nats
of the best two merges sooner.  Experts alone are measured for the verdicts all the same.
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
LEAST_STEP = 0.25  # of the mean coefficient: how far an expert is raised at least


def first_merges(merges: Recombination, settings: Settings) -> list[FloatArray]:
    """Coefficients [N] of the merges that a search of linear merges starts from; the first is x_0."""
    count = len(merges.labels)
    total = 1.0 if settings.simplex else None
    prior = prior_coefficients(merges.gram(), float(merges.start.norm()), bounds=settings.bounds, total=total)
    known = [np.zeros(count), np.full(count, 1 / count), prior]
    if settings.labels != "all":
        return [known[0], *np.eye(count), *known[1:]]
    raised = prior + np.diag(np.maximum(prior, LEAST_STEP * prior.mean()))
    if settings.simplex:
        return [*known, *(raised / raised.sum(axis=1, keepdims=True))]
    return [*known, *np.clip(raised, *settings.bounds)]


def operator_merges(method: str, best: FloatArray, settings: Settings) -> list[FloatArray]:
    """X_0 and three common scales of an operator, shaped like the best linear merge ``best`` [N]."""
    count = len(best)
    usual = build_operator(method, {}).default_coefficient
    shape = best / best.mean() if best.mean() > NEGLIGIBLE else np.ones(count)
    scales = [np.full(count, usual), usual * 0.5 * np.ones(count), usual * 0.5 * shape]
    return [np.zeros(count), *(np.clip(row, *settings.bounds) for row in scales)]
