r"""Cosines between the experts' drifts, from the Gram matrices of probe task vectors.

Noise of independent runs is orthogonal on average, so <tau_i, tau_j> measures c_ij u_i u_j.  For each family of
optimizers, least squares over the probes with a normal prior around what the gradients at x_0 let expect:

    minimise over c   sum_r q_r (gram_r - c u_ri u_rj)^2 D / (d_ri d_rj)^2 + (c - c_0)^2 / w^2,
    c_0 = ALIGNED g_ij,    g: cosine of the training gradients

D is the effective dimension of the noise: two random vectors have a cosine of about 1/sqrt(D).  From some 80 steps on
the cosines of task vectors no longer change with rate or length (development suites, ``docs/risk-model-log.md``).
Probes of the other family count with q = OTHER_FAMILY.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from advisor.displacement_law import DisplacementLaw
from advisor.exposure import FAMILIES, Exposure, TaskScales, nearest_cosines
from advisor.observations import MergeObservation
from advisor.plan import FloatArray, PlanTable

# Chosen on the development suites' task vectors from 160 steps on.  Those suites' drifts are alike by 0.15 where their
# gradients are not, but tasks are taken as strangers until probes say otherwise: help that is not there costs more.
ALIGNED = 0.7
PRIOR_WIDTH = 0.15
NOISE_DIMENSIONS = (20.0, 1000.0)  # D of each family: steps of AdamW spread noise over far more directions
OTHER_FAMILY = 0.5


def drift_cosines(
    merges: Sequence[MergeObservation], law: DisplacementLaw, scales: TaskScales, num_samples: dict[str, int]
) -> FloatArray:
    """Cosines [families, N, N] of the drifts."""
    prior = ALIGNED * scales.gradient_cosine
    top = np.zeros((len(FAMILIES), *prior.shape))
    bottom = np.zeros_like(top)
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
        family = exposure.family[0, columns]
        drift = np.sqrt(law.parts(exposure, scales)[1][0, columns])
        length = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
        product = np.outer(drift, drift)
        precision = np.where(np.equal.outer(family, family), np.array(NOISE_DIMENSIONS)[family], 0.0)
        precision = precision / np.outer(length, length) ** 2
        where = np.ix_(columns, columns)
        for own in range(len(FAMILIES)):
            counts = precision * np.where(family == own, 1.0, OTHER_FAMILY)
            top[own][where] += counts * product * matrix
            bottom[own][where] += counts * product**2
    cosines = (top + prior / PRIOR_WIDTH**2) / (bottom + 1 / PRIOR_WIDTH**2)
    cosines[:, np.arange(len(prior)), np.arange(len(prior))] = 1.0
    return np.stack([nearest_cosines(matrix) for matrix in np.clip(cosines, -1.0, 1.0)])
