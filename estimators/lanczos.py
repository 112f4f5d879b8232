r"""The largest eigenvalue of a symmetric matrix that is only known by its products: Lanczos.

k products build an orthonormal basis Q [D, k] and a tridiagonal T = Q^T A Q; theta = lambda_max(T) with vector s gives

    theta <= lambda_max(A)                                  always (Rayleigh-Ritz)
    ||A y - theta y|| = beta_k |s_k| = residual, y = Q s     so an eigenvalue of A lies within residual of theta

Every new vector is orthogonalised against the whole basis, twice (Parlett & Scott 1979: enough); without it, rounding
brings in ghosts of converged eigenvalues.  With a random start the eigenvalue found is the largest one unless the
start has next to no component along its vector (Kuczynski & Wozniakowski 1992).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from estimators.curvature import Product

BREAKDOWN = 1e-6  # relative: the basis spans an invariant subspace to float32 precision


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LanczosResult:
    """The top of a spectrum.

    Attributes:
        value: theta, the largest Ritz value.
        residual: ||A y - theta y|| for the unit vector y.
        vector: y [D].
        products: matrix-vector products used.
        ritz_values: all Ritz values, ascending.
    """

    value: float
    residual: float
    vector: Tensor
    products: int
    ritz_values: NDArray[np.float64]


def top_eigenvalue(product: Product, start: Tensor, *, max_products: int, tolerance: float = 1e-3) -> LanczosResult:
    """Largest eigenvalue by at most ``max_products`` products, earlier once residual <= tolerance * |theta|.

    Args:
        product: v [D] -> A v [D], A symmetric.
        start: start vector [D], not zero; random, or a guess.
        max_products: at least 1.
        tolerance: relative residual to stop at.
    """
    if max_products < 1:
        raise ValueError(f"max_products={max_products} must be at least 1; allow one product")
    norm = float(start.norm())
    if not norm > 0:
        raise ValueError("start=0 has no direction; pass a random vector")
    basis = [start / norm]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        image = product(basis[-1])
        diagonal.append(float(torch.dot(basis[-1], image)))
        rest = image
        for _ in range(2):
            for vector in basis:
                rest = rest - torch.dot(vector, rest) * vector
        beta = float(rest.norm())
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
        residual = beta * abs(float(vectors[-1, -1]))
        spread = max(abs(values[0]), abs(values[-1]))
        done = beta <= BREAKDOWN * spread or spread == 0 or residual <= tolerance * abs(float(values[-1]))
        if done or len(diagonal) == max_products or len(basis) == start.numel():
            break
        beside.append(beta)
        basis.append(rest / beta)
    combined = torch.zeros_like(start)
    for weight, vector in zip(vectors[:, -1], basis, strict=True):
        combined += float(weight) * vector
    return LanczosResult(
        value=float(values[-1]),
        residual=float(residual),
        vector=combined / combined.norm(),
        products=len(diagonal),
        ritz_values=np.asarray(values, dtype=np.float64),
    )


def random_direction(like: Tensor, seed: int) -> Tensor:
    """A unit vector drawn uniformly from the sphere, the same on every device."""
    draw = torch.randn(like.numel(), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    unit: Tensor = draw / draw.norm()
    return unit.to(like.dtype).to(like.device)  # in this order: MPS has no float64
