import numpy as np
import pytest

from advisor.merging import merge_state_dicts, task_vector_gram
from advisor.merging.metagpt import metagpt_coefficients
from tests.advisor.merging.checkpoints import parameters, random_base, random_expert


def test_metagpt_is_task_arithmetic_with_shares_of_squared_norms() -> None:
    base = random_base()
    experts = [random_expert(base, seed, size) for seed, size in ((0, 0.1), (1, 0.3))]
    norms = task_vector_gram(base, experts).norms
    weights = norms**2 / (norms**2).sum()
    merged = merge_state_dicts(base, experts, method="metagpt")
    expected = merge_state_dicts(base, experts, coefficients=weights.tolist())
    for name in parameters(base):
        np.testing.assert_allclose(merged[name], expected[name], rtol=1e-5, atol=1e-6)
    assert metagpt_coefficients(norms.tolist()) == pytest.approx(weights.tolist())


def test_zero_norms_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one task vector must differ from zero"):
        metagpt_coefficients([0.0, 0.0])
