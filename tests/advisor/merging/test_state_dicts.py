import numpy as np
import pytest
import torch

from advisor.merging import combine, merge_state_dicts, merge_with_result, task_vectors
from tests.advisor.merging.checkpoints import State, parameters, random_base, random_expert, random_experts


def as_torch(state: State) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(tensor)) for name, tensor in state.items()}


@pytest.mark.parametrize("method", ["average", "task_arithmetic", "ties"])
def test_torch_and_numpy_give_the_same_bits(method: str) -> None:
    base = random_base()
    experts = random_experts(base)
    merged = merge_state_dicts(as_torch(base), [as_torch(expert) for expert in experts], method=method)
    expected = merge_state_dicts(base, experts, method=method)
    assert all(np.array_equal(merged[name].numpy(), expected[name]) for name in base)
    assert all(merged[name].shape == base[name].shape for name in base)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_merged_wide_and_rounded_once(dtype: torch.dtype) -> None:
    base = {n: t.to(dtype) if t.is_floating_point() else t for n, t in as_torch(random_base()).items()}
    experts = [
        {n: t.to(dtype) if t.is_floating_point() else t for n, t in as_torch(e).items()}
        for e in random_experts(random_base())
    ]
    merged = merge_state_dicts(base, experts, coefficients=[0.3, 0.2, 0.1])
    for name, tensor in base.items():
        assert merged[name].dtype == tensor.dtype
        if tensor.is_floating_point():
            wide = tensor.double() + sum(
                w * (e[name].double() - tensor.double()) for w, e in zip([0.3, 0.2, 0.1], experts, strict=True)
            )
            step = torch.finfo(dtype).eps * wide.abs().clamp_min(1e-3)
            assert (
                (merged[name].double() - wide).abs()
                <= (0.51 if dtype != torch.float64 else 4) * step + 1e-6 * (dtype != torch.float64)
            ).all()


def test_inputs_are_left_as_they_are() -> None:
    base = as_torch(random_base())
    experts = [as_torch(expert) for expert in random_experts(random_base())]
    copies = [{n: t.clone() for n, t in state.items()} for state in [base, *experts]]
    for method in ("average", "ties"):
        merge_state_dicts(base, experts, method=method)
    for state, copy in zip([base, *experts], copies, strict=True):
        assert all(torch.equal(state[n], copy[n]) for n in copy)


def test_counters_keep_the_base_unless_all_experts_agree() -> None:
    base = random_base()
    experts = random_experts(base)
    assert merge_state_dicts(base, experts)["bn.num_batches_tracked"] == 100
    for expert in experts:
        expert["bn.num_batches_tracked"] = np.array(7)
    assert merge_state_dicts(base, experts)["bn.num_batches_tracked"] == 7


def test_a_negative_variance_is_refused_with_the_way_out() -> None:
    base = random_base()
    expert = random_expert(base, 0)
    expert["bn.running_var"] = base["bn.running_var"] * 0.1
    with pytest.raises(ValueError, match=r"'bn\.running_var': the merged variance is -.*re-estimate on data"):
        merge_state_dicts(base, [expert], coefficients=2.0)
    kept = merge_state_dicts(base, [expert], coefficients=2.0, keep_base=["*running_*"])
    assert np.array_equal(kept["bn.running_var"], base["bn.running_var"])


def test_combining_task_vectors_equals_merging() -> None:
    base = random_base()
    experts = random_experts(base)
    merged = merge_state_dicts(base, experts, coefficients=[0.5, 0.0, 1.2])
    for state, found in (
        (base, combine(base, task_vectors(base, experts), [0.5, 0.0, 1.2])),
        (
            as_torch(base),
            combine(as_torch(base), task_vectors(as_torch(base), list(map(as_torch, experts))), [0.5, 0, 1.2]),
        ),
    ):
        assert list(found) == list(state)
        for name in base:
            np.testing.assert_allclose(np.asarray(found[name]), merged[name], rtol=1e-6, atol=1e-6)


def test_combining_lets_gradients_reach_the_coefficients() -> None:
    base = as_torch(random_base())
    vectors = task_vectors(base, [as_torch(expert) for expert in random_experts(random_base())])
    weights = torch.full((3,), 0.3, requires_grad=True)
    merged = combine(base, vectors, weights)  # type: ignore[arg-type]
    merged["scale"].sum().backward()
    assert weights.grad is not None
    np.testing.assert_allclose(weights.grad.numpy(), [v["scale"].item() for v in vectors], rtol=1e-6)


def test_coefficients_may_differ_by_tensor() -> None:
    base = random_base()
    experts = random_experts(base)
    own = {name: [0.1 * i, 0.2, 0.3] for i, name in enumerate(parameters(base))}
    merged = merge_state_dicts(base, experts, coefficients=0.0, tensor_coefficients=own)
    vectors = [{n: v for n, v in vector.items() if n in own} for vector in task_vectors(base, experts)]
    found = combine(base, vectors, own)
    for name in base:
        if "num_batches" not in name:
            np.testing.assert_allclose(found[name], merged[name], rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="tensor_coefficients for 'nothing': no tensor of that name is merged"):
        merge_state_dicts(base, experts, tensor_coefficients={"nothing": [1, 1, 1]})
    with pytest.raises(ValueError, match="none for tensor 'scale'"):
        combine(base, vectors, {n: v for n, v in own.items() if n != "scale"})
    with pytest.raises(ValueError, match="2 given for 3 task vectors"):
        combine(base, vectors, [1.0, 2.0])


def test_task_vectors_of_another_architecture_are_refused() -> None:
    base = random_base()
    with pytest.raises(ValueError, match="expert 0: tensor 'conv.weight' has shape None"):
        task_vectors(base, [{}])


def test_tied_tensors_stay_tied_and_count_once() -> None:
    def tied(weight: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"embed": weight, "head": weight, "free": weight[:2].clone()}

    torch.manual_seed(0)
    base = tied(torch.randn(50, 4))
    experts = [tied(base["embed"] + 0.1 * torch.randn(50, 4)) for _ in range(2)]
    merged, result = merge_with_result(base, experts, method="ties")
    assert torch.equal(merged["embed"], merged["head"])
    assert list(result.task_vectors.tensors) == ["embed", "free"]


def test_zero_coefficients_return_the_base_bit_for_bit() -> None:
    base = random_base()
    merged = merge_state_dicts(base, random_experts(base), coefficients=0.0)
    assert all(np.array_equal(merged[name], base[name]) for name in base)
