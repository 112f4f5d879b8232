"""Model Stock: shrink the mean task vector by how much the experts agree.

    c = mean over pairs of cos(τ_a, τ_b), per tensor        s = N c / (1 + (N − 1) c), clamped to [0, 1]
    x_avg = x₀ + s · (1/N) Σ c_t τ_t

The clamp is ours: unrelated experts give c < 0 and then s < 0 or without bound. One expert has s = 1; a tensor
that no expert moved has s = 0. `pairs="angle"` averages angles before taking the cosine, `pairs="cosine"` cosines.
Source: Jang et al. 2024, arXiv 2403.19522.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from advisor.merging.grams import cosines_of
from advisor.merging.number_formats import FloatArray
from advisor.merging.operator import Operator, TensorVectors

Pairs = Literal["cosine", "angle"]


def model_stock_operator(*, pairs: Pairs = "cosine") -> Operator:
    """Mean task vector shrunk tensor by tensor.

    Raises:
        ValueError: an unknown `pairs`.
    """
    if pairs not in ("cosine", "angle"):
        raise ValueError(f"pairs={pairs!r} must be 'cosine' or 'angle'")

    def merge(tensor: TensorVectors) -> FloatArray:
        gram = (tensor.vectors @ tensor.vectors.T).astype(np.float64)
        mean = tensor.weighted_mean()
        mean *= mean.dtype.type(stock_share(gram, pairs))
        return mean

    return Operator(name="model_stock", merge=merge, rest="mean", options={"pairs": pairs})


def stock_share(gram: NDArray[np.float64], pairs: Pairs) -> float:
    """S in [0, 1] from ⟨τ_a, τ_b⟩ [N, N]."""
    count = len(gram)
    if count == 1:
        return 1.0
    if not np.diagonal(gram).any():
        return 0.0
    cosines = np.clip(cosines_of(gram)[np.triu_indices(count, k=1)], -1.0, 1.0)
    agreement = float(np.cos(np.arccos(cosines).mean()) if pairs == "angle" else cosines.mean())
    if agreement <= 0:
        return 0.0
    return min(count * agreement / (1 + (count - 1) * agreement), 1.0)
