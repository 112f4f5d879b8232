import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from estimators.checkpoints import fingerprint, read_checkpoint

STATE = {"b.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2), "a.count": torch.tensor(3)}


@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.bin", "x.safetensors"])
def test_a_state_dict_is_read_from_every_format(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path)
    found = read_checkpoint(path)
    assert set(found.tensors) == set(STATE)
    assert all(torch.equal(found.tensors[key], STATE[key]) for key in STATE)
    assert found.ordered == (path.suffix != ".safetensors")
    assert found.notes == ()


def test_order_is_kept_where_the_file_keeps_it(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "x.pth")
    assert list(read_checkpoint(tmp_path / "x.pth").tensors) == list(STATE)


def test_wrappers_and_prefixes_are_taken_off_and_named(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in STATE.items()}}, tmp_path / "x.pth")
    found = read_checkpoint(tmp_path / "x.pth")
    assert set(found.tensors) == set(STATE)
    assert "entry 'state_dict'" in found.notes[0]
    assert "prefix 'module.'" in found.notes[1]


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (Path.touch, (Path("must-not-exist"),))  # type: ignore[return-value]


def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="holds objects besides tensors, which are never loaded"):
        read_checkpoint(tmp_path / "x.pth")
    assert not (tmp_path / "must-not-exist").exists()


def test_what_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    cases = {
        "tensor": (torch.ones(2), "holds Tensor; it must hold a state dict"),
        "empty": ({}, "holds nothing; it must hold a state dict"),
        "number": ({"a": 1.5}, "entry 'a' is a float, not a tensor"),
        "nan": ({"a": torch.tensor([1.0, float("nan")])}, "tensor 'a' holds NaN or infinity"),
        "inf": ({"a": torch.tensor([float("inf")], dtype=torch.bfloat16)}, "tensor 'a' holds NaN or infinity"),
        "keys": ({3: torch.ones(1)}, "key 3 is no text"),
    }
    for name, (value, said) in cases.items():
        torch.save(value, tmp_path / f"{name}.pth")
        with pytest.raises(ValueError, match=said):
            read_checkpoint(tmp_path / f"{name}.pth")


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gone.pth' does not exist; correct backbone.checkpoint"):
        read_checkpoint(tmp_path / "gone.pth")
    (tmp_path / "x.h5").write_bytes(b"x")
    with pytest.raises(ValueError, match="'x.h5' must end in one of .safetensors, .pth"):
        read_checkpoint(tmp_path / "x.h5")


def test_a_header_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ValueError, match="'x.safetensors' is damaged or no safetensors file"):
        read_checkpoint(tmp_path / "x.safetensors")


@settings(max_examples=120, deadline=None)
@given(ending=st.sampled_from(["pth", "safetensors"]), cut=st.integers(0, 3000), flip=st.integers(0, 3000))
def test_any_damage_is_refused_in_one_paragraph_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, ending: str, cut: int, flip: int
) -> None:
    path = tmp_path_factory.mktemp("damage") / f"x.{ending}"
    if ending == "pth":
        torch.save(STATE, path)
    else:
        save_file(STATE, path)
    data = bytearray(path.read_bytes())
    data[flip % len(data)] ^= 0x41
    path.write_bytes(data[: len(data) - cut % len(data)])
    try:
        assert all(isinstance(value, torch.Tensor) for value in read_checkpoint(path).tensors.values())
    except ValueError as error:
        assert str(error).startswith("checkpoint=")  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017


def test_the_fingerprint_sees_names_shapes_types_and_values_and_not_the_order() -> None:
    base = fingerprint(STATE)
    assert base == fingerprint(dict(reversed(STATE.items())))
    assert base != fingerprint({**STATE, "a.bias": torch.zeros(2)})
    assert base != fingerprint({**STATE, "a.bias": torch.ones(1, 2)})
    assert base != fingerprint({**STATE, "a.bias": torch.ones(2, dtype=torch.float64)})
    assert base != fingerprint({("c" if key == "a.bias" else key): value for key, value in STATE.items()})
    assert len(fingerprint({"x": torch.tensor([1.0], dtype=torch.bfloat16)})) == 64
