"""The three files that make a text encoder, wherever they lie: nothing else of a model is read, and no code of it runs.

    config.json          architecture               (JSON)
    tokenizer.json       tokenizer                  (JSON, read by the tokenizers library)
    model.safetensors    weights                    (tensors only; a pickled ``pytorch_model.bin`` is refused)

Places: a folder; a .zip of one; ``package/NAME`` for an installed Python package that carries either (found, not
imported); or, where that was asked for, a model of the hub, of which these three files are fetched.
"""

from __future__ import annotations

import importlib.util
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from estimators.datasets import shortened

CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
NEEDED = (CONFIG, TOKENIZER, WEIGHTS)
PACKAGE_PREFIX = "package/"
LARGEST = {CONFIG: 2**20, TOKENIZER: 2**28}  # bytes; weights may take half of the memory


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFiles:
    """The files of one encoder.

    Attributes:
        label: how the project names it.
        place: the folder or .zip.
        inside: folder within the .zip, with a slash at its end, or empty.
    """

    label: str
    place: Path
    inside: str = field(default="")

    def read(self, name: str) -> bytes:
        """Content of one of the files."""
        try:
            if self.place.is_dir():
                self._refuse_large(name, (self.place / name).stat().st_size)
                return (self.place / name).read_bytes()
            with zipfile.ZipFile(self.place) as archive:  # which gives no more bytes than are declared here
                self._refuse_large(name, archive.getinfo(self.inside + name).file_size)
                return archive.read(self.inside + name)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"backbone={self.label!r}: {name} cannot be read ({error})") from None

    def _refuse_large(self, name: str, size: int) -> None:
        most = LARGEST.get(name, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
        if size > most:
            raise ValueError(
                f"backbone={self.label!r}: {name} has {size:,} bytes, at most {most:,} are read; is it the right file?"
            )

    def config(self) -> Mapping[str, Any]:
        """``config.json``."""
        try:
            config = json.loads(self.read(CONFIG))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"backbone={self.label!r}: {CONFIG} cannot be read ({error})") from None
        if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
            raise ValueError(f"backbone={self.label!r}: {CONFIG} names no model_type; it is no transformers model")
        return config

    def tokenizer(self) -> str:
        """``tokenizer.json``."""
        try:
            return self.read(TOKENIZER).decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"backbone={self.label!r}: {TOKENIZER} is not UTF-8 ({error.reason})") from None


def find_encoder(name: str, path: Path, *, from_hub: bool = False) -> EncoderFiles:
    """Where an encoder lies.

    Args:
        name: as the project names it: a path, ``package/NAME``, or a model of the hub.
        path: the name as an absolute path.
        from_hub: fetch it from the hub.

    Raises:
        ValueError: if it is not there, or lacks one of the files.
    """
    if from_hub:
        return _checked(EncoderFiles(label=name, place=_fetched(name)))
    if name.startswith(PACKAGE_PREFIX):
        return _in_package(name)
    if not path.exists():
        raise ValueError(
            f"backbone.name={name!r} is neither a folder nor a .zip of a transformers model; correct the path, name an "
            "installed package as package/NAME, or set backbone.pretrained: true to take the model from the hub"
        )
    return _checked(_opened(name, path))


def _opened(label: str, path: Path) -> EncoderFiles:
    """A folder, or the one folder of a .zip that holds a configuration."""
    if path.is_dir():
        return EncoderFiles(label=label, place=path)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"backbone={label!r} is neither a folder nor a .zip; name the folder that holds {CONFIG}")
    inside = {name.removesuffix(CONFIG) for name in _archived(path) if name.rpartition("/")[2] == CONFIG}
    whole = [folder for folder in sorted(inside) if folder + WEIGHTS in _archived(path)]
    return EncoderFiles(label=label, place=path, inside=whole[0] if whole else "")


def _archived(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def _in_package(name: str) -> EncoderFiles:
    """The model inside an installed package: its folder, a folder in it, or a .zip in it."""
    package = name.removeprefix(PACKAGE_PREFIX)
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    if not roots:
        raise ValueError(f"backbone.name={name!r}: no package {package!r} is installed; install it, or name a folder")
    folders = [folder for root in roots for folder in (root, *sorted(root.iterdir())) if (folder / CONFIG).is_file()]
    archives = [path for root in roots for path in sorted(root.glob("*.zip")) if zipfile.is_zipfile(path)]
    found = [_opened(name, place) for place in (*folders, *archives)]
    whole = [files for files in found if not _lacking(files)]
    if len(whole) != 1:
        raise ValueError(
            f"backbone.name={name!r}: the package holds {len(whole)} models ({', '.join(NEEDED)}), not one; unpack the "
            "model and name its folder"
        )
    return whole[0]


def _checked(files: EncoderFiles) -> EncoderFiles:
    lacking = _lacking(files)
    if lacking:
        raise ValueError(
            f"backbone={files.label!r} lacks {' and '.join(lacking)}; a text encoder is read from {', '.join(NEEDED)} "
            "alone: save it with save_pretrained (safetensors, fast tokenizer)"
        )
    return files


def _lacking(files: EncoderFiles) -> list[str]:
    if files.place.is_dir():
        return [name for name in NEEDED if not (files.place / name).is_file()]
    held = _archived(files.place)
    return [name for name in NEEDED if files.inside + name not in held]


def _fetched(name: str) -> Path:
    """The three files from the hub."""
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=list(NEEDED)))
    except Exception as error:  # hub clients raise their own families of errors
        text = shortened(" ".join(str(error).split()).split(" "), 24).replace(", ", " ")
        raise ValueError(
            f"backbone={name!r} with pretrained=True could not be fetched ({type(error).__name__}: {text}); check the "
            "connection to the hub, or name a local folder and set backbone.pretrained: false"
        ) from error
