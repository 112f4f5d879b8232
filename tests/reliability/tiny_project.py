"""A project whose whole path takes a few seconds, and how the results of two runs of it are compared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from estimators.backbone_loading import BackboneSource, build_module, resolve

PROJECT = """\
backbone: {name: test_resnet, checkpoint: base.safetensors, in_chans: 1, image_size: 16}
tasks:
  low:  {data: builtin/digits-rotated-low, limit: 40, split: [0.5, 0.25, 0.25]}
  high: {data: builtin/digits-rotated-high, limit: 40, split: [0.5, 0.25, 0.25]}
search:
  learning_rate: {sgd: [1.0e-7, 1.0e-2]}
  batch_size: [4, 8]
  steps: [4, 24]
  schedule: [constant]
budget: {probe_share: 1.0, probes: 2}
"""
# what a clock says, and checksums over lines that hold it; everything else must be equal to the last bit
BY_CLOCK = {"seconds", "created", "time", "check", "id", "version"}


def write_project(folder: Path, text: str = PROJECT) -> Path:
    """The project file in a folder, with its backbone beside it; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    source, _ = resolve(BackboneSource(name="test_resnet", in_chans=1, image_size=16, seed=0))
    module = build_module(source, pretrained=False)
    (folder / "base.safetensors").write_bytes(safetensors.torch.save(module.state_dict()))
    (folder / "project.yaml").write_text(text)
    return folder / "project.yaml"


def numbers(value: Any) -> Any:
    """A JSON value without what depends on the clock."""
    if isinstance(value, Mapping):
        return {key: numbers(item) for key, item in value.items() if key not in BY_CLOCK}
    if isinstance(value, list | tuple):
        return [numbers(item) for item in value]
    return value
