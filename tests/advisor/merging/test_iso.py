import numpy as np
import pytest
import torch

from advisor.merging.iso import common_size, flatten_spectrum, flatten_with_tasks, iso_cts_operator


def naive_iso_cts(matrices: torch.Tensor, fraction: float) -> torch.Tensor:
    count = len(matrices)
    u, s, v = torch.svd(matrices.sum(dim=0))
    rank = len(s)
    size = rank - count * round((rank - int(fraction * rank)) / count)
    each = (rank - size) // count
    lefts, values, rights = [u[:, :size]], [s[:size]], [v[:, :size]]
    projector = torch.eye(len(u), dtype=u.dtype) - u[:, :size] @ u[:, :size].T
    for matrix in matrices:
        a, b, c = torch.svd(projector @ matrix)
        lefts.append(a[:, :each])
        values.append(b[:each])
        rights.append(c[:, :each])

    def orthogonalise(matrix: torch.Tensor) -> torch.Tensor:
        p, _, q = torch.svd(matrix)
        return p @ q.T

    mean = torch.cat(values).mean()
    return mean * orthogonalise(torch.cat(lefts, dim=1)) @ orthogonalise(torch.cat(rights, dim=1)).T


@pytest.mark.parametrize("shape", [(2, 20, 12), (3, 15, 30)])
@pytest.mark.parametrize("fraction", [0.5, 0.8, 1.0])
def test_iso_cts_equals_the_papers_steps(shape: tuple[int, ...], fraction: float) -> None:
    matrices = np.random.default_rng(0).normal(size=shape)
    expected = naive_iso_cts(torch.from_numpy(matrices), fraction).numpy()
    np.testing.assert_allclose(flatten_with_tasks(matrices, fraction), expected, rtol=1e-7, atol=1e-9)


def test_iso_c_has_a_flat_spectrum_and_the_sums_directions() -> None:
    matrices = np.random.default_rng(1).normal(size=(3, 9, 6))
    total = matrices.sum(axis=0)
    flat = flatten_spectrum(matrices)
    values = np.linalg.svd(flat, compute_uv=False)
    np.testing.assert_allclose(values, np.linalg.svd(total, compute_uv=False).mean())
    # U V' is the polar factor of D, so D' U V' is symmetric and positive semi-definite.
    product = total.T @ flat
    np.testing.assert_allclose(product, product.T, atol=1e-9)
    assert np.linalg.eigvalsh(product).min() > 0


def test_all_directions_common_is_iso_c() -> None:
    matrices = np.random.default_rng(2).normal(size=(3, 9, 6))
    np.testing.assert_allclose(flatten_with_tasks(matrices, 1.0), flatten_spectrum(matrices), atol=1e-10)


@pytest.mark.parametrize(("rank", "count", "expected"), [(768, 8, 616), (10, 3, 7), (2, 4, 2), (3, 2, 3), (5, 8, 5)])
def test_common_sizes(rank: int, count: int, expected: int) -> None:
    assert common_size(rank, count, 0.8) == expected
    assert (rank - expected) % count == 0


def test_a_small_common_share_rounds_down_to_keep_a_direction() -> None:
    assert common_size(4, 3, 0.2) == 1
    assert common_size(5, 3, 0.1) == 2


def test_a_wrong_share_is_refused() -> None:
    with pytest.raises(ValueError, match="common=0 must be above 0"):
        iso_cts_operator(common=0)
