"""AdaMerging against autograd through the merge and against a quadratic whose best coefficients are known."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from advisor.merging import combine
from advisor.merging.adamerging import MergeDiverged, project_gradient, tune_by_gradient

State = dict[str, torch.Tensor]


def make_problem(seed: int = 0) -> tuple[State, list[State]]:
    torch.manual_seed(seed)
    base = {"a.weight": torch.randn(4, 3), "a.bias": torch.randn(4), "n": torch.tensor(3)}
    vectors = [{n: torch.randn_like(t) for n, t in base.items() if n != "n"} for _ in range(2)]
    return base, vectors


def network_loss(state: Mapping[str, Any], inputs: torch.Tensor) -> torch.Tensor:
    """AdaMerging's entropy of a linear layer's predictions."""
    logits = torch.nn.functional.linear(inputs, state["a.weight"], state["a.bias"])
    log_p = logits.log_softmax(dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1).mean()


def loss_and_gradient(state: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    leaves = {n: t.clone().requires_grad_() for n, t in state.items() if t.is_floating_point()}
    loss = network_loss(leaves, torch.linspace(-2, 2, 30).reshape(10, 3))
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item(), {n: t.grad for n, t in leaves.items() if t.grad is not None}


def test_the_gradient_identity_equals_autograd_through_the_merge() -> None:
    base, vectors = make_problem()
    weights = torch.full((2, 2), 0.3, requires_grad=True)
    names = ["a.weight", "a.bias"]
    merged = combine(base, vectors, {n: weights[i] for i, n in enumerate(names)})  # type: ignore[misc]
    network_loss(merged, torch.linspace(-2, 2, 30).reshape(10, 3)).backward()  # type: ignore[no-untyped-call]
    _, gradient = loss_and_gradient(combine(base, vectors, [0.3, 0.3]))
    assert weights.grad is not None
    np.testing.assert_allclose(project_gradient(names, gradient, vectors), weights.grad.numpy(), rtol=1e-5)


@pytest.mark.parametrize("granularity", ["task", "layer"])
def test_tuning_follows_torchs_adam(granularity: Any) -> None:
    base, vectors = make_problem()
    shape = (2,) if granularity == "task" else (2, 2)
    weights = torch.full(shape, 0.3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=1e-2)
    inputs = torch.linspace(-2, 2, 30).reshape(10, 3)
    for _ in range(20):
        optimizer.zero_grad()
        rows = weights if granularity == "layer" else weights.expand(2, 2)
        merged = combine(base, vectors, {"a.weight": rows[0], "a.bias": rows[1]})  # type: ignore[dict-item]
        network_loss(merged, inputs).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            weights.clamp_(0, 1)
    found = tune_by_gradient(base, vectors, loss_and_gradient, granularity=granularity, steps=20, learning_rate=1e-2)
    expected = (weights if granularity == "layer" else weights.expand(2, 2)).detach().numpy()
    np.testing.assert_allclose(np.array(list(found.coefficients.values())), expected, atol=1e-5)
    assert len(found.losses) == 21
    assert found.losses[-1] < found.losses[0]


def test_a_quadratic_is_solved_layer_by_layer() -> None:
    rng = np.random.default_rng(0)
    base = {"u": rng.normal(size=6), "v": rng.normal(size=5)}
    vectors = [{n: rng.normal(size=t.shape) for n, t in base.items()} for _ in range(2)]
    best = {"u": [0.7, 1.4], "v": [0.1, 0.5]}
    goal = combine(base, vectors, best)

    def quadratic(state: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        gap = {n: state[n] - goal[n] for n in state}
        return sum(float((g**2).sum()) for g in gap.values()) / 2, gap

    result = tune_by_gradient(base, vectors, quadratic, steps=2000, learning_rate=1e-2, bounds=None)
    for name, expected in best.items():
        np.testing.assert_allclose(result.coefficients[name], expected, atol=1e-3)
    assert result.task_coefficients == pytest.approx((0.4, 0.95), abs=1e-3)
    bounded = tune_by_gradient(base, vectors, quadratic, steps=500, learning_rate=1e-2)
    assert max(max(row) for row in bounded.coefficients.values()) <= 1.0


def test_tensors_without_a_gradient_stay_where_they_started() -> None:
    base, vectors = make_problem()
    result = tune_by_gradient(
        base,
        vectors,
        lambda state: (1.0, {"a.bias": loss_and_gradient(state)[1]["a.bias"]}),
        steps=3,
        initial=[0.2, 0.4],
    )
    assert result.coefficients["a.weight"] == (0.2, 0.4)
    assert result.coefficients["a.bias"] != (0.2, 0.4)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"vectors": []}, "give at least one task vector"),
        ({"granularity": "block"}, "granularity='block' must be"),
        ({"steps": -1}, "steps=-1 must be at least 0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 above 0"),
        ({"bounds": (1.0, 0.0)}, "the lower must be below the upper"),
        ({"loss_and_gradient": lambda _: (1.0, {"z": 1})}, "none belongs to a tensor of the task vectors"),
    ],
)
def test_wrong_arguments_are_refused(change: dict[str, Any], match: str) -> None:
    base, vectors = make_problem()
    arguments: dict[str, Any] = {"base": base, "vectors": vectors, "loss_and_gradient": loss_and_gradient, **change}
    with pytest.raises(ValueError, match=match):
        tune_by_gradient(**arguments)
    with pytest.raises(ValueError, match=r"vectors\[1\] has other tensors"):
        tune_by_gradient(base, [vectors[0], {}], loss_and_gradient)


def test_a_loss_that_explodes_is_named() -> None:
    base, vectors = make_problem()
    with pytest.raises(MergeDiverged, match="loss=inf at step 1: lower learning_rate"):
        tune_by_gradient(base, vectors, lambda _: (float("inf"), {}))
