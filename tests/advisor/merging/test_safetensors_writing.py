import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from advisor.merging import safetensors_writing
from advisor.merging.safetensors_writing import (
    NotEnoughSpace,
    SafetensorsSink,
    hidden_folder,
    parse_size,
    plan_shards,
    require_space,
    shard_names,
)
from advisor.merging.sources import TensorInfo

INFOS = {
    "flag": TensorInfo(dtype="BOOL", shape=(3,)),
    "half": TensorInfo(dtype="BF16", shape=(5,)),
    "wide": TensorInfo(dtype="F64", shape=(2, 2)),
    "empty": TensorInfo(dtype="F32", shape=(0, 4)),
    "scalar": TensorInfo(dtype="I64", shape=()),
}


def test_the_safetensors_library_reads_what_we_write_in_pieces(tmp_path: Path) -> None:
    sink = SafetensorsSink(tmp_path, INFOS, 10**9)
    sink.write("wide", 2, np.array([3.0, 4.0]))
    sink.write("scalar", 0, np.array([7], np.int64))
    sink.write("wide", 0, np.array([1.0, 2.0]))
    sink.write("flag", 0, np.array([True, False, True]))
    sink.write("half", 0, np.full(5, 0x3F80, np.uint16))
    sink.close()
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert file.get_tensor("wide").tolist() == [[1.0, 2.0], [3.0, 4.0]]
        assert file.get_tensor("flag").tolist() == [True, False, True]
        assert file.get_tensor("half").tolist() == [1.0] * 5
        assert file.get_tensor("empty").shape == (0, 4)
        assert file.get_tensor("scalar").item() == 7


@pytest.mark.parametrize("piece", [1, 7, 16, 40, 300])
def test_the_disk_is_told_to_begin_with_every_stretch_that_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(safetensors_writing, "_STRETCH_BYTES", 64)
    monkeypatch.setattr(os, "posix_fadvise", lambda _, begin, length, advice: told.append((begin, begin + length)))
    values = np.arange(250, dtype=np.int32)
    sink = SafetensorsSink(tmp_path, {"w": TensorInfo(dtype="I32", shape=(250,))}, 10**9)
    for start in range(0, 250, piece):
        sink.write("w", start, values[start : start + piece])
    sink.close()
    size = (tmp_path / "model.safetensors").stat().st_size
    assert all(first[1] == second[0] for first, second in itertools.pairwise(told))
    assert told[0][0] < size - 1000 <= size - 64 < told[-1][1] <= size
    assert load_file(tmp_path / "model.safetensors")["w"].tolist() == values.tolist()


def test_platforms_without_such_advice_write_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_writing, "_STRETCH_BYTES", 64)
    monkeypatch.delattr(os, "posix_fadvise")
    sink = SafetensorsSink(tmp_path, {"w": TensorInfo(dtype="I32", shape=(250,))}, 10**9)
    sink.write("w", 0, np.arange(250, dtype=np.int32))
    sink.close()
    assert load_file(tmp_path / "model.safetensors")["w"].tolist() == list(range(250))


def test_shards_are_filled_in_order_and_large_tensors_stand_alone() -> None:
    infos = {name: TensorInfo(dtype="U8", shape=(size,)) for name, size in zip("abcd", (3, 3, 50, 2), strict=True)}
    assert plan_shards(infos, 6) == [["a", "b"], ["c"], ["d"]]
    assert shard_names(2) == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert shard_names(1) == ["model.safetensors"]


def test_values_of_another_dtype_are_refused(tmp_path: Path) -> None:
    sink = SafetensorsSink(tmp_path, INFOS, 10**9)
    with pytest.raises(TypeError, match="tensor 'wide': dtype=float32 written where float64 was planned"):
        sink.write("wide", 0, np.zeros(4, np.float32))
    sink.close()


@pytest.mark.parametrize(("text", "size"), [("5GB", 5 * 10**9), ("1.5 MiB", 3 * 2**19), (7, 7), ("12", 12)])
def test_sizes_are_read(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "match"), [("5 apples", "write a number of bytes"), (0, "must be above 0")])
def test_wrong_sizes_are_refused(text: str | int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        parse_size(text)


def test_a_full_disk_is_refused_before_writing(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    with pytest.raises(NotEnoughSpace, match=r"needed=\d+ bytes for the output, free=\d+ on the disk"):
        require_space(tmp_path, 10**18)


def test_the_hidden_folder_goes_away_with_its_files(tmp_path: Path) -> None:
    with hidden_folder(tmp_path) as folder:
        (folder / "x").write_text("x")
        assert folder.name.startswith(".")
    assert list(tmp_path.iterdir()) == []
