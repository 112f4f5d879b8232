import numpy as np

from advisor.merging import merge_state_dicts
from tests.advisor.merging.checkpoints import State, random_base, random_experts


def floats(base: State) -> list[str]:
    return [name for name, tensor in base.items() if tensor.dtype.kind == "f"]


def test_the_simple_average_is_the_mean_of_weights_and_statistics() -> None:
    base = random_base()
    experts = random_experts(base)
    merged = merge_state_dicts(base, experts, method="average")
    for name in floats(base):
        np.testing.assert_allclose(merged[name], np.mean([e[name] for e in experts], axis=0), rtol=1e-5, atol=1e-6)


def test_the_weighted_average_divides_by_the_sum_of_weights() -> None:
    base = random_base()
    experts = random_experts(base)
    merged = merge_state_dicts(base, experts, method="weighted_average", coefficients=[1, 2, 5])
    for name in floats(base):
        expected = np.average([e[name] for e in experts], axis=0, weights=[1, 2, 5])
        np.testing.assert_allclose(merged[name], expected, rtol=1e-5, atol=1e-6)
