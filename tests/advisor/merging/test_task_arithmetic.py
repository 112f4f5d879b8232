import numpy as np

from advisor.merging import merge_state_dicts
from tests.advisor.merging.checkpoints import random_base, random_experts


def test_task_arithmetic_is_base_plus_scaled_task_vectors() -> None:
    base = random_base()
    experts = random_experts(base)
    weights = [0.3, 1.4, -0.2]
    merged = merge_state_dicts(base, experts, coefficients=weights)
    for name, tensor in base.items():
        if tensor.dtype.kind == "f":
            moved = sum(w * (e[name].astype("f8") - tensor) for w, e in zip(weights, experts, strict=True))
            np.testing.assert_allclose(merged[name], tensor + moved, rtol=1e-5, atol=1e-6)


def test_the_default_coefficient_is_three_tenths() -> None:
    base = random_base()
    experts = random_experts(base)
    default = merge_state_dicts(base, experts)
    stated = merge_state_dicts(base, experts, coefficients=0.3)
    assert all(np.array_equal(default[name], stated[name]) for name in base)
