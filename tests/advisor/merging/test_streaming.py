import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from advisor.merging import IncompatibleCheckpoints, NotEnoughSpace, UnreadableCheckpoint, merge, merge_state_dicts
from advisor.merging import streaming as streaming_module
from tests.advisor.merging.checkpoints import State, random_base, random_experts


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    base = random_base()
    paths = {}
    for name, state in zip(["base", "a", "b", "c"], [base, *random_experts(base)], strict=True):
        paths[name] = tmp_path / f"{name}.safetensors"
        save_file(state, paths[name])
    return paths


def experts_of(files: dict[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in files.items() if name != "base"}


def load_folder(folder: Path) -> State:
    state: State = {}
    for file in sorted(folder.glob("*.safetensors")):
        state.update(load_file(file))
    return state


def assert_same(found: State, expected: State) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype


@pytest.mark.parametrize("method", ["average", "task_arithmetic", "ties"])
def test_files_and_dictionaries_merge_to_the_same_bits(files: dict[str, Path], tmp_path: Path, method: str) -> None:
    result = merge(files["base"], experts_of(files), method=method, out=tmp_path / "out")
    states = {name: load_file(path) for name, path in files.items()}
    expected = merge_state_dicts(states.pop("base"), states, method=method)
    assert_same(load_folder(tmp_path / "out"), expected)
    assert result.labels == ("a", "b", "c")
    assert all(file.is_file() for file in result.files)


def test_shards_index_and_workers_do_not_change_the_numbers(files: dict[str, Path], tmp_path: Path) -> None:
    one = merge(files["base"], experts_of(files), out=tmp_path / "one")
    many = merge(files["base"], experts_of(files), out=tmp_path / "many", max_shard_size=3000, workers=3)
    assert_same(load_folder(tmp_path / "many"), load_folder(tmp_path / "one"))
    assert np.array_equal(one.gram, many.gram)
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    for name, file in index["weight_map"].items():
        assert name in load_file(tmp_path / "many" / file)
    again = merge(tmp_path / "many", experts_of(files), out=tmp_path / "again.safetensors")
    assert again.files == (tmp_path / "again.safetensors",)


def test_torch_checkpoints_merge_like_safetensors(files: dict[str, Path], tmp_path: Path) -> None:
    merge(files["base"], experts_of(files), out=tmp_path / "one")
    paths = {}
    for name, path in files.items():
        paths[name] = tmp_path / f"{name}.pth"
        torch.save({"state_dict": {k: torch.from_numpy(v) for k, v in load_file(path).items()}}, paths[name])
    merge(paths["base"], experts_of(paths), out=tmp_path / "two")
    assert_same(load_folder(tmp_path / "two"), load_folder(tmp_path / "one"))


def test_torch_threads_are_restored(files: dict[str, Path], tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        merge(files["base"], experts_of(files), out=tmp_path / "out")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def leftovers(folder: Path, files: dict[str, Path]) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path not in files.values())


def break_with_nan(files: dict[str, Path]) -> None:
    state = load_file(files["b"])
    state["blocks.1.fc.weight"][3, 3] = np.nan
    save_file(state, files["b"])


def break_by_truncation(files: dict[str, Path]) -> None:
    files["b"].write_bytes(files["b"].read_bytes()[:-10])


def break_with_the_base(files: dict[str, Path]) -> None:
    shutil.copy(files["base"], files["b"])


def break_with_another_base(files: dict[str, Path]) -> None:
    state = load_file(files["b"])
    save_file(
        {k: np.asarray(v * -3 if v.dtype.kind == "f" and "var" not in k else v) for k, v in state.items()}, files["b"]
    )


def break_by_overflow(files: dict[str, Path]) -> None:
    state = load_file(files["b"])
    state["scale"] = np.array(3e38, np.float32)
    save_file(state, files["b"])


@pytest.mark.parametrize(
    ("damage", "error", "match"),
    [
        (break_with_nan, IncompatibleCheckpoints, r"expert 'b'.*'blocks\.1\.fc\.weight' holds NaN or infinity"),
        (break_by_truncation, UnreadableCheckpoint, r"expert 'b'.*truncated"),
        (break_with_the_base, IncompatibleCheckpoints, "expert 'b' equals the base"),
        (break_with_another_base, IncompatibleCheckpoints, "expert 'b': task vector norm .* above the base's own norm"),
        (break_by_overflow, ValueError, "tensor 'scale': a merged value is not finite"),
    ],
)
def test_bad_experts_are_refused_by_name_and_leave_nothing(
    files: dict[str, Path], tmp_path: Path, damage: Any, error: type[Exception], match: str
) -> None:
    damage(files)
    with pytest.raises(error, match=match):
        merge(files["base"], experts_of(files), coefficients=2.0, out=tmp_path / "deep" / "out")
    assert leftovers(tmp_path, files) == []


def test_a_trusted_base_is_not_questioned(files: dict[str, Path], tmp_path: Path) -> None:
    break_with_the_base(files)
    result = merge(files["base"], experts_of(files), out=tmp_path / "out", trust_base=True)
    assert result.norms[1] == 0.0


def test_an_input_is_never_overwritten(files: dict[str, Path], tmp_path: Path) -> None:
    before = files["a"].read_bytes()
    link = tmp_path / "link.safetensors"
    link.symlink_to(files["a"])
    hard = tmp_path / "hard.safetensors"
    hard.hardlink_to(files["a"])
    for out in (files["a"], link, hard, tmp_path):
        with pytest.raises(ValueError, match="would overwrite the input"):
            merge(files["base"], experts_of(files), out=out, overwrite=True)
    assert files["a"].read_bytes() == before


def test_an_earlier_merge_is_replaced_only_on_request(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    merge(files["base"], experts_of(files), out=out, max_shard_size=3000)
    with pytest.raises(FileExistsError, match="choose another place or pass overwrite=True"):
        merge(files["base"], experts_of(files), out=out)
    merge(files["base"], experts_of(files), out=out, overwrite=True)
    assert [path.name for path in out.glob("*.safetensors")] == ["model.safetensors"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds 'notes\.txt', which no merge wrote"):
        merge(files["base"], experts_of(files), out=out, overwrite=True)


def test_a_failed_replacement_leaves_the_earlier_merge(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    merge(files["base"], experts_of(files), out=out)
    before = (out / "model.safetensors").read_bytes()
    break_with_nan(files)
    with pytest.raises(IncompatibleCheckpoints, match="NaN"):
        merge(files["base"], experts_of(files), out=out, overwrite=True)
    assert (out / "model.safetensors").read_bytes() == before
    assert leftovers(tmp_path, files) == ["out"]


def test_a_full_disk_is_refused_first(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_module, "_HEADER_BYTES", 10**18)
    with pytest.raises(NotEnoughSpace, match="bytes for the output, free="):
        merge(files["base"], experts_of(files), out=tmp_path / "out")
    assert leftovers(tmp_path, files) == []


@pytest.mark.parametrize("place", ["folder.safetensors", "file"])
def test_a_target_of_the_wrong_kind_is_refused(files: dict[str, Path], tmp_path: Path, place: str) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a folder; choose another|is a file; give a folder"):
        merge(files["base"], experts_of(files), out=tmp_path / place)


def test_wrong_arguments_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    experts = experts_of(files)
    with pytest.raises(ValueError, match="workers=0 must be at least 1"):
        merge(files["base"], experts, out=tmp_path / "out", workers=0)
    with pytest.raises(ValueError, match="method='magic' is unknown; choose one of average"):
        merge(files["base"], experts, out=tmp_path / "out", method="magic")
    with pytest.raises(TypeError, match="method='average' takes no option 'density'; its options: none"):
        merge(files["base"], experts, out=tmp_path / "out", method="average", density=0.2)
