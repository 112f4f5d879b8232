"""Recombined merges against the engine that merges on disk, gradients against differences."""

import numpy as np
import pytest
import timm
import torch

from advisor.coefficients_recombining import cache_task_vectors, layer_groups
from advisor.merging import IncompatibleCheckpoints, merge_state_dicts
from estimators.backbone import TorchBackbone

NAMES = ("a", "b", "c")


def resnet(*, moved_statistics=True):
    """A small ResNet with three experts; BatchNorm statistics differ where asked."""
    torch.manual_seed(0)
    backbone = TorchBackbone(timm.create_model("test_resnet", pretrained=False, num_classes=0))
    base = {name: value.clone() for name, value in backbone.module.state_dict().items()}
    experts = {}
    for number, name in enumerate(NAMES, start=1):
        generator = torch.Generator().manual_seed(number)
        state = {}
        for key, value in base.items():
            if not value.is_floating_point():
                state[key] = value + number
            elif "running" in key:
                shift = 0.1 * torch.rand(value.shape, generator=generator)
                state[key] = value + shift if moved_statistics else value
            else:
                state[key] = value + 0.02 * number * torch.randn(value.shape, generator=generator)
        experts[name] = state
    return backbone, base, experts


def test_a_recombined_merge_is_the_merge_on_disk_with_its_batch_statistics():
    backbone, base, experts = resnet()
    merges = cache_task_vectors(backbone, base, experts)
    row = np.array([0.3, 0.5, 0.1])
    expected = merge_state_dicts(base, experts, coefficients=row.tolist())
    weights = merges.weights(row)
    torch.testing.assert_close(weights, backbone.flatten(expected))
    for name, value in merges.backbone.module.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(value, expected[name])
    inputs = torch.randn(4, 3, 32, 32)
    network = timm.create_model("test_resnet", pretrained=False, num_classes=0).eval()
    network.load_state_dict(expected)
    torch.testing.assert_close(merges.backbone.features(weights, inputs), network(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["ties", "tsv_m", "task_arithmetic"])
def test_operators_give_what_the_engine_gives(method):
    backbone, base, experts = resnet()
    merges = cache_task_vectors(backbone, base, experts)
    row = np.array([0.6, 0.2, 0.9])
    expected = merge_state_dicts(base, experts, method=method, coefficients=row.tolist(), seed=3)
    torch.testing.assert_close(merges.by_operator(method, row, seed=3, options={}), backbone.flatten(expected))
    name = next(n for n in expected if n.endswith("running_mean"))
    torch.testing.assert_close(merges.backbone.module.get_buffer(name), expected[name])


def test_the_projects_backbone_is_left_alone():
    backbone, base, experts = resnet()
    before = {name: value.clone() for name, value in backbone.module.state_dict().items()}
    cache_task_vectors(backbone, base, experts).weights(np.ones(3))
    for name, value in backbone.module.state_dict().items():
        assert torch.equal(value, before[name])


def test_layer_groups_cover_the_network_and_merge_as_the_engine_does():
    backbone, base, experts = resnet()
    whole = cache_task_vectors(backbone, base, experts)
    groups = layer_groups(backbone, most=4)
    assert 2 <= len(groups) <= 4
    ends = list(groups.values())
    assert ends[0][0] == 0
    assert ends[-1][1] == backbone.num_parameters
    assert all(a[1] == b[0] for a, b in zip(ends, ends[1:], strict=False))
    merges = whole.grouped(groups)
    row = np.random.default_rng(0).uniform(0, 1, merges.size)
    expected = merge_state_dicts(base, experts, coefficients=0.0, tensor_coefficients=merges.by_tensor(row))
    torch.testing.assert_close(merges.weights(row), backbone.flatten(expected))
    for name in merges.statistics:
        torch.testing.assert_close(merges.backbone.module.get_buffer(name), expected[name])
    same = merges.weights(np.tile([0.2, 0.3, 0.4], len(groups)))
    torch.testing.assert_close(same, whole.weights(np.array([0.2, 0.3, 0.4])))


def test_the_gram_matrix_is_that_of_the_task_vectors_and_its_blocks_add_up():
    backbone, base, experts = resnet()
    whole = cache_task_vectors(backbone, base, experts)
    vectors = whole.vectors.double().numpy()
    np.testing.assert_allclose(whole.gram(), vectors @ vectors.T, rtol=1e-6)
    grouped = whole.grouped(layer_groups(backbone, most=3))
    blocks = grouped.gram()
    summed = sum(blocks[k : k + 3, k : k + 3] for k in range(0, grouped.size, 3))
    np.testing.assert_allclose(summed, whole.gram(), rtol=1e-6)
    assert blocks[0, 4] == 0


def test_projected_gradients_equal_differences():
    backbone, base, experts = resnet(moved_statistics=False)
    merges = cache_task_vectors(backbone, base, experts)
    merges = merges.grouped(layer_groups(backbone, most=2))
    probe = torch.randn(backbone.num_parameters, generator=torch.Generator().manual_seed(9))
    row = np.random.default_rng(1).uniform(0, 1, merges.size)
    slopes = merges.project(probe)
    for k in range(merges.size):
        moved = row.copy()
        moved[k] += 0.5
        change = (merges.weights(moved) - merges.weights(row)).double() @ probe.double()
        assert slopes[k] == pytest.approx(float(change) / 0.5, rel=1e-3, abs=1e-3)


def test_a_variance_below_zero_makes_no_merge():
    backbone, base, experts = resnet()
    name = next(n for n in base if n.endswith("running_var"))
    experts["a"] = experts["a"] | {name: base[name] * 0.1}
    merges = cache_task_vectors(backbone, base, experts)
    merges.weights(np.array([2.0, 0.0, 0.0]))
    assert torch.isnan(merges.backbone.module.get_buffer(name)).all()


def test_what_does_not_belong_together_is_refused():
    backbone, base, experts = resnet()
    first = next(name for name in base if name.endswith("weight"))
    with pytest.raises(IncompatibleCheckpoints, match="expert 'b' equals the base; leave it out"):
        cache_task_vectors(backbone, base, experts | {"b": dict(base)})
    with pytest.raises(IncompatibleCheckpoints, match="must hold the project's backbone"):
        cache_task_vectors(backbone, base, {"a": {first: base[first]}})
    with pytest.raises(IncompatibleCheckpoints, match="differs from the project's backbone by"):
        cache_task_vectors(backbone, {n: v * 1.5 if v.is_floating_point() else v for n, v in base.items()}, experts)
    with pytest.raises(IncompatibleCheckpoints, match="NaN or infinity"):
        cache_task_vectors(
            backbone, base, experts | {"c": experts["c"] | {first: torch.full_like(base[first], torch.nan)}}
        )
