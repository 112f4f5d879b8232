"""Reading safetensors without trust and without torch.

A file is  [8 bytes: length H, little-endian] [H bytes: JSON header] [data].  The header maps each name to
{"dtype", "shape", "data_offsets": [begin, end)} and the spans must tile the data exactly: no overlap, no hole, nothing
past the end. Everything is checked before the first number is read, and reads are positioned (`preadv`), so a
file that shrinks under us raises an error instead of a bus fault.
Source: format description of https://github.com/huggingface/safetensors; the 100 MB header limit is theirs.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from advisor.merging.number_formats import STORAGE, RawArray
from advisor.merging.sources import Source, TensorInfo, UnreadableCheckpoint

MAX_HEADER_BYTES = 100_000_000


class SafetensorsFile:
    """One open .safetensors file."""

    def __init__(self, path: Path, *, place: str) -> None:
        self.place = place
        self.files = (path,)
        self._descriptor = os.open(path, os.O_RDONLY)
        try:
            self.tensors, begins = _read_header(self._descriptor, place)
        except BaseException:
            os.close(self._descriptor)
            self._descriptor = -1
            raise
        self.ties = {name: name for name in self.tensors}
        self._places = {name: (STORAGE[info.dtype], begins[name]) for name, info in self.tensors.items()}

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            os.close(self._descriptor)

    def read(self, name: str, start: int, stop: int, out: RawArray | None = None) -> RawArray:
        """Elements [start, stop) of the flattened tensor, in storage dtype; into ``out`` if it is given.

        Raises:
            UnreadableCheckpoint: the file ended early.
        """
        kind, begin = self._places[name]
        values = np.empty(stop - start, dtype=kind) if out is None else out
        offset = begin + start * kind.itemsize
        count = os.preadv(self._descriptor, [values.data], offset)
        if count < values.nbytes:
            self._read_rest(name, values.view(np.uint8).data[count:], offset + count)
        return values

    def _read_rest(self, name: str, view: memoryview, offset: int) -> None:
        while view:
            count = os.preadv(self._descriptor, [view], offset)
            if count == 0:
                raise UnreadableCheckpoint(
                    f"{self.place}: tensor {name!r} ends early: the file shrank while being read"
                )
            view, offset = view[count:], offset + count


class ShardedSource:
    """Several files that together hold one checkpoint."""

    def __init__(self, shards: Mapping[str, Source], owners: Mapping[str, str], *, index: Path, place: str) -> None:
        self.place = place
        self.files = (index, *(file for shard in shards.values() for file in shard.files))
        self._owners = {name: shards[owner] for name, owner in owners.items()}
        self.tensors = {name: shard.tensors[name] for name, shard in self._owners.items()}
        self.ties = {name: shard.ties[name] for name, shard in self._owners.items()}

    def read(self, name: str, start: int, stop: int, out: RawArray | None = None) -> RawArray:
        """Elements [start, stop) of the flattened tensor, in storage dtype; into ``out`` where that saves a copy."""
        return self._owners[name].read(name, start, stop, out)


def open_single(path: Path, *, place: str) -> Source:
    """Open one .safetensors file."""
    return SafetensorsFile(path, place=place)


def open_index(path: Path, *, place: str) -> Source:
    """Open a sharded checkpoint by its index file."""
    owners = read_weight_map(path, place=place)
    shards: dict[str, Source] = {
        name: SafetensorsFile(path.parent / name, place=f"{place}, shard {name}")
        for name in dict.fromkeys(owners.values())
    }
    check_shards(shards, owners, place=place)
    return ShardedSource(shards, owners, index=path, place=place)


def read_weight_map(path: Path, *, place: str) -> dict[str, str]:
    """The map tensor → shard of an index file.

    Raises:
        UnreadableCheckpoint: not a weight map, or a shard is named outside the folder or missing.
    """
    if path.stat().st_size > MAX_HEADER_BYTES:
        raise UnreadableCheckpoint(f"{place}: the index has {path.stat().st_size} bytes, above {MAX_HEADER_BYTES}")
    index = parse_json(path.read_bytes(), place=place)
    owners = index.get("weight_map")
    if not isinstance(owners, dict) or not owners or not all(isinstance(name, str) for name in owners.values()):
        raise UnreadableCheckpoint(f"{place}: weight_map must be a non-empty map from tensor to file name")
    for shard in set(owners.values()):
        if Path(shard).name != shard or shard in {"", ".", ".."}:
            raise UnreadableCheckpoint(f"{place}: shard {shard!r} must be a plain file name in the index's folder")
        if not (path.parent / shard).is_file():
            raise UnreadableCheckpoint(f"{place}: shard {shard!r} is named by the index but missing")
    return owners


def check_shards(shards: Mapping[str, Source], owners: Mapping[str, str], *, place: str) -> None:
    """Refuse shards that hold a tensor twice, or other tensors than the index says.

    Raises:
        UnreadableCheckpoint: index and shards disagree.
    """
    holder: dict[str, str] = {}
    for shard, source in shards.items():
        for name in source.tensors:
            if name in holder:
                raise UnreadableCheckpoint(f"{place}: tensor {name!r} is in two shards, {holder[name]!r} and {shard!r}")
            holder[name] = shard
    for name in sorted(set(owners) ^ set(holder)):
        where = "the index only" if name in owners else f"shard {holder[name]!r} only"
        raise UnreadableCheckpoint(f"{place}: tensor {name!r} is in {where}; index and shards must list the same")
    for name, shard in owners.items():
        if holder[name] != shard:
            raise UnreadableCheckpoint(f"{place}: tensor {name!r} is in {holder[name]!r}, the index says {shard!r}")


def parse_json(text: bytes, *, place: str) -> dict[str, Any]:
    """A JSON object with unique keys.

    Raises:
        UnreadableCheckpoint: not JSON, not an object, nested too deeply, or a key given twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise UnreadableCheckpoint(f"{place}: key {twice!r} is given twice")
        return result

    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UnreadableCheckpoint(f"{place}: header or index is not valid JSON ({type(error).__name__})") from None
    if not isinstance(value, dict):
        raise UnreadableCheckpoint(f"{place}: header or index must be a JSON object")
    return value


def _read_header(descriptor: int, place: str) -> tuple[dict[str, TensorInfo], dict[str, int]]:
    size = os.fstat(descriptor).st_size
    length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    if size < 8 or length > size - 8:
        raise UnreadableCheckpoint(
            f"{place}: header of {length} bytes in a file of {size}: truncated or not safetensors"
        )
    if length > MAX_HEADER_BYTES:
        raise UnreadableCheckpoint(f"{place}: header of {length} bytes is above the limit of {MAX_HEADER_BYTES}")
    header = parse_json(os.pread(descriptor, length, 8), place=place)
    header.pop("__metadata__", None)
    spans: list[tuple[int, int, str]] = []
    tensors: dict[str, TensorInfo] = {}
    for name, entry in header.items():
        tensors[name], begin, end = _parse_entry(name, entry, place)
        spans.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise UnreadableCheckpoint(f"{place}: tensor {name!r} begins at {begin}, not {position}: overlap or hole")
        position = end
    if position != size - 8 - length:
        raise UnreadableCheckpoint(
            f"{place}: tensors fill {position} bytes, the file has {size - 8 - length}: truncated or padded"
        )
    return tensors, {name: 8 + length + begin for begin, _, name in spans}


def _parse_entry(name: str, entry: Any, place: str) -> tuple[TensorInfo, int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise UnreadableCheckpoint(f"{place}: tensor {name!r} needs exactly dtype, shape and data_offsets")
    shape, offsets = entry["shape"], entry["data_offsets"]
    numbers = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [None]
    if not all(type(number) is int and number >= 0 for number in numbers) or len(offsets) != 2:
        raise UnreadableCheckpoint(f"{place}: tensor {name!r}: shape={shape}, data_offsets={offsets} are not sizes")
    if len(shape) > 64:
        raise UnreadableCheckpoint(f"{place}: tensor {name!r} has {len(shape)} axes, above 64")
    try:
        info = TensorInfo(dtype=str(entry["dtype"]), shape=tuple(shape))
    except ValueError as error:
        raise UnreadableCheckpoint(f"{place}: tensor {name!r}: {error}") from None
    if math.prod(shape) * STORAGE[info.dtype].itemsize != offsets[1] - offsets[0]:
        raise UnreadableCheckpoint(f"{place}: tensor {name!r}: shape={shape} does not fit data_offsets={offsets}")
    return info, offsets[0], offsets[1]
