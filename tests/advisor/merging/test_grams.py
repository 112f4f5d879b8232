import numpy as np
import pytest

from advisor.merging import merge_with_result, task_vector_gram
from advisor.merging.grams import TaskVectorGram
from tests.advisor.merging.checkpoints import parameters, random_base, random_experts


def test_gram_norms_and_cosines_equal_flat_fp64_products() -> None:
    base = random_base()
    base["blocks.2.weight"] = np.random.default_rng(5).normal(size=(300, 500)).astype(np.float32)
    experts = random_experts(base)
    names = parameters(base)
    flat = np.stack([np.concatenate([(e[n].astype("f8") - base[n]).ravel() for n in names]) for e in experts])
    gram = task_vector_gram(base, experts)
    np.testing.assert_allclose(gram.gram, flat @ flat.T, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(gram.norms, np.linalg.norm(flat, axis=1), rtol=1e-6)
    np.testing.assert_allclose(gram.cosines, np.corrcoef(flat, rowvar=True), atol=0.01)
    base_flat = np.concatenate([base[n].ravel() for n in names])
    assert gram.base_norm == pytest.approx(np.linalg.norm(base_flat), rel=1e-6)
    assert list(gram.tensors) == names
    np.testing.assert_allclose(sum(gram.tensors.values()), gram.gram)


def test_a_merge_reports_the_same_gram_as_the_pass_alone() -> None:
    base = random_base()
    experts = random_experts(base)
    alone = task_vector_gram(base, experts)
    for method in ("task_arithmetic", "ties"):
        _, result = merge_with_result(base, experts, method=method)
        assert np.array_equal(result.gram, alone.gram)
        assert np.array_equal(result.cosines, alone.cosines)


def test_displacement_is_the_norm_of_the_linear_merge() -> None:
    base = random_base()
    merged, result = merge_with_result(base, random_experts(base), coefficients=[0.5, 0.2, 0.9])
    moved = np.sqrt(sum(float(((merged[n] - base[n]).astype("f8") ** 2).sum()) for n in parameters(base)))
    assert result.task_vectors.displacement(np.array([0.5, 0.2, 0.9])) == pytest.approx(moved, rel=1e-5)


def test_a_zero_task_vector_has_cosine_zero() -> None:
    gram = TaskVectorGram(labels=("a", "b"), gram=np.diag([4.0, 0.0]), base_norm=1.0, tensors={"w": np.eye(2)})
    assert gram.cosines.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert gram.tensor_norms("w").tolist() == [1.0, 1.0]
    assert gram.tensor_cosines("w").tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_a_gram_matrix_has_a_row_for_each_expert() -> None:
    with pytest.raises(ValueError, match=r"gram\.shape=\(1, 1\) must be \(2, 2\)"):
        TaskVectorGram(labels=("a", "b"), gram=np.eye(1), base_norm=1.0, tensors={})


def test_statistics_do_not_count_as_displacement() -> None:
    base = random_base()
    expert = random_experts(base, 1)[0]
    before = task_vector_gram(base, [expert]).norms
    expert["bn.running_mean"] = expert["bn.running_mean"] + 100
    assert np.array_equal(task_vector_gram(base, [expert]).norms, before)
