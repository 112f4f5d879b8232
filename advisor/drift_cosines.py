r"""Cosines between the experts' drifts, from the Gram matrices of probe task vectors.

Noise of independent runs is orthogonal on average, so <tau_i, tau_j> measures c_ij u_i u_j.  Least squares over the
probes with a normal prior around the cosine of the gradients at x_0:

    minimise over c   sum_r (gram_r - c u_ri u_rj)^2 / s_r^2 + (c - c_0)^2 / w^2,   s_r = d_ri d_rj / sqrt(D)

D is the effective dimension of the noise: two random vectors have a cosine of about 1/sqrt(D).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from advisor.displacement_law import DisplacementLaw
from advisor.exposure import COSINE_WIDTH, Exposure, TaskScales, nearest_cosines
from advisor.observations import MergeObservation
from advisor.plan import FloatArray, PlanTable

NOISE_DIMENSION = 30.0  # noise of a fine-tune fills about so many directions evenly


def drift_cosines(
    merges: Sequence[MergeObservation], law: DisplacementLaw, scales: TaskScales, num_samples: dict[str, int]
) -> FloatArray:
    """Cosines [N, N] of the drifts; the gradients' own where no probe kept a Gram matrix."""
    prior = scales.gradient_cosine
    top = np.zeros_like(prior)
    bottom = np.zeros_like(prior)
    seen: set[tuple[object, ...]] = set()
    for merge in merges:
        gram = merge.displacement_gram
        key = (*merge.plan.recipes.items(), merge.seed)
        if gram is None or key in seen:
            continue
        seen.add(key)
        matrix = np.array(gram)
        if not np.isfinite(matrix).all():
            continue
        exposure = Exposure.of(PlanTable.from_plans([merge.plan], num_samples), scales)
        columns = [scales.names.index(name) for name in merge.plan.names]
        drift = np.sqrt(law.parts(exposure, scales)[1][0, columns])
        length = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
        product = np.outer(drift, drift)
        precision = NOISE_DIMENSION / np.outer(length, length) ** 2
        where = np.ix_(columns, columns)
        top[where] += precision * product * matrix
        bottom[where] += precision * product**2
    cosines = (top + prior / COSINE_WIDTH**2) / (bottom + 1 / COSINE_WIDTH**2)
    np.fill_diagonal(cosines, 1.0)
    return nearest_cosines(np.clip(cosines, -1.0, 1.0))
