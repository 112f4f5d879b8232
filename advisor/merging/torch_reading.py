"""Reading PyTorch checkpoints (.pth, .pt, .bin) with `weights_only=True`.

Tensors are mapped from the file, not loaded, where it has the zip format of torch >= 1.6. A file is refused before
torch sees it when an entry of the archive is compressed or larger than the file: torch stores entries as they are, so
anything else is a bomb. A state dict may sit under the key `state_dict` or `model`, as training loops write it.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advisor.merging.safetensors_reading import ShardedSource, check_shards, read_weight_map
from advisor.merging.sources import MemorySource, Source, UnreadableCheckpoint

TORCH_ENDINGS = frozenset({".pth", ".pt", ".bin", ".ckpt"})
_WRAPPERS = ("state_dict", "model", "model_state_dict")


def open_torch(path: Path, *, place: str) -> Source:
    """Open one PyTorch checkpoint.

    Raises:
        UnreadableCheckpoint: damaged, dangerous, or not a state dict.
    """
    state = _find_state(_load(path, place=place), place=place)
    return MemorySource(state, place=place, files=(path,))


def open_torch_index(path: Path, *, place: str) -> Source:
    """Open a sharded PyTorch checkpoint by its index file."""
    owners = read_weight_map(path, place=place)
    shards: dict[str, Source] = {
        name: open_torch(path.parent / name, place=f"{place}, shard {name}") for name in dict.fromkeys(owners.values())
    }
    check_shards(shards, owners, place=place)
    return ShardedSource(shards, owners, index=path, place=place)


def _load(path: Path, *, place: str) -> Any:
    import pickle

    import torch

    mappable = zipfile.is_zipfile(path)
    if mappable:
        _check_archive(path, place=place)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mappable)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        # The rest of torch's message advises weights_only=False, which runs whatever code is in the file.
        blocked = re.search(r"Unsupported (?:global|class|operand): .*?(?=was not|is not|\n|$)|GLOBAL \S+", str(error))
        reason = blocked[0].strip() if blocked else (str(error).splitlines() or [""])[0].partition(". ")[0]
        raise UnreadableCheckpoint(
            f"{place}: torch refuses to load it with weights_only=True ({type(error).__name__}: {reason}); where the "
            "code that wrote it is installed and trusted, save its plain state dict, best as safetensors"
        ) from None


def _check_archive(path: Path, *, place: str) -> None:
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile as error:
        raise UnreadableCheckpoint(f"{place}: damaged archive ({error})") from None
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise UnreadableCheckpoint(f"{place}: entry {entry.filename!r} is compressed; torch never writes that")
    if sum(entry.file_size for entry in entries) > size:
        raise UnreadableCheckpoint(f"{place}: its entries claim more bytes than the file's {size}")


def _find_state(loaded: Any, *, place: str) -> Mapping[str, Any]:
    if isinstance(loaded, Mapping):
        for wrapper in _WRAPPERS:
            if isinstance(loaded.get(wrapper), Mapping):
                return _find_state(loaded[wrapper], place=place)
        if loaded and all(hasattr(value, "dtype") for value in loaded.values()):
            return loaded
    raise UnreadableCheckpoint(
        f"{place}: holds a {type(loaded).__name__}, not a state dict of tensors (alone or under {', '.join(_WRAPPERS)})"
    )
