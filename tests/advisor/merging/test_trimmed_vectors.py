import numpy as np
import pytest
import torch

from advisor.merging import merge_with_result, task_vectors
from advisor.merging.trimmed_vectors import trim_task_vectors
from tests.advisor.merging.checkpoints import parameters, random_base, random_experts


def test_the_sum_of_trimmed_vectors_is_ties_with_sum() -> None:
    base = random_base()
    experts = random_experts(base)
    vectors = [{n: v[n] for n in parameters(base)} for v in task_vectors(base, experts)]
    trimmed = trim_task_vectors(vectors, density=0.3)
    merged, _ = merge_with_result(base, experts, method="ties", density=0.3, aggregate="sum", coefficients=1.0)
    for name in parameters(base):
        total = base[name] + sum(vector[name] for vector in trimmed)
        np.testing.assert_allclose(merged[name], total, rtol=1e-5, atol=1e-6)


def test_tensors_stay_tensors_and_inputs_stay_whole() -> None:
    vectors = [{"w": torch.tensor([[1.0, -2.0], [0.1, 3.0]])}, {"w": torch.tensor([[1.0, 5.0], [0.2, -1.0]])}]
    first, second = trim_task_vectors(vectors, density=0.5)
    assert first["w"].tolist() == [[0.0, 0.0], [0.0, 3.0]]
    assert second["w"].tolist() == [[1.0, 5.0], [0.0, 0.0]]
    assert vectors[0]["w"][0, 0] == 1.0


def test_a_wrong_density_is_refused() -> None:
    with pytest.raises(ValueError, match="density=0 must be above 0"):
        trim_task_vectors([{"w": np.zeros(1)}], density=0)
