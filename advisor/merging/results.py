"""The result of a merge: the recipe as it was used and what the pass over the weights learned."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.merging.grams import GramMatrix, TaskVectorGram


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeResult:
    """What was merged, how, and the inner products that came out of the same pass.

    Attributes:
        method: name of the operator.
        options: its options, with what a survey found (thresholds, weights).
        coefficients: c_t by label, as the operator used them.
        tensor_coefficients: tensors that had their own coefficients [N], in the order of labels.
        seed: of random operators.
        task_vectors: Gram matrices, norms and cosines, in all and per tensor.
        files: what was written, model files first; empty for a merge in memory.
        kept: tensors copied from the base, among them integers on which the experts disagree.
        statistics: BatchNorm statistics, which took the linear rule.
        notes: tensors kept from the base, and why.
    """

    method: str
    options: Mapping[str, Any]
    coefficients: Mapping[str, float]
    tensor_coefficients: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    seed: int
    task_vectors: TaskVectorGram
    files: tuple[Path, ...] = ()
    kept: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the experts, in the order of the matrices."""
        return self.task_vectors.labels

    @property
    def gram(self) -> GramMatrix:
        """⟨τ_a, τ_b⟩ over all parameters, shape [N, N]."""
        return self.task_vectors.gram

    @property
    def norms(self) -> NDArray[np.float64]:
        """‖τ_t‖, shape [N]."""
        return self.task_vectors.norms

    @property
    def cosines(self) -> GramMatrix:
        """cos(τ_a, τ_b), shape [N, N]."""
        return self.task_vectors.cosines
