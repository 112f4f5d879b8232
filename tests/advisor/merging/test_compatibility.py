import numpy as np
import pytest

from advisor.merging.compatibility import IncompatibleCheckpoints, check_base, open_inputs
from tests.advisor.merging.checkpoints import random_base, random_experts


def test_every_tensor_gets_its_role() -> None:
    base = random_base()
    roles = open_inputs(base, random_experts(base), keep_base=["blocks.1.*"]).roles
    assert roles["conv.weight"] == "parameter"
    assert roles["bn.running_var"] == roles["bn.running_mean"] == "statistic"
    assert roles["bn.num_batches_tracked"] == roles["mask"] == "integer"
    assert roles["blocks.1.fc.weight"] == "kept"


def test_missing_and_extra_tensors_are_named() -> None:
    base = random_base()
    expert = random_experts(base, 1)[0]
    expert["head.weight"] = expert.pop("scale")
    with pytest.raises(
        IncompatibleCheckpoints, match=r"expert 'x': missing 'scale', extra 'head\.weight' against base"
    ):
        open_inputs(base, {"x": expert})


def test_common_keys_keep_the_rest_of_the_base_and_say_so() -> None:
    base = random_base()
    expert = random_experts(base, 1)[0]
    expert["head.weight"] = expert.pop("scale")
    expert["column.weight"] = np.zeros((7, 1), np.float32)
    inputs = open_inputs(base, {"x": expert}, keys="common")
    assert inputs.roles["scale"] == inputs.roles["column.weight"] == "kept"
    assert any("'head.weight'" in note for note in inputs.notes)
    assert any(note.startswith("scale: kept from the base") for note in inputs.notes)


def test_shapes_and_dtypes_must_agree() -> None:
    base = random_base()
    expert = random_experts(base, 1)[0]
    with pytest.raises(IncompatibleCheckpoints, match=r"tensor 'scale' has shape \(2,\), the base \(\)"):
        open_inputs(base, [{**expert, "scale": np.zeros(2, np.float32)}])
    with pytest.raises(IncompatibleCheckpoints, match="tensor 'scale' has dtype F64, the base F32"):
        open_inputs(base, [{**expert, "scale": np.zeros(())}])
    with pytest.raises(IncompatibleCheckpoints, match="tensor 'scale' has dtype I64, the base F32"):
        open_inputs(base, [{**expert, "scale": np.array(1)}], mixed_dtypes=True)
    assert open_inputs(base, [{**expert, "scale": np.zeros(())}], mixed_dtypes=True).roles["scale"] == "parameter"


def test_heads_can_be_kept_from_the_base() -> None:
    base = random_base()
    expert = random_experts(base, 1)[0]
    expert["column.weight"] = np.zeros((9, 1), np.float32)
    expert["column.bias"] = np.zeros(9, np.float32)
    assert open_inputs(base, [expert], keep_base=["column.*"]).roles["column.weight"] == "kept"


def test_a_wrong_base_is_refused_with_its_norms() -> None:
    check_base(["a"], [1.0], 1.0)
    with pytest.raises(IncompatibleCheckpoints, match=r"expert 'b': task vector norm 3 is above the base's own norm 2"):
        check_base(["a", "b"], [1.0, 3.0], 2.0)
    with pytest.raises(IncompatibleCheckpoints, match="expert 'b' equals the base"):
        check_base(["a", "b"], [1.0, 0.0], 2.0)


def test_nothing_to_merge_is_refused() -> None:
    with pytest.raises(IncompatibleCheckpoints, match="no floating tensor to merge among 1 tensors"):
        open_inputs({"n": np.array(1)}, [{"n": np.array(2)}])
    with pytest.raises(ValueError, match="give at least one expert"):
        open_inputs({"w": np.zeros(1, np.float32)}, [])
    with pytest.raises(ValueError, match="keys='loose' must be"):
        open_inputs({"w": np.zeros(1, np.float32)}, [{"w": np.ones(1, np.float32)}], keys="loose")  # type: ignore[arg-type]
