"""The pass over tensors larger than one block: what blocks join must not show."""

import numpy as np
import pytest

from advisor.merging import OPERATORS, merge_state_dicts
from advisor.merging import tensor_pass as tensor_pass_module
from advisor.merging.tensor_pass import map_tensors
from tests.advisor.merging.checkpoints import needed_options, random_base, random_experts


@pytest.mark.parametrize("method", list(OPERATORS))
def test_small_blocks_and_whole_tensors_merge_alike(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base = random_base()
    experts = random_experts(base)
    options = needed_options(method, base, 3)
    whole = merge_state_dicts(base, experts, method=method, **options)
    monkeypatch.setattr(tensor_pass_module, "BLOCK", 37)
    pieces = merge_state_dicts(base, experts, method=method, **options)
    for name in base:
        np.testing.assert_allclose(pieces[name], whole[name], rtol=1e-5, atol=1e-6)


def test_results_come_in_the_order_of_names_for_any_number_of_workers() -> None:
    names = [str(number) for number in range(50)]
    assert map_tensors(int, names, 1) == map_tensors(int, names, 4) == list(range(50))


def test_an_error_in_a_worker_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        map_tensors(int, ["1", "x", "2"], 3)
    with pytest.raises(ValueError, match="workers=0 must be at least 1"):
        map_tensors(int, ["1"], 0)


def test_empty_tensors_pass_through() -> None:
    base = {"w": np.ones(3, np.float32), "e": np.zeros((0, 4), np.float32)}
    experts = [{"w": base["w"] + 0.1, "e": base["e"]}]
    for method in ("average", "ties", "dare", "della", "breadcrumbs", "tsv_m", "model_stock", "slerp"):
        assert merge_state_dicts(base, experts, method=method)["e"].shape == (0, 4)
