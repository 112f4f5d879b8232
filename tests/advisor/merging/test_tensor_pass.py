"""The pass over tensors larger than one block: what blocks join must not show."""

import numpy as np
import pytest

from advisor.merging import OPERATORS, merge_state_dicts
from advisor.merging import tensor_pass as tensor_pass_module
from advisor.merging.compatibility import open_inputs
from advisor.merging.number_formats import RawArray
from advisor.merging.registry import build_operator
from advisor.merging.tensor_pass import map_tensors, run_pass
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


class RecordingSink:
    """Keeps what is written as it was at that moment."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, list[float]]] = []

    def write(self, name: str, start: int, values: RawArray) -> None:
        self.runs.append((start, values.tolist()))


@pytest.mark.parametrize("method", ["task_arithmetic", "tsv_m"])
@pytest.mark.parametrize("size", [1, 36, 37, 147, 148, 149, 296, 1000])
def test_blocks_are_written_in_runs_that_tile_the_tensor(
    method: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = np.random.default_rng(0).normal(size=(size, 1)).astype(np.float32)
    inputs = open_inputs({"w": base}, [{"w": 2 * base}, {"w": 3 * base}])
    whole, pieces = RecordingSink(), RecordingSink()
    coefficients = np.array([0.5, 0.25])
    operator = build_operator(method, {})
    run_pass(inputs, operator, lambda _: coefficients, whole, seed=0, workers=1)
    monkeypatch.setattr(tensor_pass_module, "BLOCK", 37)
    run_length = 4 * 37 if operator.elementwise else 37
    run_pass(inputs, operator, lambda _: coefficients, pieces, seed=0, workers=1)
    assert [start for start, _ in pieces.runs] == list(range(0, size, run_length))
    np.testing.assert_allclose([v for _, run in pieces.runs for v in run], whole.runs[0][1], rtol=1e-5, atol=1e-6)
    if method == "task_arithmetic":
        np.testing.assert_allclose(whole.runs[0][1], 2 * base.reshape(-1), rtol=1e-6)


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
