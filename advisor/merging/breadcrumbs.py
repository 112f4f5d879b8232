"""Model Breadcrumbs: drop the largest numbers (outliers) and the smallest (noise) of each task vector, sum the rest.

    per tensor of n numbers, by |τ|: drop the ⌊γ n⌋ largest, keep the next max(1, ⌊density n⌋), drop the others
    x_avg = x₀ + Σ c_t τ̂_t

Magnitudes equal to a limit are all kept. γ = 0.01 and density = 0.1 are close to the paper's (keep the 90th to the
99th percentile); n < 1/γ drops no outlier.
Source: Davari & Belilovsky 2023, arXiv 2312.06795.
"""

import numpy as np

from advisor.merging.number_formats import FloatArray
from advisor.merging.operator import Operator, TensorVectors
from advisor.merging.task_arithmetic import DEFAULT_COEFFICIENT
from advisor.merging.ties import check_density


def breadcrumbs_operator(*, density: float = 0.1, gamma: float = 0.01) -> Operator:
    """Two-sided magnitude mask of each tensor, then task arithmetic.

    Raises:
        ValueError: gamma outside [0, 1).
    """
    check_density(density)
    if not 0 <= gamma < 1:
        raise ValueError(f"gamma={gamma} must be at least 0 and below 1: it is the share of outliers dropped")

    def merge(tensor: TensorVectors) -> FloatArray:
        for row in tensor.vectors:
            mask_both_ends(row, density, gamma)
        return tensor.weighted_sum()

    return Operator(
        name="breadcrumbs",
        merge=merge,
        default_coefficient=DEFAULT_COEFFICIENT,
        options={"density": density, "gamma": gamma},
    )


def mask_both_ends(vector: FloatArray, density: float, gamma: float) -> None:
    """Zero all of a vector [n] but its band of magnitudes, in place."""
    size = vector.size
    if size == 0:
        return
    highest = size - 1 - int(gamma * size)
    lowest = max(highest + 1 - max(1, int(density * size)), 0)
    magnitudes = np.abs(vector)
    ordered = np.partition(magnitudes, [lowest, highest])
    vector *= (magnitudes >= ordered[lowest]) & (magnitudes <= ordered[highest])
