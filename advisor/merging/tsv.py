"""TSV-M: keep the leading singular vectors of each task and make them orthogonal to one another.

    τ_t = U_t S_t V_t',  keep k = max(1, ⌊min(m, n)/N⌋) triplets each
    U = [U_1 ... U_N] (m, kN),  U_o = P Q' of U = P D Q';  V_o likewise;  S = all kept singular values
    M = U_o diag(S) V_o'        x_avg = x₀ + M

On matrices c_t τ_t (see `matrices`); the mean of c_t τ_t elsewhere. Default c = 1 (α = 1 of the paper).
Source: Gargiulo et al. 2024, Task Singular Vectors, arXiv 2412.00081.
"""

import numpy as np

from advisor.merging.matrices import Convolutions, by_matrix, check_convolutions, nearest_orthogonal
from advisor.merging.number_formats import FloatArray
from advisor.merging.operator import Operator


def tsv_operator(*, convolutions: Convolutions = "matrix") -> Operator:
    """Task singular vectors, decorrelated."""
    check_convolutions(convolutions)
    return Operator(
        name="tsv_m",
        merge=by_matrix(merge_singular_vectors, convolutions),
        rest="mean",
        options={"convolutions": convolutions},
    )


def merge_singular_vectors(matrices: FloatArray) -> FloatArray:
    """M [m, n] of task matrices [N, m, n]."""
    count, rows, columns = matrices.shape
    kept = max(1, min(rows, columns) // count)
    left, values, right = [], [], []
    for matrix in matrices:
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
        left.append(u[:, :kept])
        values.append(s[:kept])
        right.append(vt[:kept])
    u_o = nearest_orthogonal(np.concatenate(left, axis=1))
    v_o = nearest_orthogonal(np.concatenate(right, axis=0))
    merged: FloatArray = (u_o * np.concatenate(values)) @ v_o
    return merged
