"""Merging in memory, and the cheap re-combination that coefficient search needs.

    τ_t = x_t − x₀  (once)          x_avg(λ) = x₀ + Σ λ_t τ_t  (for every λ)

`combine` and `task_vectors` work on NumPy arrays and torch tensors alike and stay on their device; with torch,
gradients reach coefficients that are tensors. `merge_state_dicts` is the streaming engine over dictionaries and takes
every method; it computes on the CPU, and its result has the base's type, dtype and device.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from advisor.merging.compatibility import open_inputs
from advisor.merging.number_formats import STORAGE, RawArray
from advisor.merging.registry import build_operator
from advisor.merging.results import MergeResult
from advisor.merging.running import CoefficientInput, MergeSettings, run_merge
from advisor.merging.sources import TensorInfo
from advisor.merging.threads import single_threaded

StateDict = Mapping[str, Any]
CombineCoefficients = Sequence[float] | Mapping[str, Sequence[float]]


def merge_state_dicts(
    base: StateDict,
    experts: Mapping[str, StateDict] | Sequence[StateDict],
    *,
    method: str = "task_arithmetic",
    coefficients: CoefficientInput = None,
    seed: int = 0,
    workers: int = 1,
    tensor_coefficients: Mapping[str, Sequence[float]] | None = None,
    keys: Literal["strict", "common"] = "strict",
    keep_base: Sequence[str] = (),
    mixed_dtypes: bool = False,
    trust_base: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """The merged state dict; arguments as in `advisor.merging.merge`. Inputs are left as they are."""
    merged, _ = merge_with_result(
        base,
        experts,
        method=method,
        coefficients=coefficients,
        seed=seed,
        workers=workers,
        tensor_coefficients=tensor_coefficients,
        keys=keys,
        keep_base=keep_base,
        mixed_dtypes=mixed_dtypes,
        trust_base=trust_base,
        **options,
    )
    return merged


def merge_with_result(
    base: StateDict,
    experts: Mapping[str, StateDict] | Sequence[StateDict],
    *,
    method: str = "task_arithmetic",
    coefficients: CoefficientInput = None,
    seed: int = 0,
    workers: int = 1,
    tensor_coefficients: Mapping[str, Sequence[float]] | None = None,
    keys: Literal["strict", "common"] = "strict",
    keep_base: Sequence[str] = (),
    mixed_dtypes: bool = False,
    trust_base: bool = False,
    **options: Any,
) -> tuple[dict[str, Any], MergeResult]:
    """The merged state dict and the recipe with its Gram matrices; arguments as in `advisor.merging.merge`."""
    settings = MergeSettings(
        coefficients=coefficients,
        tensor_coefficients=tensor_coefficients,
        seed=seed,
        workers=workers,
        trust_base=trust_base,
    )
    operator = build_operator(method, options)
    inputs = open_inputs(base, experts, keys=keys, keep_base=keep_base, mixed_dtypes=mixed_dtypes)
    with single_threaded():
        sink = _MemorySink(inputs.base.tensors)
        result = run_merge(inputs, operator, sink, settings)
    return {name: sink.as_like(name, tensor) for name, tensor in base.items()}, result


def task_vectors(base: StateDict, experts: Sequence[StateDict]) -> list[dict[str, Any]]:
    """τ_t = x_t − x₀ of every floating tensor, in fp32 (fp64 for fp64), one dictionary an expert.

    Raises:
        ValueError: an expert lacks a tensor or has another shape.
    """
    vectors = []
    for number, expert in enumerate(experts):
        vector = {}
        for name, tensor in base.items():
            if not _is_floating(tensor):
                continue
            if name not in expert or tuple(expert[name].shape) != tuple(tensor.shape):
                shape = tuple(expert[name].shape) if name in expert else None
                raise ValueError(
                    f"expert {number}: tensor {name!r} has shape {shape}, the base {tuple(tensor.shape)}; "
                    "give experts of the base's architecture"
                )
            difference = _widen(expert[name]) - _widen(tensor)
            vector[name] = np.asarray(difference) if isinstance(difference, np.generic) else difference
        vectors.append(vector)
    return vectors


def combine(base: StateDict, vectors: Sequence[StateDict], coefficients: CombineCoefficients) -> dict[str, Any]:
    """x₀ + Σ λ_t τ_t, in the base's dtypes; tensors without a task vector are the base's own.

    Args:
        base: the base's state dict.
        vectors: task vectors, as `task_vectors` makes them.
        coefficients: one for each task vector, or for each tensor by name (layer-wise; all tensors must be named).

    Returns:
        A new state dict of the base's kind.

    Raises:
        ValueError: not one coefficient for each task vector, or a tensor without coefficients.
    """
    by_tensor = coefficients if isinstance(coefficients, Mapping) else None
    merged = {}
    for name, tensor in base.items():
        if not any(name in vector for vector in vectors):
            merged[name] = tensor
            continue
        if by_tensor is not None and name not in by_tensor:
            raise ValueError(f"coefficients: none for tensor {name!r}; name every tensor of the task vectors")
        own = list(by_tensor[name] if by_tensor is not None else coefficients)
        if len(own) != len(vectors):
            raise ValueError(f"coefficients={own}: {len(own)} given for {len(vectors)} task vectors")
        total = _widen(tensor)
        for coefficient, vector in zip(own, vectors, strict=True):
            if name in vector and not (isinstance(coefficient, float) and coefficient == 0.0):
                total = total + vector[name] * coefficient
        is_array = isinstance(tensor, (np.ndarray, np.generic))
        merged[name] = np.asarray(total).astype(tensor.dtype) if is_array else total.to(tensor.dtype)
    return merged


class _MemorySink:
    """Merged numbers in storage dtype, one array a tensor."""

    def __init__(self, tensors: Mapping[str, TensorInfo]) -> None:
        self._infos = tensors
        self._arrays = {name: np.empty(info.size, dtype=STORAGE[info.dtype]) for name, info in tensors.items()}

    def write(self, name: str, start: int, values: RawArray) -> None:
        """Store elements from `start` of the flattened tensor, in storage dtype."""
        self._arrays[name][start : start + values.size] = values

    def as_like(self, name: str, tensor: Any) -> Any:
        """The merged tensor with the type and device of the base's."""
        info = self._infos[name]
        array = self._arrays[name].reshape(info.shape)
        if isinstance(tensor, (np.ndarray, np.generic)):
            return array
        import torch

        if info.dtype == "BF16":
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).to(tensor.device)
        return torch.from_numpy(array).to(tensor.device)


def _is_floating(tensor: Any) -> bool:
    if isinstance(tensor, (np.ndarray, np.generic)):
        return bool(np.issubdtype(tensor.dtype, np.floating))
    return bool(tensor.is_floating_point())


def _widen(tensor: Any) -> Any:
    """At least fp32, as a copy only where the dtype changes."""
    if isinstance(tensor, (np.ndarray, np.generic)):
        return np.asarray(tensor).astype(np.float64 if tensor.dtype == np.float64 else np.float32, copy=False)
    return tensor if tensor.element_size() >= 4 else tensor.float()
