"""MetaGPT: coefficients in closed form, by squared task-vector norms over the whole model.

    λ_t = ‖τ_t‖² / Σ_k ‖τ_k‖²        x_avg = x₀ + Σ c_t λ_t τ_t         (c_t = 1 unless given)

Derived by its authors under a locally linear model with orthogonal task vectors. Needs a first pass for the norms.
Source: Zhou et al. 2024, arXiv 2406.11385.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from advisor.merging.number_formats import FloatArray
from advisor.merging.operator import Blocks, Operator, TensorVectors


def metagpt_operator() -> Operator:
    """Task arithmetic with coefficients from norms."""
    return Operator(
        name="metagpt",
        merge=TensorVectors.weighted_mean,  # never called: the survey replaces it
        rest="mean",
        elementwise=True,
        passes=2,
        survey=_survey,
    )


def metagpt_coefficients(norms: Sequence[float]) -> tuple[float, ...]:
    """λ_t from ‖τ_t‖, for example those of `task_vector_gram`.

    Raises:
        ValueError: all norms are zero.
    """
    squares = np.asarray(norms, dtype=np.float64) ** 2
    if not squares.sum() > 0:
        raise ValueError(f"norms={list(norms)}: at least one task vector must differ from zero")
    return tuple((squares / squares.sum()).tolist())


def _survey(blocks: Blocks) -> Operator:
    squares: NDArray[np.float64] | None = None
    for block in blocks():
        found = np.array([float(np.dot(row, row)) for row in block.vectors])
        squares = found if squares is None else squares + found
    weights = metagpt_coefficients(np.sqrt(squares).tolist() if squares is not None else [])

    def merge(tensor: TensorVectors) -> FloatArray:
        return dataclasses.replace(tensor, coefficients=tensor.coefficients * np.array(weights)).weighted_sum()

    return Operator(name="metagpt", merge=merge, rest="mean", elementwise=True, options={"weights": weights})
