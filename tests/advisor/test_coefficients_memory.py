"""Answers that survive their process: whole or not there, exact, and never another question's."""

import numpy as np
import pytest

from advisor.coefficients_memory import MeasuredMemory, key_of


def test_an_answer_is_found_exactly_by_another_process(tmp_path):
    values = np.random.default_rng(0).standard_normal(50).astype(np.float32).astype(np.float64)
    fine = np.random.default_rng(1).standard_normal(7)  # does not fit float32
    MeasuredMemory(folder=tmp_path / "new").keep("k", {"logits": values, "slope": fine})
    again = MeasuredMemory(folder=tmp_path / "new")
    found = again.find("k")
    assert found is not None
    np.testing.assert_array_equal(found["logits"], values)
    np.testing.assert_array_equal(found["slope"], fine)
    again.find("k")
    assert again.reused == 1
    assert again.find("other") is None


def test_a_broken_merge_s_answer_is_kept_too(tmp_path):
    MeasuredMemory(folder=tmp_path).keep("k", {"logits": np.array([1.0, np.nan, np.inf, 1e300])})
    np.testing.assert_array_equal(
        MeasuredMemory(folder=tmp_path).find("k")["logits"], np.array([1.0, np.nan, np.inf, 1e300])
    )


def test_answers_in_one_file_take_half_the_room_where_nothing_is_lost(tmp_path):
    MeasuredMemory(folder=tmp_path).keep("k", {"logits": np.zeros(10_000)})
    assert (tmp_path / "k.safetensors").stat().st_size < 41_000


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "foreign"])
def test_a_damaged_file_is_no_answer_and_is_named(tmp_path, harm):
    MeasuredMemory(folder=tmp_path).keep("k", {"logits": np.arange(100.0)})
    path = tmp_path / "k.safetensors"
    data = bytearray(path.read_bytes())
    if harm == "flip":
        data[-5] ^= 1
    path.write_bytes({"cut": data[:-9], "flip": data, "empty": b"", "foreign": b"not tensors at all"}[harm])
    memory = MeasuredMemory(folder=tmp_path)
    assert memory.find("k") is None
    assert memory.damaged == ["k.safetensors"]
    memory.keep("k", {"logits": np.arange(100.0)})
    assert MeasuredMemory(folder=tmp_path).find("k") is not None


def test_without_a_folder_answers_last_as_long_as_the_process():
    memory = MeasuredMemory()
    memory.keep("k", {"logits": np.ones(2)})
    assert memory.find("k") is not None
    assert memory.reused == 0


def test_questions_differ_in_every_part():
    rows = np.array([0.1, 0.2])
    asked = [("a", rows), ("b", rows), ("a", rows[::-1]), ("a", "b"), ("ab", ""), ("ab",)]
    assert len({key_of(*parts) for parts in asked}) == 6
    assert key_of("a", rows) == key_of("a", rows.copy())
