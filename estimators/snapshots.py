r"""A snapshot of unfinished work: named tensors and plain facts in one safetensors file that knows its own checksum.

    header metadata  {"facts": JSON text, "sha256": hex}
    sha256           over the facts, then over every tensor in order of its name: name, type, shape, bytes

Nothing in it is executed when it is read.  A file that does not match its checksum is ``DamagedSnapshot``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class DamagedSnapshot(ValueError):
    """A snapshot was cut off, overwritten or is none at all."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """A state to go on from.

    Attributes:
        tensors: name -> tensor, on the CPU once it was stored.
        facts: plain values that JSON can hold.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def encode_snapshot(snapshot: Snapshot) -> list[bytes | memoryview]:
    """The file's content in pieces: its header, then each tensor's own memory, which is not copied.

    The layout is that of the safetensors format: length of the header (8 bytes, little endian), header (JSON), tensors.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in sorted(snapshot.tensors.items())}
    tensors = tensors or {"": torch.zeros(0)}  # the format needs one
    facts = json.dumps(dict(snapshot.facts), allow_nan=False)
    header: dict[str, Any] = {"__metadata__": {"facts": facts, "sha256": _checksum(tensors, facts)}}
    end = 0
    for name, value in tensors.items():
        start, end = end, end + value.numel() * value.element_size()
        header[name] = {"dtype": DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little") + text, *map(_memory, tensors.values())]


def decode_snapshot(data: bytes) -> Snapshot:
    """The inverse of :func:`encode_snapshot`; tensors lie in memory of their own.

    Raises:
        DamagedSnapshot: if the content is not what was written.
    """
    try:
        tensors = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        facts, expected = metadata["facts"], metadata["sha256"]
        if _checksum(tensors, facts) != expected:
            raise DamagedSnapshot("it does not match its checksum")
        values = json.loads(facts)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedSnapshot(str(error)) from None
    # a tensor's place inside the file may be odd, and a product's last bits depend on its place: copy
    return Snapshot(tensors={name: value.clone() for name, value in tensors.items() if name}, facts=values)


def _checksum(tensors: Mapping[str, Tensor], facts: str) -> str:
    digest = hashlib.sha256(facts.encode("utf-8", "surrogatepass"))
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"\x1f{name}\x1f{value.dtype}\x1f{tuple(value.shape)}\x1f".encode())
        digest.update(_memory(value))
    return digest.hexdigest()


def _memory(value: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU."""
    return value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else memoryview(b"")
