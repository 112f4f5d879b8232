"""Kinks of networks are found by the operations that they call, whatever their modules are."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from advisor.training_facts import find_kinks


class Hidden(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(x).mean((2, 3))


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if float(x.sum()) > 0 else -x


@pytest.mark.parametrize(
    ("module", "kinks"),
    [
        (nn.Conv2d(3, 2, 3), ()),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.GELU(), nn.BatchNorm2d(2), nn.AvgPool2d(2), nn.SiLU()), ()),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(inplace=True)), ("relu",)),
        (nn.ReLU6(), ("hardtanh",)),
        (nn.Hardswish(), ("hardswish",)),
        (nn.PReLU(), ("prelu_kernel",)),
        (nn.MaxPool2d(2), ("max_pool2d_with_indices",)),
        (Hidden(), ("relu",)),
    ],
)
def test_kinks_are_named(module: nn.Module, kinks: tuple[str, ...]) -> None:
    assert find_kinks(module, (1, 3, 8, 8)) == kinks


def test_timm_networks_are_told_apart_and_left_as_they_were() -> None:
    resnet = timm.create_model("test_resnet", num_classes=0)
    assert find_kinks(resnet, (1, 3, 32, 32)) != ()
    vit = timm.create_model("test_vit", num_classes=0, img_size=32)
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    assert find_kinks(vit, (1, 3, 32, 32)) == ()
    assert all(value.device.type == "cpu" and torch.equal(value, before[n]) for n, value in vit.state_dict().items())


def test_a_network_that_looks_at_its_numbers_stays_unknown() -> None:
    assert find_kinks(Branching(), (1, 3, 8, 8)) is None
