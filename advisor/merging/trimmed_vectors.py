"""Task vectors trimmed and sign-elected as in TIES, kept apart: what AdaMerging++ weighs.

    τ̃_tp = τ̂_tp where sgn(τ̂_tp) = sgn(Σ_k τ̂_kp), else 0            (τ̂ = τ trimmed over the whole model)

Source: Yang et al. 2023, arXiv 2310.02575, section 3 (AdaMerging++); Yadav et al. 2023, arXiv 2306.01708.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from advisor.merging.number_formats import FloatArray
from advisor.merging.ties import check_density, tensor_threshold, trim


def trim_task_vectors(vectors: Sequence[Mapping[str, Any]], *, density: float = 0.2) -> list[dict[str, Any]]:
    """τ̃ of every expert, with the type and device of τ.

    Args:
        vectors: task vectors by tensor name, as `task_vectors` makes them.
        density: share of numbers kept before the election.

    Returns:
        One dictionary of task vectors for each given one.
    """
    check_density(density)
    names = list(vectors[0])
    arrays = [{name: _as_array(vector[name]) for name in names} for vector in vectors]
    for state in arrays:
        flat = np.concatenate([state[name].reshape(-1) for name in names])
        threshold = tensor_threshold(flat, density)
        for name in names:
            trim(state[name], threshold)
    for name in names:
        elected = np.sign(np.sum([state[name] for state in arrays], axis=0))
        for state in arrays:
            state[name] *= np.sign(state[name]) == elected
    return [
        {name: _as_like(state[name], vector[name]) for name in names}
        for state, vector in zip(arrays, vectors, strict=True)
    ]


def _as_array(tensor: Any) -> FloatArray:
    return np.array(tensor if isinstance(tensor, (np.ndarray, np.generic)) else tensor.detach().cpu().numpy())


def _as_like(array: FloatArray, tensor: Any) -> Any:
    if isinstance(tensor, (np.ndarray, np.generic)):
        return array
    import torch

    return torch.from_numpy(array).to(tensor.device)
