"""Small random checkpoints with everything that trips merging: counters, statistics, scalars, size-1 axes."""

from typing import Any

import numpy as np

State = dict[str, Any]


def random_base(seed: int = 0) -> State:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    return {
        "conv.weight": normal(6, 3, 3, 3),
        "bn.weight": normal(6),
        "bn.running_mean": normal(6),
        "bn.running_var": 1 + rng.random(6).astype(np.float32),
        "bn.num_batches_tracked": np.array(100, dtype=np.int64),
        "cls_token": normal(1, 1, 8),
        "blocks.0.fc.weight": normal(40, 24),
        "blocks.0.fc.bias": normal(40),
        "blocks.1.fc.weight": normal(24, 40),
        "column.weight": normal(5, 1),
        "scale": np.array(0.7, np.float32),
        "index": np.arange(4, dtype=np.int32),
        "mask": np.array([True, False]),
    }


def random_expert(base: State, seed: int, size: float = 0.1) -> State:
    rng = np.random.default_rng([1, seed])
    expert = {}
    for name, tensor in base.items():
        if name.endswith("num_batches_tracked"):
            expert[name] = np.asarray(tensor + seed + 1)
        elif tensor.dtype.kind != "f":
            expert[name] = tensor.copy()
        elif name.endswith("running_var"):
            expert[name] = tensor * (1 + size * rng.random(tensor.shape)).astype(tensor.dtype)
        else:
            expert[name] = np.asarray(tensor + size * rng.normal(size=tensor.shape)).astype(tensor.dtype)
    return expert


def random_experts(base: State, count: int = 3, size: float = 0.1) -> list[State]:
    return [random_expert(base, seed, size) for seed in range(count)]


def parameters(state: State) -> list[str]:
    """Floating tensors that are weights, not statistics."""
    return [name for name, tensor in state.items() if tensor.dtype.kind == "f" and "running_" not in name]


def random_fisher(base: State, seed: int) -> State:
    rng = np.random.default_rng([2, seed])
    return {n: np.asarray(rng.random(base[n].shape), np.float32) for n in parameters(base)}


def random_grams(base: State, seed: int) -> State:
    """Gram matrices of the inputs of every matrix and convolution, from 50 random inputs."""
    rng = np.random.default_rng([3, seed])
    grams = {}
    for name in parameters(base):
        if base[name].ndim in (2, 4):
            inputs = rng.normal(size=(50, base[name][0].size))
            grams[name] = (inputs.T @ inputs / 50).astype(np.float32)
    return grams


def needed_options(method: str, base: State, count: int) -> dict[str, Any]:
    """The inputs that a method cannot do without."""
    if method == "fisher":
        return {"fisher": [random_fisher(base, seed) for seed in range(count)]}
    if method == "regmean":
        return {"grams": [random_grams(base, seed) for seed in range(count)]}
    return {}
