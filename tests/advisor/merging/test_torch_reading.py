import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from advisor.merging.sources import UnreadableCheckpoint, open_source


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("legacy", [False, True])
def test_state_dicts_are_read_bare_or_wrapped(tmp_path: Path, wrapper: str | None, legacy: bool) -> None:
    state = {"a": torch.randn(3, 4), "b": torch.randn(5).to(torch.bfloat16), "n": torch.tensor(3)}
    saved = state if wrapper is None else {wrapper: state, "epoch": 3}
    torch.save(saved, tmp_path / "m.pth", _use_new_zipfile_serialization=not legacy)
    source = open_source(tmp_path / "m.pth", place="base")
    assert np.array_equal(source.read("a", 0, 12), state["a"].numpy().reshape(-1))
    assert np.array_equal(source.read("b", 0, 5), state["b"].view(torch.int16).numpy().view(np.uint16))
    assert source.tensors["n"].dtype == "I64"


def test_tied_tensors_are_recognized_by_their_storage(tmp_path: Path) -> None:
    weight = torch.randn(4, 3)
    torch.save({"embed": weight, "head": weight, "other": weight.clone()}, tmp_path / "m.bin")
    source = open_source(tmp_path / "m.bin", place="base")
    assert source.ties == {"embed": "embed", "head": "embed", "other": "other"}


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("ran",))


def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": Evil()}, tmp_path / "m.pth")
    with pytest.raises(UnreadableCheckpoint, match="weights_only=True .*print.*installed and trusted") as caught:
        open_source(tmp_path / "m.pth", place="expert 'x'")
    assert "False" not in str(caught.value)  # torch's own advice, which would run it
    assert "ran" not in capsys.readouterr().out


def test_truncated_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    torch.save({"a": torch.randn(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UnreadableCheckpoint, match="torch refuses to load it"):
        open_source(path, place="base")


def test_compressed_archives_are_refused_as_bombs(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data/0", b"\0" * 10_000_000)
    with pytest.raises(UnreadableCheckpoint, match="is compressed; torch never writes that"):
        open_source(tmp_path / "m.pth", place="base")


def test_things_that_are_no_state_dict_are_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "m.pth")
    with pytest.raises(UnreadableCheckpoint, match="holds a list, not a state dict"):
        open_source(tmp_path / "m.pth", place="base")


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"x")
    with pytest.raises(UnreadableCheckpoint, match=r"ending '\.gguf' is not one of"):
        open_source(tmp_path / "m.gguf", place="base")


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere' does not exist"):
        open_source(tmp_path / "nowhere", place="base")
    with pytest.raises(FileNotFoundError, match=r"holds none of model\.safetensors\.index\.json"):
        open_source(tmp_path, place="base")


def test_things_that_are_no_tensors_are_refused() -> None:
    with pytest.raises(TypeError, match="base: tensor 'a': type=list"):
        open_source({"a": [1, 2]}, place="base")
    with pytest.raises(ValueError, match="base: tensor 'c': dtype='complex64' is not supported"):
        open_source({"c": np.zeros(2, np.complex64)}, place="base")
