import numpy as np
import torch

from advisor.merging.tsv import merge_singular_vectors


def naive_tsv(matrices: torch.Tensor) -> torch.Tensor:
    """The paper's steps one by one, in torch and fp64."""
    count, rows, columns = matrices.shape
    kept = min(rows, columns) // count
    left, values, right = [], [], []
    for matrix in matrices:
        u, s, v = torch.svd(matrix)
        left += [u[:, i] for i in range(kept)]
        values += [s[i] for i in range(kept)]
        right += [v[:, i] for i in range(kept)]

    def orthogonalise(columns_of: list[torch.Tensor]) -> torch.Tensor:
        p, _, q = torch.svd(torch.stack(columns_of, dim=1))
        return p @ q.T

    return orthogonalise(left) @ torch.diag(torch.stack(values)) @ orthogonalise(right).T


def test_tsv_equals_the_papers_steps() -> None:
    for shape in ((3, 12, 9), (2, 8, 20), (4, 16, 16)):
        matrices = np.random.default_rng(1).normal(size=shape)
        expected = naive_tsv(torch.from_numpy(matrices)).numpy()
        np.testing.assert_allclose(merge_singular_vectors(matrices), expected, rtol=1e-8, atol=1e-10)


def test_tasks_in_orthogonal_subspaces_are_only_added() -> None:
    rng = np.random.default_rng(2)
    left, right = (np.linalg.qr(rng.normal(size=(8, 8)))[0] for _ in range(2))
    first = left[:, :4] @ np.diag([4.0, 3.0, 2.0, 1.0]) @ right[:, :4].T
    second = left[:, 4:] @ np.diag([4.0, 3.0, 2.0, 1.0]) @ right[:, 4:].T
    np.testing.assert_allclose(merge_singular_vectors(np.stack([first, second])), first + second, atol=1e-10)


def test_more_tasks_than_directions_keep_one_each() -> None:
    merged = merge_singular_vectors(np.random.default_rng(3).normal(size=(7, 3, 2)))
    assert merged.shape == (3, 2)
    assert np.isfinite(merged).all()
