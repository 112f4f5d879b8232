"""TIES: trim, elect signs, merge what agrees.

    trim:   τ̂_t = τ_t where |τ_t| ≥ θ_t, else 0;   θ_t = the k-th largest |τ_t|, k = max(1, ⌊density · n⌋)
    elect and merge: see `sign_election`, on v_t = c_t τ̂_t
    x_avg = x₀ + m

`scope="global"` takes θ_t over the whole model (the paper, its code), `scope="tensor"` over each tensor (mergekit).
Numbers equal to the threshold are all kept. With equal coefficients c and `aggregate="mean"` this is the paper's rule
with λ = c. Defaults density = 0.2 and c = 1 are the paper's; a sum defaults to c = 0.3, as task arithmetic does.

The global threshold is exact: fp32 magnitudes are ordered like their bits, one pass counts the upper 16 bits, a second
the lower 15 within the bin that holds the threshold, a third merges. Memory: 2¹⁶ counters for each expert. (For fp64
checkpoints the threshold is exact to fp32.)
Source: Yadav et al. 2023, arXiv 2306.01708.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from advisor.merging.number_formats import FloatArray
from advisor.merging.operator import Blocks, Operator, TensorVectors
from advisor.merging.sign_election import Aggregate, check_aggregate, elect_and_merge

Scope = Literal["tensor", "global"]
Thresholds = tuple[float, ...]
_LOW_BITS = 15  # of the 31 bits of a non-negative fp32; the upper 16 come first


def ties_operator(*, density: float = 0.2, scope: Scope = "global", aggregate: Aggregate = "mean") -> Operator:
    """TIES with its three choices: how much is kept, over what, and how agreeing numbers are merged.

    Raises:
        ValueError: density outside (0, 1], or an unknown scope or aggregate.
    """
    check_density(density)
    check_aggregate(aggregate)
    if scope not in ("tensor", "global"):
        raise ValueError(f"scope={scope!r} must be 'tensor' or 'global'")
    options = {"density": density, "scope": scope, "aggregate": aggregate}
    rest: Literal["sum", "mean"] = "sum" if aggregate == "sum" else "mean"
    default = 0.3 if aggregate == "sum" else 1.0

    def merge_with(thresholds: Thresholds | None, tensor: TensorVectors) -> FloatArray:
        for number, row in enumerate(tensor.vectors):
            trim(row, tensor_threshold(row, density) if thresholds is None else thresholds[number])
        return elect_and_merge(tensor.scaled(), aggregate)

    def survey(blocks: Blocks) -> Operator:
        thresholds = global_thresholds(blocks, density)
        return Operator(
            name="ties",
            merge=lambda tensor: merge_with(thresholds, tensor),
            default_coefficient=default,
            rest=rest,
            elementwise=True,
            options={**options, "thresholds": thresholds},
        )

    return Operator(
        name="ties",
        merge=lambda tensor: merge_with(None, tensor),
        default_coefficient=default,
        rest=rest,
        passes=1 if scope == "tensor" else 3,
        survey=survey if scope == "global" else None,
        options=options,
    )


def check_density(density: float) -> None:
    """Refuse a share of kept numbers outside (0, 1].

    Raises:
        ValueError: outside the range.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density={density} must be above 0 and at most 1: it is the share of numbers kept")


def tensor_threshold(vector: FloatArray, density: float) -> float:
    """The k-th largest magnitude of a vector [n], k = max(1, ⌊density · n⌋)."""
    kept = max(1, int(density * vector.size))
    if kept >= vector.size:
        return 0.0
    magnitudes = np.abs(vector)
    magnitudes.partition(vector.size - kept)
    return float(magnitudes[vector.size - kept])


def trim(vector: FloatArray, threshold: float) -> None:
    """Set what is below the threshold to zero, in place."""
    np.multiply(vector, np.abs(vector) >= threshold, out=vector)


def global_thresholds(blocks: Blocks, density: float) -> Thresholds:
    """The k-th largest magnitude of each task vector over all blocks, exact to fp32, in two readings."""
    high: NDArray[np.int64] | None = None
    for block in blocks():
        if high is None:
            high = np.zeros((len(block.labels), 1 << 16), dtype=np.int64)
        for counts, row in zip(high, block.vectors, strict=True):
            counts += np.bincount(_magnitude_bits(row) >> np.uint32(_LOW_BITS), minlength=1 << 16)
    if high is None:
        return ()
    kept = [max(1, int(density * int(counts.sum()))) for counts in high]
    located = [_descend(counts, count) for counts, count in zip(high, kept, strict=True)]
    low = np.zeros((len(located), 1 << _LOW_BITS), dtype=np.int64)
    for block in blocks():
        for counts, row, (bin_number, _) in zip(low, block.vectors, located, strict=True):
            bits = _magnitude_bits(row)
            inside = bits[(bits >> np.uint32(_LOW_BITS)) == bin_number] & np.uint32((1 << _LOW_BITS) - 1)
            counts += np.bincount(inside, minlength=1 << _LOW_BITS)
    return tuple(
        _from_bits((bin_number << _LOW_BITS) | _descend(counts, remaining)[0])
        for counts, (bin_number, remaining) in zip(low, located, strict=True)
    )


def _magnitude_bits(row: FloatArray) -> NDArray[np.uint32]:
    return row.astype(np.float32, copy=False).view(np.uint32) & np.uint32(0x7FFFFFFF)


def _descend(counts: NDArray[np.int64], kept: int) -> tuple[int, int]:
    """The bin that holds the `kept`-th largest number, and its rank inside that bin."""
    from_above = np.cumsum(counts[::-1])
    steps = int(np.searchsorted(from_above, kept))
    above = int(from_above[steps - 1]) if steps else 0
    return counts.size - 1 - steps, kept - above


def _from_bits(bits: int) -> float:
    return float(np.array([bits], dtype=np.uint32).view(np.float32)[0])
