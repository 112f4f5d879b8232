"""SLERP: the mean on the sphere, for two experts or more.

Two experts u, v with W = arccos(⟨u,v⟩ / |u||v|) and s = c_v / (c_u + c_v), per flattened tensor:

    x_avg = sin((1−s)W)/sin W · u + sin(sW)/sin W · v

For N experts the direction is the Karcher mean of û_t = x_t/|x_t| with weights c, the minimiser of Σ c_t ∠(m, û_t)².
It lies in their span, m = Σ a_t û_t, so it is found from the N×N cosines alone, and x_avg = Σ a_t x_t: the formula
above for N = 2, and free of the experts' order for any N. Where the sphere gives no unique or stable answer (all
cosines above 0.9995, any below −0.9995, a zero tensor) the weighted average is taken. Source of the formula: Shoemake
1985; limit 0.9995 as in common use.
"""

import math

import numpy as np
from numpy.typing import NDArray

from advisor.merging.number_formats import FloatArray
from advisor.merging.operator import Coefficients, Operator, TensorVectors

LINEAR_ABOVE = 0.9995
_ITERATIONS = 100
_TOLERANCE = 1e-12


def slerp_operator() -> Operator:
    """Spherical mean of the experts' tensors; only ratios of coefficients matter."""
    return Operator(name="slerp", merge=_merge, weights="normalize")


def _merge(tensor: TensorVectors) -> FloatArray:
    experts = tensor.vectors + tensor.base
    gram = (experts @ experts.T).astype(np.float64)
    shares = sphere_shares(gram, tensor.coefficients)
    total = np.zeros_like(tensor.base)
    for share, vector in zip(shares, tensor.vectors, strict=True):
        if share != 0.0:
            total += vector * total.dtype.type(share)
    excess = float(shares.sum()) - 1.0  # Σ a x − x₀ = Σ a τ + (Σa − 1) x₀
    if excess != 0.0:
        total += tensor.base * total.dtype.type(excess)
    return total


def sphere_shares(gram: NDArray[np.float64], weights: Coefficients) -> NDArray[np.float64]:
    """Shares a_t [N] of the experts in their spherical mean, from ⟨x_s, x_t⟩ [N, N] and weights that sum to 1."""
    used = np.flatnonzero(weights)
    norms = np.sqrt(np.diagonal(gram)[used])
    if len(used) < 2 or not (norms > 0).all():
        return weights
    cosines = np.clip(gram[np.ix_(used, used)] / np.outer(norms, norms), -1.0, 1.0)
    apart = cosines[~np.eye(len(used), dtype=bool)]
    if apart.min() > LINEAR_ABOVE or apart.min() < -LINEAR_ABOVE:
        return weights
    shares = np.zeros_like(weights)
    shares[used] = _karcher(cosines, weights[used])
    return shares


def _karcher(cosines: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = weights / np.sqrt(weights @ cosines @ weights)
    for _ in range(_ITERATIONS):
        towards = np.clip(cosines @ mean, -1.0, 1.0)
        angles = np.arccos(towards)
        ratios = np.divide(angles, np.sin(angles), out=np.ones_like(angles), where=np.sin(angles) > 1e-9)
        step = weights * ratios - (weights * ratios * towards).sum() * mean
        length = math.sqrt(max(float(step @ cosines @ step), 0.0))
        if length < _TOLERANCE:
            break
        mean = np.cos(length) * mean + np.sin(length) / length * step
        mean /= np.sqrt(mean @ cosines @ mean)
    return np.asarray(mean)
