"""Writing safetensors shards in place, all or nothing.

The layout of every shard (header, offsets, sizes) follows from dtypes and shapes alone, so headers are written first
and each merged block goes straight to its place: nothing is buffered, whatever the shard size, and several workers can
write at once. All files are made in a hidden folder beside the target, synced, and moved into place when complete.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from advisor.merging.number_formats import STORAGE, RawArray
from advisor.merging.sources import TensorInfo

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "B": 1}
_STRETCH_BYTES = 8 * 2**20


class NotEnoughSpace(OSError):
    """The output does not fit on the disk; nothing was written."""


def parse_size(size: int | str) -> int:
    """Bytes of `5_000_000_000`, "5GB" or "512MiB".

    Raises:
        ValueError: not a size above zero.
    """
    if isinstance(size, str):
        text = size.strip().upper()
        unit = next((unit for unit in sorted(_UNITS, key=len, reverse=True) if text.endswith(unit)), "")
        number = text.removesuffix(unit).strip()
        if not number.replace(".", "", 1).isdigit():
            raise ValueError(f"max_shard_size={size!r}: write a number of bytes, or like '5GB' or '512MiB'")
        count = int(float(number) * _UNITS.get(unit, 1))
    else:
        count = int(size)
    if not count > 0:
        raise ValueError(f"max_shard_size={size!r} must be above 0 bytes")
    return count


def plan_shards(tensors: Mapping[str, TensorInfo], max_shard_bytes: int) -> list[list[str]]:
    """Names of each shard: filled in order; a tensor larger than the limit gets a shard of its own."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, info in tensors.items():
        if shards[-1] and filled + info.bytes > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += info.bytes
    return shards


def shard_names(count: int) -> list[str]:
    """File names of the shards, as the Hugging Face hub writes them."""
    if count == 1:
        return [SINGLE_NAME]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def require_space(folder: Path, needed: int) -> None:
    """Refuse when the disk of `folder` has fewer than `needed` bytes free.

    Raises:
        NotEnoughSpace: with both figures.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NotEnoughSpace(
            errno.ENOSPC, f"needed={needed} bytes for the output, free={free} on the disk of {folder}; free some first"
        )


class SafetensorsSink:
    """Shards of one checkpoint, open for writing in `folder`."""

    def __init__(self, folder: Path, tensors: Mapping[str, TensorInfo], max_shard_bytes: int) -> None:
        self._descriptors: list[int] = []
        self._places: dict[str, tuple[int, int]] = {}
        self._kinds = {name: STORAGE[info.dtype] for name, info in tensors.items()}
        shards = plan_shards(tensors, max_shard_bytes)
        self.names = shard_names(len(shards))
        try:
            for file_name, members in zip(self.names, shards, strict=True):
                self._open_shard(folder / file_name, {name: tensors[name] for name in members})
        except BaseException:
            self.close()
            raise
        if len(shards) > 1:
            index = {
                "metadata": {"total_size": sum(info.bytes for info in tensors.values())},
                "weight_map": {
                    name: file for file, members in zip(self.names, shards, strict=True) for name in members
                },
            }
            write_text(folder / INDEX_NAME, json.dumps(index, indent=2) + "\n")

    def _open_shard(self, path: Path, tensors: Mapping[str, TensorInfo]) -> None:
        # Widest numbers first keeps every tensor aligned to its own item size.
        order = sorted(tensors, key=lambda name: -STORAGE[tensors[name].dtype].itemsize)
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        begins: dict[str, int] = {}
        position = 0
        for name in order:
            begins[name] = position
            end = position + tensors[name].bytes
            header[name] = {
                "dtype": tensors[name].dtype,
                "shape": list(tensors[name].shape),
                "data_offsets": [position, end],
            }
            position = end
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._descriptors.append(descriptor)
        _reserve(descriptor, 8 + len(text) + position)
        _write_all(descriptor, memoryview(len(text).to_bytes(8, "little") + text), 0)
        for name, begin in begins.items():
            self._places[name] = (descriptor, 8 + len(text) + begin)

    def write(self, name: str, start: int, values: RawArray) -> None:
        """Store elements from `start` of the flattened tensor, in storage dtype.

        Raises:
            TypeError: values of another dtype than planned.
        """
        descriptor, begin = self._places[name]
        kind = self._kinds[name]
        if values.dtype != kind:
            raise TypeError(f"tensor {name!r}: dtype={values.dtype} written where {kind} was planned")
        if values.size:
            data = np.ascontiguousarray(values).view(np.uint8).data
            offset = begin + start * kind.itemsize
            _write_all(descriptor, data, offset)
            _begin_writing_out(descriptor, offset, offset + len(data))

    def sync(self) -> None:
        """Force everything to disk."""
        for descriptor in self._descriptors:
            os.fsync(descriptor)

    def close(self) -> None:
        """Close all files."""
        while self._descriptors:
            os.close(self._descriptors.pop())


@contextmanager
def hidden_folder(beside: Path) -> Iterator[Path]:
    """A new hidden folder in `beside`, removed with all it holds on the way out."""
    folder = Path(tempfile.mkdtemp(prefix=".merge-", suffix=".partial", dir=beside))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write and sync a small text file."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reserve(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise NotEnoughSpace(errno.ENOSPC, f"needed={size} bytes for a shard: the disk is full") from None
        os.ftruncate(descriptor, size)  # file systems without reservation


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count


def _begin_writing_out(descriptor: int, begin: int, end: int) -> None:
    """Let the disk begin with each stretch that the write of bytes [begin, end) completes, while we merge on.

    Without this the kernel keeps all of the output back until `sync`, which then waits for the whole of it. Where a
    stretch has holes yet (several workers), what comes later waits for `sync`.
    """
    first, last = begin // _STRETCH_BYTES, end // _STRETCH_BYTES
    if first != last and hasattr(os, "posix_fadvise"):
        offset, length = first * _STRETCH_BYTES, (last - first) * _STRETCH_BYTES
        # Linux takes "not needed soon" as the order to write changed pages out, and does not wait for it. It is advice:
        # where it is not taken, `sync` writes everything.
        with suppress(OSError):
            os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)
