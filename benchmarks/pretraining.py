r"""Pre-train a suite's backbone on a pool of images that no task shares.

The classifier that is trained along is thrown away; weights and BatchNorm statistics are stored as safetensors, with
the settings and the accuracy reached beside them.  AdamW, cosine schedule, small random shifts.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional

from estimators.backbone_loading import BackboneSource, build_module, resolve
from estimators.files import write_bytes_atomic, write_json
from estimators.image_decoding import decode_many
from estimators.image_folders import folder_catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretraining:
    """How a backbone is pre-trained.

    Attributes:
        data: folder of class folders.
        epochs: passes over it.
        batch_size: images a step.
        learning_rate: peak rate of AdamW.
        seed: of weights, batches and shifts.
        shift: largest random shift in pixels.
        images: use only so many images; 0 for all.
    """

    data: Path
    epochs: int = 4
    batch_size: int = 64
    learning_rate: float = 2e-3
    seed: int = 0
    shift: int = 1
    images: int = 0


def pretrain(source: BackboneSource, settings: Pretraining, out: Path) -> dict[str, Any]:
    """Train from random weights and store a checkpoint at ``out``; returns what was done."""
    source = dataclasses.replace(resolve(source)[0], checkpoint=None, seed=settings.seed)
    module = build_module(source, pretrained=False).train()
    catalogue = folder_catalogue(settings.data, origin=settings.data.name)
    size, channels = source.image_size or 0, source.in_chans
    order = np.random.default_rng(settings.seed).permutation(len(catalogue))[: settings.images or None]
    openers = [(catalogue.names[i], lambda i=i: catalogue.open_sample(int(i))) for i in order]
    pixels, readable, _ = decode_many(openers, size=size, channels=channels)
    assert source.mean is not None
    assert source.std is not None
    mean, std = torch.tensor(source.mean).view(-1, 1, 1), torch.tensor(source.std).view(-1, 1, 1)
    images = (torch.from_numpy(pixels).float() / 255 - mean) / std
    labels = torch.from_numpy(catalogue.labels[order[readable]])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        head, last_loss = _train(module, images, labels, settings, len(catalogue.class_names))
    module.eval()
    with torch.no_grad():
        correct = sum(
            int((head(module(images[i : i + 256])).argmax(1) == labels[i : i + 256]).sum())
            for i in range(0, len(images), 256)
        )
    write_bytes_atomic(out, save({n: v.contiguous() for n, v in module.state_dict().items()}))
    done = dataclasses.asdict(settings) | {
        "data": settings.data.name,
        "model": source.name,
        "images": len(images),
        "steps": settings.epochs * math.ceil(len(images) / settings.batch_size),
        "last_loss": round(last_loss, 4),
        "train_accuracy": round(correct / len(images), 4),
    }
    write_json(out.with_suffix(".json"), done)
    return done


def _train(
    module: nn.Module, images: torch.Tensor, labels: torch.Tensor, settings: Pretraining, classes: int
) -> tuple[nn.Linear, float]:
    with torch.no_grad():
        width = module(images[:2]).shape[-1]
    head = nn.Linear(width, classes)
    optimizer = torch.optim.AdamW([*module.parameters(), *head.parameters()], lr=settings.learning_rate)
    batches = math.ceil(len(images) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=settings.learning_rate, total_steps=settings.epochs * batches
    )
    loss = torch.zeros(())
    for _ in range(settings.epochs):
        for index in torch.split(torch.randperm(len(images)), settings.batch_size):
            moves = torch.randint(-settings.shift, settings.shift + 1, (2,)).tolist()
            batch = torch.roll(images[index], shifts=moves, dims=(-2, -1))
            loss = functional.cross_entropy(head(module(batch)), labels[index])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return head, float(loss.detach())
