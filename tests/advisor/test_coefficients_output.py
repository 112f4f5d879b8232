"""What a tuned merge leaves behind, and what it refuses before anything is written: by file, as users call it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import yaml

from advisor.cli_shell import Shell
from advisor.cli_tuning import TuningRequest, merge_tuned
from advisor.coefficients_problem import read_state
from tests.advisor.test_coefficients import experts_of, files

__all__ = ["files"]
SHELL = Shell(is_quiet=True)


def request_of(experts: dict[str, Path], base: Path, data: Path | None, **options: object) -> TuningRequest:
    return TuningRequest(base=base, experts={n: str(p) for n, p in experts.items()}, data=data, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("layers", [False, True])
def test_the_folder_holds_model_card_recipe_and_tuning_and_timm_loads_it(
    files: Path, tmp_path: Path, layers: bool
) -> None:
    request = request_of(experts_of(files), files / "base.safetensors", files / "project.yaml", layers=layers)
    tuned, result = merge_tuned(SHELL, request, tmp_path / "m", {})
    written = {path.name for path in (tmp_path / "m").iterdir()}
    assert written >= {"model.safetensors", "README.md", "coefficients.json", "coefficients-study.log"}
    card = (tmp_path / "m" / "README.md").read_text()
    assert "coefficients chosen from" in card
    for name, (low, high) in tuned.intervals.items():
        assert f"90 % interval of {name}" in card
        assert f"{low:.3g} to {high:.3g}" in card
    assert all(f"{task.measured:.4g}" in card for task in tuned.tasks.values())
    if "mergekit.yml" in written:
        recipe = yaml.safe_load((tmp_path / "m" / "mergekit.yml").read_text())
        assert recipe["merge_method"] == "task_arithmetic"
        weights = [model["parameters"]["weight"] for model in recipe["models"]]
        assert weights == pytest.approx(list(tuned.coefficients.values()))
    else:
        assert "mergekit" in card  # says why not
    assert json.loads((tmp_path / "m" / "coefficients.json").read_text())["merges"] == tuned.merges
    model = timm.create_model(
        "test_resnet", in_chans=1, num_classes=0, checkpoint_path=str(tmp_path / "m" / "model.safetensors")
    ).eval()
    state = safetensors.torch.load_file(tmp_path / "m" / "model.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert torch.isfinite(model(torch.rand(2, 1, 16, 16))).all()
    assert list(result.coefficients) == ["low", "high"]


def damaged(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        safetensors.torch.save_file(change(safetensors.torch.load_file(path)), path)

    return spoil


def first_float(state: dict[str, torch.Tensor]) -> str:
    return next(name for name, value in state.items() if value.is_floating_point() and value.ndim == 4)


BAD = {
    "another architecture": (
        lambda path: safetensors.torch.save_file(
            {k: v.contiguous() for k, v in timm.create_model("test_vit", num_classes=0).state_dict().items()}, path
        ),
        "expert 'high'",
    ),
    "another shape": (damaged(lambda s: s | {first_float(s): torch.zeros(3, 3)}), "expert 'high'.*shape"),
    "missing key": (damaged(lambda s: {k: v for k, v in s.items() if k != first_float(s)}), "expert 'high'.*missing"),
    "another dtype": (
        damaged(lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()}),
        "expert 'high'.*F16",
    ),
    "NaN": (
        damaged(lambda s: s | {first_float(s): torch.full_like(s[first_float(s)], torch.nan)}),
        "NaN or infinity",
    ),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-7]), "truncated"),
    "header bomb": (
        lambda path: path.write_bytes((1 << 60).to_bytes(8, "little") + path.read_bytes()[8:]),
        "expert 'high'",
    ),
    "wrong base": (
        damaged(lambda s: {k: -4 * v if v.is_floating_point() and "var" not in k else v for k, v in s.items()}),
        "above the base's own norm",
    ),
}


@pytest.mark.parametrize("with_data", [False, True])
@pytest.mark.parametrize("harm", [*BAD, "equal to the base"])
def test_bad_experts_are_refused_by_name_before_anything_is_measured_or_written(
    files: Path, tmp_path: Path, harm: str, with_data: bool
) -> None:
    place = tmp_path / "in"
    place.mkdir()
    experts = {name: place / path.name for name, path in experts_of(files).items()}
    for name, path in experts.items():
        path.write_bytes(experts_of(files)[name].read_bytes())
    if harm == "equal to the base":
        experts["high"].write_bytes((files / "base.safetensors").read_bytes())
        match = "equals the base"
    else:
        spoil, match = BAD[harm]
        spoil(experts["high"])
    request = request_of(experts, files / "base.safetensors", files / "project.yaml" if with_data else None)
    with pytest.raises(ValueError, match=match):
        merge_tuned(SHELL, request, tmp_path / "m", {})
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"in", "m.tuning"}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.parent != place]


def test_the_written_merge_of_layer_groups_is_the_measured_one(files: Path, tmp_path: Path) -> None:
    request = request_of(experts_of(files), files / "base.safetensors", files / "project.yaml", layers=True)
    tuned, _ = merge_tuned(SHELL, request, tmp_path / "m", {})
    base, written = read_state(files / "base.safetensors", "base"), read_state(tmp_path / "m", "merged")
    experts = {name: read_state(path, name) for name, path in experts_of(files).items()}
    for key, value in written.items():
        if value.is_floating_point():
            row = tuned.tensor_coefficients.get(key, tuple(tuned.coefficients.values()))
            expected = base[key] + sum(c * (experts[n][key] - base[key]) for n, c in zip(experts, row, strict=True))
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
