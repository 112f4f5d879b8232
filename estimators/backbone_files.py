"""x_0 in the run: the whole state dict as safetensors, and how to build the model around it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from estimators.backbone import TorchBackbone
from estimators.backbone_kinds import Source, about, blank_inputs, build_around
from estimators.files import read_json, sha256_bytes, write_bytes_atomic, write_json

WEIGHTS_FILE = "backbone.safetensors"
ABOUT_FILE = "backbone.json"


class DamagedBackbone(ValueError):
    """Stored weights that are missing, truncated or not those that the run wrote down."""


def store_backbone(run: Path, source: Source, backbone: TorchBackbone, notes: tuple[str, ...], *, basis: str) -> None:
    """Write x_0 and how it was built; ``backbone.json`` comes last and vouches for the weights.

    ``basis`` names the settings that the weights were built from.
    """
    data = save_tensors({name: value.contiguous() for name, value in backbone.state_dict(backbone.initial).items()})
    write_bytes_atomic(run / WEIGHTS_FILE, data)
    write_json(run / ABOUT_FILE, about(source) | {"basis": basis, "sha256": sha256_bytes(data), "notes": list(notes)})


def load_backbone(
    run: Path, source: Source, *, basis: str, device: torch.device | str = "cpu"
) -> tuple[TorchBackbone, tuple[str, ...]] | None:
    """x_0 as the run holds it, and its notes; ``None`` where the run holds none yet.

    Raises:
        DamagedBackbone: if weights or description are damaged or belong to another model.
    """
    if not (run / ABOUT_FILE).exists():
        return None
    try:
        stored = read_json(run / ABOUT_FILE)
        data = (run / WEIGHTS_FILE).read_bytes()
        if sha256_bytes(data) != stored["sha256"]:
            raise DamagedBackbone(f"path={str(run / WEIGHTS_FILE)!r} is not what the run wrote down (SHA-256 differs)")
        if stored["basis"] != basis:
            raise DamagedBackbone(f"path={str(run / ABOUT_FILE)!r} was made from other settings")
        if {key: stored[key] for key in about(source)} != about(source):
            raise DamagedBackbone(f"path={str(run / ABOUT_FILE)!r} describes another model")
        backbone = build_around(source, load_tensors(data))
        notes = tuple(str(note) for note in stored["notes"])
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, DamagedBackbone):
            raise
        raise DamagedBackbone(f"path={str(run / ABOUT_FILE)!r} cannot be read back ({type(error).__name__})") from None
    backbone.to(device)
    with torch.no_grad():  # fixes feature_dim
        backbone.features(backbone.initial, blank_inputs(source, 2, device=backbone.device))
    return backbone, notes
