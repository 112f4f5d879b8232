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
