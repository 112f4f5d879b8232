import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.spatial import geometric_slerp

from advisor.merging import merge_state_dicts
from advisor.merging.slerp import sphere_shares


def gram_of(
    points: list[np.ndarray[tuple[int], np.dtype[np.float64]]],
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    stacked = np.stack(points)
    return np.asarray(stacked @ stacked.T)


@pytest.mark.parametrize("s", [0.1, 0.5, 0.8])
def test_two_experts_follow_the_formula_and_scipys_great_circle(s: float) -> None:
    rng = np.random.default_rng(0)
    base = {"w": rng.normal(size=(6, 5))}
    u, v = ({"w": base["w"] + 0.8 * rng.normal(size=(6, 5))} for _ in range(2))
    merged = merge_state_dicts(base, [u, v], method="slerp", coefficients=[1 - s, s], trust_base=True)["w"]
    a, b = u["w"].ravel(), v["w"].ravel()
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    formula = (np.sin((1 - s) * angle) * a + np.sin(s * angle) * b) / np.sin(angle)
    np.testing.assert_allclose(merged.ravel(), formula, rtol=1e-9)
    unit = {k: {"w": x["w"] / np.linalg.norm(x["w"])} for k, x in (("u", u), ("v", v))}
    merged = merge_state_dicts(base, unit, method="slerp", coefficients=[1 - s, s], trust_base=True)["w"]
    arc = geometric_slerp(unit["u"]["w"].ravel(), unit["v"]["w"].ravel(), [s])[0]
    np.testing.assert_allclose(merged.ravel(), arc, rtol=1e-7, atol=1e-12)


def test_three_experts_minimise_the_squared_angles() -> None:
    rng = np.random.default_rng(1)
    centre = rng.normal(size=4)
    points = [p / np.linalg.norm(p) for p in (centre + 0.7 * rng.normal(size=4) for _ in range(3))]
    weights = np.array([0.5, 0.2, 0.3])
    found = sphere_shares(gram_of(points), weights) @ np.stack(points)
    assert np.linalg.norm(found) == pytest.approx(1.0)

    def cost(x: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        direction = x / np.linalg.norm(x)
        return float(
            sum(w * np.arccos(np.clip(direction @ p, -1, 1)) ** 2 for w, p in zip(weights, points, strict=True))
        )

    best = minimize(cost, points[0], tol=1e-14).x
    np.testing.assert_allclose(found, best / np.linalg.norm(best), atol=1e-5)


@pytest.mark.parametrize(
    "gram",
    [
        np.array([[1.0, 1.0], [1.0, 1.0]]),
        np.array([[1.0, -1.0], [-1.0, 1.0]]),
        np.array([[1.0, 0.0], [0.0, 0.0]]),
    ],
)
def test_parallel_opposite_and_zero_tensors_take_the_average(
    gram: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> None:
    assert sphere_shares(gram, np.array([0.3, 0.7])).tolist() == [0.3, 0.7]


def test_one_used_expert_comes_back() -> None:
    base = {"w": np.arange(1.0, 5.0)}
    experts = [{"w": np.array([1.0, 0.0, 3.0, 4.5])}, {"w": np.array([2.0, 2.0, 3.0, 4.0])}]
    merged = merge_state_dicts(base, experts, method="slerp", coefficients=[0.0, 1.0])
    np.testing.assert_allclose(merged["w"], experts[1]["w"], rtol=1e-12)
