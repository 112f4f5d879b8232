"""DARE: drop numbers of the task vectors at random and rescale the rest.

    m_tp ~ Bernoulli(density)        τ̂_tp = m_tp τ_tp / density        E τ̂ = τ
    dare:       x_avg = x₀ + Σ c_t τ̂_t
    dare_ties:  x_avg = x₀ + elect_and_merge(c τ̂)         (`sign_election`; no magnitude trim unless `trim` is given)

`density` = 1 − p of the paper; its examples use p = 0.9. `rescale=False` leaves the division out. Chance comes from
(seed, tensor, expert label), so the result does not depend on the order of experts or tensors. Source: Yu et al. 2023,
arXiv 2311.03099. (mergekit rescales each tensor by the ratio of L1 norms instead.)
"""

import numpy as np

from advisor.merging.number_formats import FloatArray
from advisor.merging.operator import Operator, TensorVectors
from advisor.merging.sign_election import Aggregate, check_aggregate, elect_and_merge
from advisor.merging.task_arithmetic import DEFAULT_COEFFICIENT
from advisor.merging.ties import check_density, tensor_threshold, trim


def dare_operator(*, density: float = 0.1, rescale: bool = True) -> Operator:
    """Random sparsification followed by task arithmetic."""
    check_density(density)

    def merge(tensor: TensorVectors) -> FloatArray:
        drop(tensor, density, rescale)
        return tensor.weighted_sum()

    return Operator(
        name="dare",
        merge=merge,
        default_coefficient=DEFAULT_COEFFICIENT,
        options={"density": density, "rescale": rescale},
    )


def dare_ties_operator(
    *, density: float = 0.1, rescale: bool = True, aggregate: Aggregate = "sum", trim_density: float = 1.0
) -> Operator:
    """Random sparsification followed by sign election; `trim_density` < 1 also trims each tensor by magnitude."""
    check_density(density)
    check_density(trim_density)
    check_aggregate(aggregate)

    def merge(tensor: TensorVectors) -> FloatArray:
        drop(tensor, density, rescale)
        if trim_density < 1:
            for row in tensor.vectors:
                trim(row, tensor_threshold(row, trim_density))
        return elect_and_merge(tensor.scaled(), aggregate)

    return Operator(
        name="dare_ties",
        merge=merge,
        default_coefficient=DEFAULT_COEFFICIENT if aggregate == "sum" else 1.0,
        rest="sum" if aggregate == "sum" else "mean",
        options={"density": density, "rescale": rescale, "aggregate": aggregate, "trim_density": trim_density},
    )


def drop(tensor: TensorVectors, density: float, rescale: bool) -> None:
    """Keep each number with probability `density`, in place."""
    if density == 1:
        return
    factor = tensor.vectors.dtype.type(1 / density if rescale else 1.0)
    for label, row in zip(tensor.labels, tensor.vectors, strict=True):
        kept = tensor.generator(label).random(row.size, dtype=np.float32) < density
        row *= kept
        row *= factor
