import numpy as np
import pytest

from advisor.merging import merge_state_dicts
from advisor.merging.matrices import Convolutions, check_convolutions, matrix_shape, nearest_orthogonal, solve_right
from tests.advisor.merging.checkpoints import random_base, random_experts


@pytest.mark.parametrize(
    ("shape", "policy", "expected"),
    [
        ((6, 3, 3, 3), "matrix", (6, 27)),
        ((6, 3, 3, 3), "mean", None),
        ((6, 4), "mean", (6, 4)),
        ((1, 1, 8), "matrix", None),
        ((5, 1), "matrix", None),
        ((7,), "matrix", None),
        ((), "matrix", None),
    ],
)
def test_the_policy_decides_what_is_a_matrix(
    shape: tuple[int, ...], policy: Convolutions, expected: tuple[int, int] | None
) -> None:
    assert matrix_shape(shape, policy) == expected


@pytest.mark.parametrize("method", ["tsv_m", "iso_c", "iso_cts", "wudi", "ridge_covariance"])
def test_convolutions_take_the_mean_on_request_and_vectors_always(method: str) -> None:
    base = random_base()
    experts = random_experts(base)
    mean = merge_state_dicts(base, experts, method="average")
    merged = merge_state_dicts(base, experts, method=method, convolutions="mean")
    for name in ("conv.weight", "cls_token", "column.weight", "blocks.0.fc.bias"):
        np.testing.assert_allclose(merged[name], mean[name], rtol=1e-6, atol=1e-6)
    reshaped = merge_state_dicts(base, experts, method=method)
    assert not np.allclose(reshaped["conv.weight"], mean["conv.weight"])
    assert not np.allclose(merged["blocks.0.fc.weight"], mean["blocks.0.fc.weight"])


def test_experts_that_did_not_move_a_matrix_take_no_part_in_it() -> None:
    base = random_base()
    experts = random_experts(base, 3)
    experts[1]["blocks.0.fc.weight"] = base["blocks.0.fc.weight"]
    three = merge_state_dicts(base, experts, method="tsv_m")
    two = merge_state_dicts(base, [experts[0], experts[2]], method="tsv_m")
    assert np.array_equal(three["blocks.0.fc.weight"], two["blocks.0.fc.weight"])


def test_the_nearest_orthogonal_factor_is_orthogonal_and_nearest() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(7, 4))
    nearest = nearest_orthogonal(matrix)
    np.testing.assert_allclose(nearest.T @ nearest, np.eye(4), atol=1e-12)
    for _ in range(50):
        other = np.linalg.qr(nearest + 0.1 * rng.normal(size=(7, 4)))[0]
        other *= np.sign(np.sum(other * nearest, axis=0))
        assert np.linalg.norm(matrix - nearest) <= np.linalg.norm(matrix - other)


def test_the_cholesky_solve_solves() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5))
    gram = root @ root.T + np.eye(5)
    target = rng.normal(size=(3, 5))
    np.testing.assert_allclose(solve_right(target, gram) @ gram, target, rtol=1e-9)


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="convolutions='drop' must be 'matrix' or 'mean'"):
        check_convolutions("drop")
