r"""The demo: the whole path on real data, small enough for a laptop.

A small timm ResNet is pre-trained on a third of scikit-learn's digits, upright; four tasks are made from the
others, turned by 90 degrees: 0-4, 5-9, even and odd digits (an image is on the same side of every task's split).  Each
expert has to learn turned digits from a few hundred images, so merging can help all of them.  From there on it is an
ordinary project: ``project.yaml`` and ``base.safetensors`` are written into the demo's folder, and
``merge-advisor run`` on that file does the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional

from advisor.advice import Validation
from advisor.merging.threads import single_threaded
from advisor.pipeline import run_all
from advisor.progress import Progress, both, event_progress, silent
from advisor.workspace import Workspace, open_workspace
from estimators.backbone_loading import BackboneSource, build_module, resolve
from estimators.builtin_tasks import builtin_catalogue
from estimators.files import write_bytes_atomic
from estimators.image_decoding import decode_many

MODEL, IMAGE_SIZE = "test_resnet", 16
EPOCHS, BATCH, PEAK_RATE = 10, 32, 3e-3

PROJECT = """\
# The demo's project: four digit tasks and one small ResNet, pre-trained on digits that no task holds.
backbone: {{name: {model}, checkpoint: base.safetensors, in_chans: 1, image_size: {size}}}
tasks:
  low:  {{data: builtin/digits-rotated-low, split: [0.5, 0.25, 0.25]}}
  high: {{data: builtin/digits-rotated-high, split: [0.5, 0.25, 0.25]}}
  even: {{data: builtin/digits-rotated-even, split: [0.5, 0.25, 0.25]}}
  odd:  {{data: builtin/digits-rotated-odd, split: [0.5, 0.25, 0.25]}}
search:
  learning_rate: {{sgd: [1.0e-5, 1.0e-1], adamw: [1.0e-5, 1.0e-2]}}
  batch_size: [8, 32]
  steps: [20, 240]
budget: {{probe_share: 0.6}}
seed: {seed}
"""


def write_demo_project(folder: Path, *, seed: int = 0, progress: Progress = silent) -> Path:
    """Pre-train the demo's backbone (unless it is there) and write its project file; returns the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "base.safetensors"
    if not checkpoint.exists():
        with single_threaded():  # as every stage of so small a backbone
            write_bytes_atomic(checkpoint, safetensors.torch.save(pretrain(seed=0, progress=progress)))
    project = folder / "project.yaml"
    write_bytes_atomic(project, PROJECT.format(model=MODEL, size=IMAGE_SIZE, seed=seed).encode())
    return project


def pretrain(*, seed: int, epochs: int = EPOCHS, progress: Progress = silent) -> dict[str, torch.Tensor]:
    """State dict of the demo's ResNet after some epochs on the pre-training digits (AdamW, cosine)."""
    source = resolve(BackboneSource(name=MODEL, in_chans=1, image_size=IMAGE_SIZE, seed=seed))[0]
    module = build_module(source, pretrained=False).train()
    catalogue = builtin_catalogue("builtin/digits-pretrain")
    images, labels = _decode(catalogue, source), torch.from_numpy(catalogue.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(int(module(images[:2]).shape[1]), len(catalogue.class_names))
        optimizer = torch.optim.AdamW([*module.parameters(), *head.parameters()], lr=PEAK_RATE)
        steps = epochs * (len(images) // BATCH)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        order = torch.cat([torch.randperm(len(images)) for _ in range(epochs + 1)])
        for k in range(steps):
            batch = order[k * BATCH : (k + 1) * BATCH]
            optimizer.zero_grad()
            functional.cross_entropy(head(module(images[batch])), labels[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            progress("pre-training", k + 1, steps)
    return {name: value.detach().contiguous() for name, value in module.eval().state_dict().items()}


def _decode(catalogue: object, source: BackboneSource) -> torch.Tensor:
    openers = [(name, lambda i=i: catalogue.open_sample(i)) for i, name in enumerate(catalogue.names)]  # type: ignore[attr-defined,misc]
    pixels, _, _ = decode_many(openers, size=source.image_size or IMAGE_SIZE, channels=1)  # type: ignore[arg-type]
    scaled = torch.from_numpy(np.asarray(pixels)).float() / 255.0
    assert source.mean is not None
    assert source.std is not None
    return (scaled - source.mean[0]) / source.std[0]


def run_demo(
    out: Path, *, seed: int = 0, progress: Progress = silent, time_limit: float | None = None
) -> tuple[Workspace, Validation]:
    """The whole path; continues where an earlier demo in ``out`` stopped."""
    project = write_demo_project(out, seed=seed, progress=progress)
    ws = open_workspace(project, out / f"run-seed-{seed}", time_limit=time_limit)
    ws.progress = both(progress, event_progress(ws.run))  # whoever watches the run sees how far it is
    return ws, run_all(ws)
