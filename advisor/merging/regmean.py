"""RegMean: merge each linear layer so that it reproduces every expert's outputs on that expert's inputs.

    min_W Σ_t c_t E‖W x − W_t x‖²,  x ~ inputs of expert t        G_t = E x x'  (n, n)
    G̃_t = a G_t + (1 − a) diag G_t                               (a = 0.95: shrink the off-diagonals)
    W = (Σ c_t W_t G̃_t)(Σ c_t G̃_t + ρ I)⁻¹,  ρ = ridge · tr / n   (the ridge pulls towards x₀)

Layers are weights `(out, in, ...)` whose name is in the Gram matrices of every expert, convolutions read as
(out, in·kh·kw); everything else takes the weighted average. Solved by Cholesky in fp64. Needs model and data: see
`activation_grams`. Source: Jin et al. 2022, arXiv 2212.09849.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from advisor.merging.fisher import choose_by_expert, open_by_expert, read_tensor
from advisor.merging.matrices import solve_right
from advisor.merging.number_formats import FloatArray
from advisor.merging.operator import Operator, TensorVectors
from advisor.merging.sources import Location


def regmean_operator(
    *, grams: Mapping[str, Location] | Sequence[Location], shrink: float = 0.95, ridge: float = 1e-6
) -> Operator:
    """RegMean with given Gram matrices of layer inputs, by label or in the experts' order.

    Raises:
        ValueError: shrink outside [0, 1] or a ridge not above 0.
    """
    if not 0 <= shrink <= 1:
        raise ValueError(f"shrink={shrink} must lie in [0, 1]: it is the share of the off-diagonals that is kept")
    if not ridge > 0:
        raise ValueError(f"ridge={ridge} must be above 0: Gram matrices of few samples are singular")
    sources = open_by_expert(grams, "Gram matrices")

    def merge(tensor: TensorVectors) -> FloatArray:
        chosen = choose_by_expert(sources, tensor.labels)
        if len(tensor.shape) < 2 or any(tensor.name not in source.tensors for source in chosen):
            return tensor.weighted_sum()
        rows, columns = tensor.shape[0], int(np.prod(tensor.shape[1:]))
        system = np.zeros((columns, columns))
        target = np.zeros((rows, columns))
        for source, share, vector in zip(chosen, tensor.coefficients, tensor.vectors, strict=True):
            gram = read_tensor(source, tensor.name, (columns, columns)).astype(np.float64).reshape(columns, columns)
            if not np.isfinite(gram).all():
                raise ValueError(f"{source.place}: tensor {tensor.name!r} holds NaN or infinity")
            gram = share * (shrink * gram + (1 - shrink) * np.diag(np.diagonal(gram)))
            system += gram
            target += vector.reshape(rows, columns) @ gram
        strength = ridge * np.trace(system) / columns
        if not strength > 0:
            return tensor.weighted_sum()
        system[np.diag_indices_from(system)] += strength
        return solve_right(target, system).reshape(-1).astype(tensor.base.dtype)

    return Operator(name="regmean", merge=merge, weights="normalize", options={"shrink": shrink, "ridge": ridge})
