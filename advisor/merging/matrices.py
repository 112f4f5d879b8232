"""Which tensors are matrices, and the linear algebra that matrix methods share.

Policy for weights W (out, in, ...): two axes are a matrix as they are; more axes are reshaped to (out, in·kh·kw) with
`convolutions="matrix"`, the natural reading of a convolution as a linear map on patches, or take the mean of the
task vectors with `convolutions="mean"`, as the published implementations do. Tensors whose smaller side is 1 (biases,
norms, `cls_token`) hold no matrix and take the mean.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from advisor.merging.number_formats import FloatArray
from advisor.merging.operator import TensorVectors

Convolutions = Literal["matrix", "mean"]
MatrixRule = Callable[[FloatArray], FloatArray]


def check_convolutions(convolutions: str) -> None:
    """Refuse an unknown policy.

    Raises:
        ValueError: not matrix or mean.
    """
    if convolutions not in ("matrix", "mean"):
        raise ValueError(f"convolutions={convolutions!r} must be 'matrix' or 'mean'")


def matrix_shape(shape: tuple[int, ...], convolutions: Convolutions) -> tuple[int, int] | None:
    """(rows, columns) of a tensor that counts as a matrix, else None."""
    if len(shape) < 2 or (len(shape) > 2 and convolutions == "mean"):
        return None
    rows, columns = shape[0], int(np.prod(shape[1:]))
    return (rows, columns) if min(rows, columns) > 1 else None


def by_matrix(rule: MatrixRule, convolutions: Convolutions) -> Callable[[TensorVectors], FloatArray]:
    """An operator's `merge`: the rule on scaled task matrices [N, m, n], the mean for everything else.

    Experts whose scaled matrix is zero take no part; if none is left the change is zero.
    """

    def merge(tensor: TensorVectors) -> FloatArray:
        shape = matrix_shape(tensor.shape, convolutions)
        if shape is None:
            return tensor.weighted_mean()
        matrices = tensor.scaled().reshape(-1, *shape)
        moved = [bool(matrix.any()) for matrix in matrices]
        if not any(moved):
            return np.zeros_like(tensor.base)
        return rule(matrices if all(moved) else matrices[moved]).reshape(-1).astype(tensor.base.dtype, copy=False)

    return merge


def nearest_orthogonal(matrix: FloatArray) -> FloatArray:
    """Procrustes: P Q' of the thin SVD P D Q', the orthonormal factor nearest to `matrix`."""
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    nearest: FloatArray = left @ right
    return nearest


def solve_right(target: FloatArray, gram: FloatArray) -> FloatArray:
    """X with X·gram = target, for symmetric positive definite gram [n, n], by Cholesky in fp64."""
    from scipy.linalg import cho_factor, cho_solve

    factor = cho_factor(gram.astype(np.float64), lower=True, check_finite=False)
    solved: FloatArray = cho_solve(factor, target.astype(np.float64).T, check_finite=False).T
    return solved
