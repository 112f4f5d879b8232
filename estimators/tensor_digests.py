r"""A short name for the content of a tensor, so that unfinished work is never gone on from with other data or weights.

SHA-256 over type, shape and bytes.  Of tensors above ``WHOLE_BYTES`` evenly spaced rows are looked at, the first and
the last included: a run keeps checksums of its data already, here different tensors only have to be told apart.  A
tensor is looked at again only after it changed.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

WHOLE_BYTES = 512 * 2**20
SPACED_ROWS = 1024

_known = WeakTensorKeyDictionary()  # tensor -> (its version, digest)


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's content, 64 hexadecimal digits.

    >>> tensor_digest(torch.zeros(2)) == tensor_digest(torch.zeros(2)), tensor_digest(torch.zeros(2).double())[:4]
    (True, 'dbe3')
    """
    if tensor not in _known or _known[tensor][0] != tensor._version:
        _known[tensor] = (tensor._version, _digest(tensor))
    return str(_known[tensor][1])


def _digest(tensor: Tensor) -> str:
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    values = tensor.detach()
    if values.numel() * values.element_size() > WHOLE_BYTES:
        values = values.reshape(-1) if values.ndim == 1 else values
        step = max(1, values.shape[0] // SPACED_ROWS)
        values = torch.cat([values[::step], values[-1:]])
    values = values.cpu().contiguous().reshape(-1)
    digest.update(values.view(torch.uint8).numpy().data if values.numel() else b"")
    return digest.hexdigest()
