"""Read a state dict from disk: safetensors, or a PyTorch file with ``weights_only=True`` and nothing else.

Wrappers that training scripts put around weights (``state_dict``, ``model``, ...) and a uniform ``module.`` prefix are
taken off and said so.  Everything that is not a finite tensor under a text key is refused by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "weights")
PREFIXES = ("module.", "_orig_mod.")
ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A state dict and what was taken off it.

    Attributes:
        tensors: name -> tensor on the CPU, in the file's order where it has one.
        ordered: whether that order is the order of the layers (safetensors files lose it).
        notes: wrappers and prefixes removed.
    """

    tensors: dict[str, Tensor]
    ordered: bool
    notes: tuple[str, ...]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a state dict.

    Raises:
        ValueError: for a missing, unknown, truncated or unsafe file, and for entries that are not finite tensors.
    """
    if not path.is_file():
        raise ValueError(f"checkpoint={str(path)!r} does not exist; correct backbone.checkpoint")
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"checkpoint={path.name!r} must end in one of {', '.join(ENDINGS)}; convert it")
    safe = path.suffix.lower() == ".safetensors"
    loaded: Any = _read_safetensors(path) if safe else _read_torch(path)
    notes: list[str] = []
    state = _unwrapped(loaded, path, notes)
    for name, value in state.items():
        if not isinstance(name, str):
            raise ValueError(f"checkpoint={path.name!r}: key {name!r} is no text; save the model's state dict alone")
        if not isinstance(value, Tensor):
            raise ValueError(
                f"checkpoint={path.name!r}: entry {name!r} is a {type(value).__name__}, not a tensor; "
                "save the model's state dict alone"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"checkpoint={path.name!r}: tensor {name!r} holds NaN or infinity; use another checkpoint")
    return Checkpoint(tensors=dict(state), ordered=not safe, notes=tuple(notes))


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, dtypes, shapes and bytes, in order of the names.

    >>> fingerprint({"a": torch.zeros(2)}) == fingerprint({"a": torch.zeros(2)})
    True
    >>> fingerprint({"a": torch.zeros(2)}) == fingerprint({"a": torch.zeros(1, 2)})
    False
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"checkpoint={path.name!r} is damaged or no safetensors file ({error}); get it again"
        ) from None


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive makes torch raise nearly anything
        if type(error).__name__ == "UnpicklingError":
            raise ValueError(
                f"checkpoint={path.name!r} is damaged or holds objects besides tensors, which are never loaded; save "
                "the state dict alone, best as safetensors"
            ) from None
        text = " ".join(str(error).split())[:160]
        raise ValueError(f"checkpoint={path.name!r} is damaged or no PyTorch file ({text}); get it again") from None


def _unwrapped(loaded: Any, path: Path, notes: list[str]) -> Mapping[str, Any]:
    while isinstance(loaded, Mapping):
        key = next((w for w in WRAPPERS if isinstance(loaded.get(w), Mapping)), None)
        if key is None:
            break
        notes.append(f"checkpoint={path.name!r}: took the weights from its entry {key!r}")
        loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded:
        raise ValueError(
            f"checkpoint={path.name!r} holds {'nothing' if isinstance(loaded, Mapping) else type(loaded).__name__}; "
            "it must hold a state dict"
        )
    for prefix in PREFIXES:
        if all(isinstance(name, str) and name.startswith(prefix) for name in loaded):
            notes.append(f"checkpoint={path.name!r}: took the prefix {prefix!r} off every name")
            loaded = {name.removeprefix(prefix): value for name, value in loaded.items()}
    return {**loaded}
