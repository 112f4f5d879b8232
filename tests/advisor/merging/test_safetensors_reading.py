import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from advisor.merging.safetensors_reading import SafetensorsFile, open_index, open_single
from advisor.merging.sources import UnreadableCheckpoint, open_source


def write_raw(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(shape: list[object], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_reads_what_the_safetensors_library_wrote(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    state: dict[str, Any] = {
        "a": rng.normal(size=(3, 5)).astype(np.float32),
        "b": rng.normal(size=7),
        "c": np.array(3),
        "d": np.zeros((0, 4), np.float32),
        "e": np.array([True, False]),
        "f": rng.normal(size=4).astype(np.float16),
    }
    save_file(state, tmp_path / "m.safetensors", metadata={"format": "pt"})
    source = open_single(tmp_path / "m.safetensors", place="base")
    assert set(source.tensors) == set(state)
    for name, tensor in state.items():
        assert source.tensors[name].shape == tensor.shape
        assert np.array_equal(source.read(name, 0, tensor.size), tensor.reshape(-1))
    assert np.array_equal(source.read("a", 4, 9), state["a"].reshape(-1)[4:9])


@pytest.mark.parametrize(
    ("header", "data", "length", "match"),
    [
        ({}, b"", 10**18, "truncated or not safetensors"),
        (b"{" * 200_000, b"", None, "not valid JSON"),
        (b"[" * 200_000, b"", None, "not valid JSON"),
        (b'{"a": 1, "a": 2}', b"", None, "key 'a' is given twice"),
        (b"[1]", b"", None, "must be a JSON object"),
        (b"\xff\xfe", b"", None, "not valid JSON"),
        ({"a": {"dtype": "F32"}}, b"", None, "needs exactly dtype, shape and data_offsets"),
        ({"a": entry([2], 0, 4)}, b"1234", None, "does not fit data_offsets"),
        ({"a": entry([-1], 0, 4)}, b"1234", None, "are not sizes"),
        ({"a": entry([True], 0, 4)}, b"1234", None, "are not sizes"),
        ({"a": entry([1.0], 0, 4)}, b"1234", None, "are not sizes"),
        ({"a": entry([1] * 65, 0, 4)}, b"1234", None, "has 65 axes"),
        ({"a": entry([1], 0, 4, "F8_E4M3")}, b"1234", None, "dtype='F8_E4M3' is not supported"),
        ({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, b"1234", None, "overlap or hole"),
        ({"a": entry([1], 4, 8)}, b"12345678", None, "overlap or hole"),
        ({"a": entry([1], 0, 4)}, b"123", None, "truncated or padded"),
        ({"a": entry([1], 0, 4)}, b"12345", None, "truncated or padded"),
        ({"a": entry([2**40], 0, 2**42)}, b"1234", None, "truncated or padded"),
    ],
)
def test_damaged_files_are_refused_by_name(
    tmp_path: Path, header: object, data: bytes, length: int | None, match: str
) -> None:
    path = write_raw(tmp_path / "bad.safetensors", header, data, length)
    with pytest.raises(UnreadableCheckpoint, match=match) as error:
        open_single(path, place="expert 'x'")
    assert "expert 'x'" in str(error.value)


def test_a_header_above_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.safetensors"
    with path.open("wb") as file:
        file.write((200_000_000).to_bytes(8, "little"))
        file.truncate(200_000_100)
    with pytest.raises(UnreadableCheckpoint, match="above the limit of 100000000"):
        open_single(path, place="base")


@pytest.mark.parametrize("size", [0, 3, 7])
def test_files_shorter_than_their_length_field_are_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "short.safetensors"
    path.write_bytes(b"\0" * size)
    with pytest.raises(UnreadableCheckpoint, match="truncated or not safetensors"):
        open_single(path, place="base")


def test_a_file_that_shrinks_while_open_raises_instead_of_crashing(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": np.ones(100_000, np.float32)}, path)
    source = SafetensorsFile(path, place="base")
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(UnreadableCheckpoint, match="tensor 'a' ends early"):
        source.read("a", 0, 100_000)


def write_shards(folder: Path, weight_map: dict[str, str]) -> Path:
    save_file({"a": np.ones(2, np.float32)}, folder / "s1.safetensors")
    save_file({"b": np.ones(3, np.float32)}, folder / "s2.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    return index


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    write_shards(tmp_path, {"a": "s1.safetensors", "b": "s2.safetensors"})
    source = open_source(tmp_path, place="base")
    assert list(source.tensors) == ["a", "b"]
    assert source.read("b", 1, 3).tolist() == [1.0, 1.0]
    assert {file.name for file in source.files} == {"s1.safetensors", "s2.safetensors", "model.safetensors.index.json"}


@pytest.mark.parametrize(
    ("weight_map", "match"),
    [
        ({"a": "s1.safetensors"}, None),
        ({"a": "s1.safetensors", "b": "s1.safetensors"}, "tensor 'b' is in the index only"),
        ({"a": "s2.safetensors", "b": "s1.safetensors"}, "tensor 'a' is in 's1.safetensors', the index says"),
        ({"a": "s1.safetensors", "b": "../s2.safetensors"}, "must be a plain file name"),
        ({"a": "s1.safetensors", "b": "s3.safetensors"}, "'s3.safetensors' is named by the index but missing"),
        ({}, "non-empty map"),
    ],
)
def test_an_index_that_disagrees_with_its_shards_is_refused(
    tmp_path: Path, weight_map: dict[str, str], match: str | None
) -> None:
    index = write_shards(tmp_path, weight_map)
    if match is None:
        assert list(open_index(index, place="base").tensors) == ["a"]
        return
    with pytest.raises(UnreadableCheckpoint, match=match):
        open_index(index, place="base")


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    index = write_shards(tmp_path, {"a": "s1.safetensors", "b": "s2.safetensors"})
    save_file({"a": np.zeros(2, np.float32), "b": np.ones(3, np.float32)}, tmp_path / "s2.safetensors")
    with pytest.raises(UnreadableCheckpoint, match="tensor 'a' is in two shards"):
        open_index(index, place="base")
