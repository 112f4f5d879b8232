"""Small networks with random data for tests of derivatives: fast, untrained, reproducible."""

from __future__ import annotations

import timm
import torch
from torch import nn

from estimators.backbone import TorchBackbone
from estimators.objectives import ClassificationObjective
from estimators.tasks import LinearHead, Split

NETWORKS = ("cnn", "test_resnet", "test_vit")
NUM_CLASSES = 3


def small_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2),
        nn.GroupNorm(2, 4),
        nn.GELU(),
        nn.Conv2d(4, 5, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def small_objective(name: str, *, double: bool = False, image_size: int = 16) -> ClassificationObjective:
    """A classification objective on a small network with a random head."""
    torch.manual_seed(0)
    module = small_cnn() if name == "cnn" else _timm(name, image_size)
    if double:
        module = module.double()
    backbone = TorchBackbone(module)
    if double:
        backbone._initial = backbone._initial.double()
    width = backbone.features(backbone.initial, small_split(1, double=double, image_size=image_size).inputs).shape[1]
    generator = torch.Generator().manual_seed(1)
    head = LinearHead(
        weight=torch.randn(NUM_CLASSES, width, generator=generator), bias=torch.randn(NUM_CLASSES, generator=generator)
    )
    return ClassificationObjective(backbone, head)


def small_split(count: int, *, seed: int = 0, double: bool = False, image_size: int = 16) -> Split:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 3, image_size, image_size, generator=generator)
    labels = torch.randint(NUM_CLASSES, (count,), generator=generator)
    return Split(inputs=inputs.double() if double else inputs, labels=labels)


def _timm(name: str, image_size: int) -> nn.Module:
    if name == "test_vit":
        return timm.create_model(name, pretrained=False, num_classes=0, img_size=image_size, patch_size=8)
    return timm.create_model(name, pretrained=False, num_classes=0)
