import numpy as np
import pytest
import torch

from advisor.merging.task_covariance import (
    Prior,
    interference,
    iterate,
    ridge_covariance_operator,
    solve,
    wudi_operator,
)


def make_matrices(count: int = 3, shape: tuple[int, int] = (8, 5)) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.random.default_rng(0).normal(size=(count, *shape))


def torch_interference(merged: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    terms = [(((merged - t) @ t.T) ** 2).sum() / (t**2).sum() for t in matrices]
    return torch.stack(terms).sum()


@pytest.mark.parametrize(("steps", "learning_rate"), [(1, 1e-2), (50, 1e-2), (30, 1e-4)])
def test_wudi_follows_torchs_adam_on_the_papers_loss(steps: int, learning_rate: float) -> None:
    matrices = torch.from_numpy(make_matrices())
    merged = matrices.sum(dim=0).requires_grad_()
    optimizer = torch.optim.Adam([merged], lr=learning_rate)
    for _ in range(steps):
        optimizer.zero_grad()
        torch_interference(merged, matrices).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    np.testing.assert_allclose(iterate(make_matrices(), steps, learning_rate), merged.detach().numpy(), rtol=1e-6)


def test_the_interference_is_the_papers_loss() -> None:
    merged = make_matrices(1)[0]
    expected = torch_interference(torch.from_numpy(merged), torch.from_numpy(make_matrices()))
    assert interference(merged, make_matrices()) == pytest.approx(expected.item())


@pytest.mark.parametrize("prior", ["sum", "mean"])
@pytest.mark.parametrize("ridge", [1e-3, 0.1, 10.0])
def test_the_closed_form_is_a_stationary_point(prior: Prior, ridge: float) -> None:
    matrices = torch.from_numpy(make_matrices())
    centre = matrices.sum(dim=0) if prior == "sum" else matrices.mean(dim=0)
    merged = torch.from_numpy(solve(make_matrices(), ridge, prior)).requires_grad_()
    strength = ridge * len(matrices) / 5  # tr C_t = 1
    (torch_interference(merged, matrices) + strength * ((merged - centre) ** 2).sum()).backward()  # type: ignore[no-untyped-call]
    assert merged.grad is not None
    assert merged.grad.abs().max().item() < 1e-10


def test_the_ridge_leads_from_the_sum_to_the_minimiser() -> None:
    matrices = make_matrices()
    total = matrices.sum(axis=0)
    np.testing.assert_allclose(solve(matrices, 1e9, "sum"), total, rtol=1e-6)
    losses = [interference(solve(matrices, ridge, "sum"), matrices) for ridge in (1e-6, 1e-2, 1.0, 100.0)]
    assert losses == sorted(losses)
    long_run = iterate(matrices, 20_000, 1e-3)
    np.testing.assert_allclose(interference(long_run, matrices), losses[0], rtol=1e-3)


def test_early_stopped_adam_lies_between_the_sum_and_the_minimiser() -> None:
    matrices = make_matrices()
    start = interference(matrices.sum(axis=0), matrices)
    stopped = interference(iterate(matrices, 300, 1e-3), matrices)
    assert interference(solve(matrices, 1e-6, "sum"), matrices) < stopped < start


def test_one_task_is_its_own_minimiser() -> None:
    matrix = make_matrices(1)
    np.testing.assert_allclose(solve(matrix, 0.1, "sum"), matrix[0])
    np.testing.assert_allclose(iterate(matrix, 10, 1e-3), matrix[0])


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="steps=-1 must be at least 0"):
        wudi_operator(steps=-1)
    with pytest.raises(ValueError, match="ridge=0 must be above 0"):
        ridge_covariance_operator(ridge=0)
    with pytest.raises(ValueError, match="prior='zero' must be 'sum' or 'mean'"):
        ridge_covariance_operator(prior="zero")  # type: ignore[arg-type]
