import numpy as np
import pytest

from advisor.merging import merge_state_dicts
from advisor.merging.model_stock import model_stock_operator, stock_share
from tests.advisor.merging.checkpoints import parameters, random_base, random_experts


def test_two_experts_follow_the_papers_interpolation() -> None:
    base = random_base()
    experts = random_experts(base, 2)
    experts[1] = {n: np.asarray(0.5 * (experts[0][n] + experts[1][n])).astype(base[n].dtype) for n in base}
    merged = merge_state_dicts(base, experts, method="model_stock")
    for name in parameters(base):
        a, b = ((e[name].astype("f8") - base[name]).ravel() for e in experts)
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        share = np.clip(2 * cosine / (1 + cosine), 0, 1)
        expected = share * (experts[0][name] + experts[1][name]) / 2 + (1 - share) * base[name]
        np.testing.assert_allclose(merged[name], expected, rtol=1e-4, atol=1e-5)


def test_the_share_is_clamped_and_known_at_its_ends() -> None:
    assert stock_share(np.ones((4, 4)), "cosine") == pytest.approx(1.0)
    assert stock_share(np.eye(3), "cosine") == 0.0
    assert stock_share(np.array([[1.0, -0.5], [-0.5, 1.0]]), "cosine") == 0.0
    assert stock_share(np.zeros((2, 2)), "angle") == 0.0
    assert stock_share(np.array([[4.0]]), "angle") == 1.0


def test_angles_and_cosines_average_differently() -> None:
    gram = np.array([[1.0, 0.9, 0.1], [0.9, 1.0, 0.3], [0.1, 0.3, 1.0]])
    angle = np.cos(np.arccos([0.9, 0.1, 0.3]).mean())
    assert stock_share(gram, "angle") == pytest.approx(3 * angle / (1 + 2 * angle))
    cosine = (0.9 + 0.1 + 0.3) / 3
    assert stock_share(gram, "cosine") == pytest.approx(3 * cosine / (1 + 2 * cosine))


def test_an_unknown_average_is_refused() -> None:
    with pytest.raises(ValueError, match="pairs='median' must be 'cosine' or 'angle'"):
        model_stock_operator(pairs="median")  # type: ignore[arg-type]
