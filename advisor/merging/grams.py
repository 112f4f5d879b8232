"""Inner products of task vectors, per tensor and in all: the cheap figures everything else is read from.

    G_ab = ⟨τ_a, τ_b⟩,   ‖τ_a‖ = √G_aa,   cos_ab = G_ab / (‖τ_a‖ ‖τ_b‖)

Products are formed in the working dtype over blocks of 2¹⁶ elements and summed in fp64; against a full fp64 sum the
relative error of a norm is below 1e-6. BatchNorm statistics and kept tensors do not count.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GramMatrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorStatistics:
    """What one pass learns of one tensor: Gram matrix [N, N] and the squared norm of the base."""

    gram: GramMatrix
    base_square: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskVectorGram:
    """Gram matrix of the task vectors over all parameters, and of each parameter tensor.

    Attributes:
        labels: names of the experts, in the order of rows.
        gram: G [N, N].
        base_norm: ‖x₀‖.
        tensors: name → its own G [N, N]; tied tensors appear once.
    """

    labels: tuple[str, ...]
    gram: GramMatrix
    base_norm: float
    tensors: Mapping[str, GramMatrix]

    def __post_init__(self) -> None:
        count = len(self.labels)
        if self.gram.shape != (count, count):
            raise ValueError(f"gram.shape={self.gram.shape} must be ({count}, {count}), one row for each expert")

    @property
    def norms(self) -> NDArray[np.float64]:
        """‖τ_t‖, shape [N]."""
        return norms_of(self.gram)

    @property
    def cosines(self) -> GramMatrix:
        """Cosines [N, N]; 0 where a task vector is zero."""
        return cosines_of(self.gram)

    def tensor_norms(self, name: str) -> NDArray[np.float64]:
        """‖τ_t‖ of one tensor, shape [N]."""
        return norms_of(self.tensors[name])

    def tensor_cosines(self, name: str) -> GramMatrix:
        """Cosines of one tensor, shape [N, N]."""
        return cosines_of(self.tensors[name])

    def displacement(self, coefficients: NDArray[np.floating[Any]]) -> float:
        """‖x_avg − x₀‖ = √(cᵀ G c) of a linear merge, without touching a weight."""
        return float(np.sqrt(max(float(coefficients @ self.gram @ coefficients), 0.0)))


def norms_of(gram: GramMatrix) -> NDArray[np.float64]:
    """√ of the diagonal, shape [N]."""
    return np.sqrt(np.diagonal(gram))


def cosines_of(gram: GramMatrix) -> GramMatrix:
    """G_ab / √(G_aa G_bb), shape [N, N]; 0 where a norm is 0."""
    products = np.outer(norms_of(gram), norms_of(gram))
    return np.divide(gram, products, out=np.zeros_like(gram), where=products > 0)


def sum_statistics(labels: tuple[str, ...], tensors: Mapping[str, TensorStatistics]) -> TaskVectorGram:
    """Totals over tensors, summed in the order given."""
    count = len(labels)
    total = np.zeros((count, count))
    base_square = 0.0
    for statistics in tensors.values():
        total += statistics.gram
        base_square += statistics.base_square
    return TaskVectorGram(
        labels=labels,
        gram=total,
        base_norm=base_square**0.5,
        tensors={name: statistics.gram for name, statistics in tensors.items()},
    )
