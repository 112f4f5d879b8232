"""Elect one sign for each number and merge only the task vectors that agree with it.

    g_p = sgn(Σ_t v_tp),      A_p = {t : sgn(v_tp) = g_p}
    sum: Σ_{A_p} v_tp      mean: Σ_{A_p} v_tp / max(1, |A_p|)      max: g_p max_{A_p} |v_tp|

`v = c τ̂` are the (sparsified) task vectors times their coefficients, so an expert with coefficient 0 takes no
part, and a common factor of all coefficients scales the result. Shapes: v `[N, n]`, result `[n]`.
Where numbers cancel exactly, g_p = 0 and the formula merges to 0; the paper's code takes the model's majority sign
there, and mergekit the positive one.
Source: Yadav et al. 2023, TIES-Merging, arXiv 2306.01708, steps 2 and 3.
"""

from typing import Literal

import numpy as np

from advisor.merging.number_formats import FloatArray

Aggregate = Literal["mean", "sum", "max"]
_BLOCK = 1 << 15  # elements: a block of every operand stays in the cache


def check_aggregate(aggregate: str) -> None:
    """Refuse an unknown aggregate.

    Raises:
        ValueError: not mean, sum or max.
    """
    if aggregate not in ("mean", "sum", "max"):
        raise ValueError(f"aggregate={aggregate!r} must be 'mean', 'sum' or 'max'")


def elect_and_merge(vectors: FloatArray, aggregate: Aggregate) -> FloatArray:
    """Merged task vector [n] of task vectors [N, n]."""
    merged = np.empty(vectors.shape[1], dtype=vectors.dtype)
    for start in range(0, merged.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        merged[block] = _merge_block(vectors[:, block], aggregate)
    return merged


def _merge_block(block: FloatArray, aggregate: Aggregate) -> FloatArray:
    """Gather what is positive and what is negative; the elected sign picks one of the two."""
    total: FloatArray = block[0].copy()
    for row in block[1:]:
        total += row
    above: FloatArray = np.zeros_like(total)
    below = np.zeros_like(total)
    for row in block:
        if aggregate == "max":
            np.maximum(above, row, out=above)
            np.minimum(below, row, out=below)
        else:
            above += np.maximum(row, 0)
            below += np.minimum(row, 0)
    if aggregate == "mean":
        above /= np.maximum(np.sum(block > 0, axis=0, dtype=total.dtype), 1)
        below /= np.maximum(np.sum(block < 0, axis=0, dtype=total.dtype), 1)
    above *= total > 0
    below *= total < 0
    above += below
    return above
