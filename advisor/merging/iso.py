"""Isotropic merging: flatten the spectrum of the summed task matrix, so that no task's directions dominate.

    Iso-C:    D = Σ τ_t = U S V'        M = mean(S) · U V'
    Iso-CTS:  r = min(m, n);  common size k = r − N · round((r − ⌊f r⌋)/N),  f = 0.8 (rounded down where k < 1)
              U_k, V_k: first k singular vectors of D; of each task, the first (r − k)/N triplets of (I − U_k U_k') τ_t
              M = mean(all singular values kept) · U_o V_o',  U_o, V_o orthogonalised as in TSV-M
    x_avg = x₀ + M

On matrices c_t τ_t (see `matrices`); the mean of c_t τ_t elsewhere. Default c = 1; the paper tunes a common factor (α
up to 1.5). Source: Marczak et al. 2025, No Task Left Behind, arXiv 2502.04959.
"""

import numpy as np

from advisor.merging.matrices import Convolutions, by_matrix, check_convolutions, nearest_orthogonal
from advisor.merging.number_formats import FloatArray
from advisor.merging.operator import Operator


def iso_c_operator(*, convolutions: Convolutions = "matrix") -> Operator:
    """Isotropic merging in the common subspace."""
    check_convolutions(convolutions)
    return Operator(
        name="iso_c",
        merge=by_matrix(flatten_spectrum, convolutions),
        rest="mean",
        options={"convolutions": convolutions},
    )


def iso_cts_operator(*, common: float = 0.8, convolutions: Convolutions = "matrix") -> Operator:
    """Isotropic merging in common and task-specific subspaces.

    Raises:
        ValueError: a common share outside (0, 1].
    """
    check_convolutions(convolutions)
    if not 0 < common <= 1:
        raise ValueError(f"common={common} must be above 0 and at most 1: it is the share of common directions")
    return Operator(
        name="iso_cts",
        merge=by_matrix(lambda matrices: flatten_with_tasks(matrices, common), convolutions),
        rest="mean",
        options={"common": common, "convolutions": convolutions},
    )


def flatten_spectrum(matrices: FloatArray) -> FloatArray:
    """Iso-C [m, n] of task matrices [N, m, n]."""
    left, values, right = np.linalg.svd(matrices.sum(axis=0), full_matrices=False)
    flat: FloatArray = values.mean() * (left @ right)
    return flat


def flatten_with_tasks(matrices: FloatArray, common: float) -> FloatArray:
    """Iso-CTS [m, n] of task matrices [N, m, n]."""
    count = len(matrices)
    left, values, right = np.linalg.svd(matrices.sum(axis=0), full_matrices=False)
    size = common_size(len(values), count, common)
    each = (len(values) - size) // count
    lefts, sizes, rights = [left[:, :size]], [values[:size]], [right[:size]]
    for matrix in matrices if each else ():
        outside = matrix - lefts[0] @ (lefts[0].T @ matrix)
        u, s, vt = np.linalg.svd(outside, full_matrices=False)
        lefts.append(u[:, :each])
        sizes.append(s[:each])
        rights.append(vt[:each])
    u_o = nearest_orthogonal(np.concatenate(lefts, axis=1))
    v_o = nearest_orthogonal(np.concatenate(rights, axis=0))
    flat: FloatArray = np.concatenate(sizes).mean() * (u_o @ v_o)
    return flat


def common_size(rank: int, count: int, common: float) -> int:
    """How many of `rank` directions are common; the rest divides evenly among `count` tasks."""
    specific = rank - int(common * rank)
    size = rank - count * round(specific / count)
    return size if size >= 1 else rank - count * (specific // count)
