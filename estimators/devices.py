"""Which device computes: ``auto`` takes CUDA, else MPS, else the CPU; a device that is absent is refused by name.

A small backbone is trained on a CPU with one thread: more gain little on idle cores and cost a factor of 20 on busy
ones.  The number does not follow the load, since sums of another number of threads round otherwise.
"""

from __future__ import annotations

import re

import torch

SMALL_BACKBONE = 2_000_000  # parameters


def calm_threads(num_parameters: int, device: torch.device) -> None:
    """Go on with one thread on a CPU where the backbone is small; the caller restores the number."""
    if device.type == "cpu" and num_parameters < SMALL_BACKBONE:
        torch.set_num_threads(1)


def resolve_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` means on this machine.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    match = re.fullmatch(r"(cpu|mps|cuda)(?::(\d{1,3}))?", name)
    if match is None or (match[2] and match[1] != "cuda"):
        raise ValueError(f"device={name!r} must be auto, cpu, cuda, cuda:N or mps; choose one")
    if match[1] == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={name!r}: this machine has no MPS; use device auto or cpu")
    if match[1] == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = int(match[2] or 0)
        if index >= count:
            found = f"has {count} CUDA device{'s' if count != 1 else ''}" if count else "has no CUDA device"
            raise ValueError(f"device={name!r}: this machine {found}; use device auto or cpu, or install a CUDA torch")
        return torch.device("cuda", index)
    return torch.device(match[1])
