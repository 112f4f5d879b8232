"""A project whose whole path takes seconds, on a backbone that was pre-trained a little."""

from pathlib import Path

import safetensors.torch

from advisor.demo import pretrain

PROJECT = """\
backbone: {name: test_resnet, checkpoint: base.safetensors, in_chans: 1, image_size: 16}
tasks:
  low:  {data: builtin/digits-rotated-low, limit: 80, split: [0.5, 0.25, 0.25]}
  high: {data: builtin/digits-rotated-high, limit: 80, split: [0.5, 0.25, 0.25]}
search:
  learning_rate: {sgd: [1.0e-5, 1.0e-2]}
  batch_size: [8, 16]
  steps: [8, 48]
  schedule: [constant]
budget: {probe_share: 1.0, probes: 3}
"""


def write_project(folder: Path, text: str = PROJECT) -> Path:
    """The backbone and the project file in a folder, which is given back."""
    (folder / "base.safetensors").write_bytes(safetensors.torch.save(pretrain(seed=0, epochs=2)))
    (folder / "project.yaml").write_text(text)
    return folder
