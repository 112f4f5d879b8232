"""Where tensors come from: one small protocol over files and dictionaries.

A source lists its tensors (name → dtype, shape) and reads any run of elements of one of them as raw numbers
in storage order (row-major, flattened). It never converts and never holds more than it is asked for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from advisor.merging.number_formats import FLOATING, STORAGE, RawArray


class UnreadableCheckpoint(ValueError):
    """A file that is truncated, tampered with, or not a checkpoint we can read safely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """Storage dtype (a safetensors name) and shape of one tensor."""

    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in STORAGE:
            raise ValueError(
                f"dtype={self.dtype!r} is not supported: known are {sorted(STORAGE)}; "
                "convert the checkpoint to one of them first"
            )
        if any(size < 0 for size in self.shape):
            raise ValueError(f"shape={self.shape}: sizes must be at least 0")

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Number of bytes in storage."""
        return self.size * STORAGE[self.dtype].itemsize

    @property
    def floating(self) -> bool:
        """Whether the tensor holds numbers that can be averaged."""
        return self.dtype in FLOATING


class Source(Protocol):
    """A checkpoint that can be read piece by piece."""

    @property
    def place(self) -> str:
        """How error messages name this source."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read; empty for dictionaries."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor, in the order of the checkpoint."""

    @property
    def ties(self) -> Mapping[str, str]:
        """Tensor → the first name (in order) of those that share its storage; itself when alone."""

    def read(self, name: str, start: int, stop: int, out: RawArray | None = None) -> RawArray:
        """Elements [start, stop) of the flattened tensor, in storage dtype.

        ``out``, if given, has that length and dtype; a source that copies anyway copies there and returns it.
        """


Location = str | Path | Mapping[str, Any] | Source

_TORCH_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_NUMPY_DTYPES = {str(kind.newbyteorder("=")): name for name, kind in STORAGE.items() if name != "BF16"}


def as_raw(tensor: Any) -> tuple[TensorInfo, RawArray]:
    """A NumPy array or torch tensor as (info, flat raw array), without a copy where the layout allows.

    Raises:
        TypeError: neither an array nor a tensor.
    """
    if isinstance(tensor, (np.ndarray, np.generic)):
        array = np.asarray(tensor)
        dtype = _NUMPY_DTYPES.get(str(array.dtype), str(array.dtype))
        return TensorInfo(dtype=dtype, shape=tuple(array.shape)), np.ascontiguousarray(array).reshape(-1)
    if type(tensor).__module__.partition(".")[0] != "torch" and not hasattr(tensor, "detach"):
        raise TypeError(f"type={type(tensor).__name__}: a state dict holds tensors or arrays only")
    kind = str(tensor.dtype).removeprefix("torch.")
    info = TensorInfo(dtype=_TORCH_DTYPES.get(kind, kind), shape=tuple(tensor.shape))
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if info.dtype == "BF16":
        import torch

        return info, flat.view(torch.int16).numpy().view(np.uint16)
    return info, flat.numpy()


class MemorySource:
    """A state dict of torch tensors or NumPy arrays."""

    def __init__(self, state: Mapping[str, Any], *, place: str, files: tuple[Path, ...] = ()) -> None:
        self.place = place
        self.files = files
        self.tensors: dict[str, TensorInfo] = {}
        self.ties: dict[str, str] = {}
        self._raw: dict[str, RawArray] = {}
        seen: dict[tuple[int, TensorInfo], str] = {}
        for name, tensor in state.items():
            if not isinstance(name, str):
                raise TypeError(f"{place}: key={name!r}: names of tensors are strings")
            try:
                info, raw = as_raw(tensor)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{place}: tensor {name!r}: {error}") from None
            self.tensors[name] = info
            self._raw[name] = raw
            identity = (raw.__array_interface__["data"][0], info)
            self.ties[name] = seen.setdefault(identity, name) if raw.size else name

    def read(self, name: str, start: int, stop: int, out: RawArray | None = None) -> RawArray:
        """Elements [start, stop) of the flattened tensor, in storage dtype: a view, whatever ``out`` is."""
        return self._raw[name][start:stop]


def open_source(location: Location, *, place: str) -> Source:
    """Open a checkpoint: a state dict, a file, an index of shards, a folder holding one of them, or an open source.

    Raises:
        FileNotFoundError: nothing is there.
        UnreadableCheckpoint: the file is of no known kind.
    """
    if isinstance(location, Mapping):
        return MemorySource(location, place=place)
    if not isinstance(location, (str, Path)):
        return location
    from advisor.merging.safetensors_reading import open_index, open_single

    path = _find_file(Path(location))
    place = f"{place} ({path})"
    if path.name.endswith(".safetensors.index.json"):
        return open_index(path, place=place)
    if path.suffix == ".safetensors":
        return open_single(path, place=place)
    from advisor.merging.torch_reading import TORCH_ENDINGS, open_torch, open_torch_index

    if path.name.endswith(".bin.index.json"):
        return open_torch_index(path, place=place)
    if path.suffix in TORCH_ENDINGS:
        return open_torch(path, place=place)
    raise UnreadableCheckpoint(
        f"{place}: ending {path.suffix!r} is not one of .safetensors, .safetensors.index.json, "
        f"{', '.join(sorted(TORCH_ENDINGS))}"
    )


_FOLDER_FILES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)


def _find_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.exists():
        raise FileNotFoundError(f"path={str(path)!r} does not exist")
    for name in _FOLDER_FILES:
        if (path / name).is_file():
            return path / name
    found = sorted(path.glob("*.safetensors"))
    if len(found) == 1:
        return found[0]
    raise FileNotFoundError(f"path={str(path)!r} holds none of {', '.join(_FOLDER_FILES)}; name the file itself")
