import numpy as np
import pytest
import torch

from estimators.lanczos import random_direction, top_eigenvalue


def random_symmetric(rng, size):
    matrix = rng.standard_normal((size, size))
    return torch.as_tensor(matrix + matrix.T)


@pytest.mark.parametrize("seed", range(25))
def test_the_residual_bound_always_holds_the_dense_eigenvalue(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 60))
    matrix = random_symmetric(rng, size)
    eigenvalues = np.linalg.eigvalsh(matrix.numpy())
    for products in (3, 8, 60):
        start = random_direction(matrix[0], seed)
        found = top_eigenvalue(lambda v: matrix @ v, start, max_products=products, tolerance=1e-9)
        assert found.value <= eigenvalues[-1] + 1e-9
        assert np.abs(eigenvalues - found.value).min() <= found.residual + 1e-9
        assert torch.linalg.vector_norm(matrix @ found.vector - found.value * found.vector) == pytest.approx(
            found.residual, abs=1e-8
        )
    assert found.value == pytest.approx(eigenvalues[-1], rel=1e-8)


def test_the_whole_spectrum_is_found_without_ghosts_in_float32():
    eigenvalues = torch.tensor([1000.0, 100.0, 10.0, 1.0, 0.1, 0.0])
    found = top_eigenvalue(lambda v: eigenvalues * v, random_direction(eigenvalues, 0), max_products=6, tolerance=0.0)
    assert (found.ritz_values > 500).sum() == 1
    assert found.value == pytest.approx(1000.0, rel=1e-5)


def test_a_zero_matrix_has_eigenvalue_zero_with_no_residual():
    found = top_eigenvalue(torch.zeros_like, torch.ones(5), max_products=4)
    assert (found.value, found.residual, found.products) == (0.0, 0.0, 1)


def test_a_good_start_saves_products():
    matrix = random_symmetric(np.random.default_rng(3), 40)
    vector = torch.as_tensor(np.linalg.eigh(matrix.numpy())[1][:, -1].copy())
    assert top_eigenvalue(lambda v: matrix @ v, vector, max_products=20).products == 1


def test_starts_without_direction_and_no_products_are_refused():
    with pytest.raises(ValueError, match="pass a random vector"):
        top_eigenvalue(lambda v: v, torch.zeros(3), max_products=2)
    with pytest.raises(ValueError, match="max_products=0 must be at least 1"):
        top_eigenvalue(lambda v: v, torch.ones(3), max_products=0)
