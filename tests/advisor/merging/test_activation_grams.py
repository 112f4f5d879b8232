from typing import Any

import pytest
import timm
import torch
from torch import nn

from advisor.merging import merge_state_dicts
from advisor.merging.activation_grams import collect_activation_grams


def test_a_linear_layers_gram_is_the_mean_outer_product_of_its_inputs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    inputs = torch.randn(10, 7, 3)
    grams = collect_activation_grams(model, [inputs[:4], inputs[4:]])
    tokens = inputs.reshape(-1, 3)
    torch.testing.assert_close(grams["0.weight"], tokens.T @ tokens / 70)
    hidden = model[:2](tokens).detach()
    torch.testing.assert_close(grams["2.weight"], hidden.T @ hidden / 70)


def test_a_convolutions_gram_explains_its_outputs() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 5, 3, stride=2, padding=1, dilation=1, bias=False)
    inputs = torch.randn(4, 2, 9, 9)
    gram = collect_activation_grams(conv, [inputs])["weight"]
    outputs = conv(inputs).transpose(0, 1).reshape(5, -1).detach()
    flat = conv.weight.detach().reshape(5, -1)
    torch.testing.assert_close(flat @ gram @ flat.T, outputs @ outputs.T / outputs.shape[1], rtol=1e-4, atol=1e-5)


def test_grouped_convolutions_and_unpadded_shapes_are_left_out() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 2, 3, groups=2), nn.Conv2d(2, 3, 3, padding="same"), nn.Flatten(), nn.Linear(108, 2)
    )
    assert list(collect_activation_grams(model, [torch.randn(1, 2, 8, 8)])) == ["3.weight"]


def test_hooks_and_mode_are_put_back() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).train()
    collect_activation_grams(model, [torch.randn(2, 3)])
    assert model.training
    assert not [hook for module in model.children() for hook in module._forward_pre_hooks.values()]


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_timm_models_can_be_merged_by_regmean(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3).eval()
    config: Any = model.default_cfg
    size = config["input_size"]
    grams = collect_activation_grams(model, [torch.randn(2, *size)])
    base = {n: t.clone() for n, t in model.state_dict().items()}
    assert {n for n in grams} <= set(base)
    experts = [{n: t + (0.01 * torch.rand_like(t) if t.is_floating_point() else 0) for n, t in base.items()}] * 2
    merged = merge_state_dicts(base, experts, method="regmean", grams=[grams, grams], ridge=1e-9)
    assert all(torch.isfinite(t).all() for t in merged.values())
    head = next(n for n in grams if base[n].shape[0] == 3)
    gram = grams[head].double()
    change, expected = (state[head].double() - base[head].double() for state in (merged, experts[0]))
    torch.testing.assert_close(change @ gram, expected @ gram, rtol=1e-2, atol=1e-5)


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="need at least one sample"):
        collect_activation_grams(nn.Linear(2, 2), [])
