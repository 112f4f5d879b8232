"""Every operator on real architectures with everything that trips merging elsewhere.

The refusals that remain, with their reasons, are these: keys or shapes that differ (another architecture) unless the
caller says `keys="common"` or `keep_base`, dtypes that differ unless `mixed_dtypes=True`, a merged variance below zero.
"""

from functools import cache
from typing import Any

import numpy as np
import pytest
import timm
import torch

from advisor.merging import OPERATORS, IncompatibleCheckpoints, merge_state_dicts

MODELS = ("test_resnet", "test_vit", "test_convnext")
State = dict[str, torch.Tensor]


@cache
def checkpoints(model: str, dtype: torch.dtype) -> tuple[State, ...]:
    """A base and three experts: counters unequal, an integer buffer, statistics that moved."""
    torch.manual_seed(0)
    base = dict(timm.create_model(model, num_classes=3).state_dict())
    base["relative_position_index"] = torch.arange(6).reshape(2, 3)
    base = {n: t.to(dtype) if t.is_floating_point() else t for n, t in base.items()}
    experts = []
    for number in range(3):
        expert = {}
        for name, tensor in base.items():
            if name.endswith("num_batches_tracked"):
                expert[name] = tensor + 10 * number
            elif not tensor.is_floating_point():
                expert[name] = tensor
            elif name.endswith("running_var"):
                expert[name] = tensor * (1 + 0.1 * torch.rand_like(tensor))
            else:
                expert[name] = tensor + 0.02 * torch.randn_like(tensor)
        experts.append(expert)
    return base, *experts


def statistics_for(method: str, base: State) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {n: tuple(t.shape) for n, t in base.items() if t.is_floating_point()}
    if method == "fisher":
        return {"fisher": [{n: np.asarray(rng.random(s), np.float32) for n, s in shapes.items()} for _ in range(3)]}
    if method == "regmean":
        widths = {n: int(np.prod(s[1:])) for n, s in shapes.items() if len(s) == 2 or s[2:] == (1, 1)}
        return {"grams": [{n: np.diag(rng.random(w)).astype(np.float32) for n, w in widths.items()} for _ in range(3)]}
    if method == "wudi":
        return {"steps": 3}
    return {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", list(OPERATORS))
def test_every_operator_runs_on_every_architecture(method: str, model: str, dtype: torch.dtype) -> None:
    base, *experts = checkpoints(model, dtype)
    merged = merge_state_dicts(base, experts, method=method, **statistics_for(method, base))
    assert list(merged) == list(base)
    moved = 0
    for name, tensor in base.items():
        assert merged[name].dtype == tensor.dtype
        assert merged[name].shape == tensor.shape
        assert torch.isfinite(merged[name].float()).all()
        moved += not torch.equal(merged[name], tensor)
    # model_stock rightly leaves what unrelated task vectors moved where it was
    assert moved > (0 if method == "model_stock" else len(base) // 3)


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "tsv_m"])
def test_a_merged_model_loads_and_predicts(method: str) -> None:
    base, *experts = checkpoints("test_resnet", torch.float32)
    merged = merge_state_dicts(base, experts, method=method)
    merged.pop("relative_position_index")
    model = timm.create_model("test_resnet", num_classes=3).eval()
    model.load_state_dict(merged)
    assert torch.isfinite(model(torch.randn(2, 3, 64, 64))).all()


@pytest.mark.parametrize("method", list(OPERATORS))
def test_missing_and_extra_keys_are_refused_or_kept_on_request(method: str) -> None:
    base, *experts = checkpoints("test_vit", torch.float32)
    first = {n: t for n, t in experts[0].items() if n != "cls_token"} | {"extra": torch.zeros(2)}
    changed = [first, *experts[1:]]
    options = statistics_for(method, base)
    with pytest.raises(IncompatibleCheckpoints, match="missing 'cls_token', extra 'extra'"):
        merge_state_dicts(base, changed, method=method, **options)
    merged = merge_state_dicts(base, changed, method=method, keys="common", **options)
    assert torch.equal(merged["cls_token"], base["cls_token"])
    assert "extra" not in merged


def test_mixed_precision_is_refused_or_widened_on_request() -> None:
    base, *_ = checkpoints("test_vit", torch.float32)
    _, *narrow = checkpoints("test_vit", torch.bfloat16)
    with pytest.raises(IncompatibleCheckpoints, match="has dtype BF16, the base F32"):
        merge_state_dicts(base, narrow)
    merged = merge_state_dicts(base, narrow, mixed_dtypes=True)
    assert merged["cls_token"].dtype == torch.float32
