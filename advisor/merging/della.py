"""DELLA (MagPrune): drop at random, small numbers more often, then elect signs and merge.

    r_p = rank of |τ_p| in its row, ascending, 0 ... n−1
    q_p = (density − ε) + 2ε r_p / (n − 1)        (q = density where n = 1)
    m_p ~ Bernoulli(q_p)        τ̂_p = m_p τ_p / q_p        E τ̂ = τ

A row is the slice of the first axis; a vector is one row. Needs 0 < density − ε and density + ε ≤ 1.
`elect=True` merges by sign election (`sign_election`), `elect=False` by the plain sum Σ c τ̂.
Defaults density = 0.5 and ε = 0.15 (the latter mergekit's). Rows of one number are drawn with q = density, where
mergekit divides by zero. Source: Tej Deep et al. 2024, arXiv 2406.11617. The rescaling by 1/q is the paper's; mergekit
uses the ratio of L1 norms.
"""

import numpy as np

from advisor.merging.number_formats import FloatArray
from advisor.merging.operator import Operator, TensorVectors
from advisor.merging.sign_election import Aggregate, check_aggregate, elect_and_merge
from advisor.merging.task_arithmetic import DEFAULT_COEFFICIENT
from advisor.merging.ties import check_density


def della_operator(
    *, density: float = 0.5, epsilon: float = 0.15, elect: bool = True, aggregate: Aggregate = "mean"
) -> Operator:
    """Magnitude-dependent random sparsification, then sign election or a plain sum.

    Raises:
        ValueError: density − epsilon ≤ 0 or density + epsilon > 1.
    """
    check_density(density)
    check_aggregate(aggregate)
    if not (epsilon >= 0 and density - epsilon > 0 and density + epsilon <= 1):
        raise ValueError(
            f"density={density}, epsilon={epsilon}: keep probabilities reach from density − epsilon to "
            "density + epsilon, which must lie in (0, 1]"
        )

    def merge(tensor: TensorVectors) -> FloatArray:
        rows = tensor.shape[0] if len(tensor.shape) > 1 else 1
        for label, vector in zip(tensor.labels, tensor.vectors, strict=True):
            probability = keep_probabilities(vector.reshape(rows, -1), density, epsilon).reshape(-1)
            kept = tensor.generator(label).random(vector.size, dtype=np.float32) < probability
            vector *= kept
            vector /= probability
        return elect_and_merge(tensor.scaled(), aggregate) if elect else tensor.weighted_sum()

    summed = not elect or aggregate == "sum"
    return Operator(
        name="della",
        merge=merge,
        default_coefficient=DEFAULT_COEFFICIENT if summed else 1.0,
        rest="sum" if summed else "mean",
        options={"density": density, "epsilon": epsilon, "elect": elect, "aggregate": aggregate},
    )


def keep_probabilities(rows: FloatArray, density: float, epsilon: float) -> FloatArray:
    """Q of every number of `rows` [R, n]; equal magnitudes rank in the order they stand."""
    width = rows.shape[1]
    if width <= 1 or epsilon == 0:
        return np.full_like(rows, density)
    steps = np.linspace(density - epsilon, density + epsilon, width, dtype=rows.dtype)
    probabilities = np.empty_like(rows)
    for magnitudes, target in zip(np.abs(rows), probabilities, strict=True):
        target[np.argsort(magnitudes, kind="stable")] = steps
    return probabilities
