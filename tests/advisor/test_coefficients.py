"""Tuning by file: from weights alone, and with a project's data through the product's own preparing."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from advisor.coefficients import tune
from advisor.coefficients_hedging import hedged_coefficients
from advisor.coefficients_problem import open_problem, own_head, read_state
from advisor.coefficients_sections import tuned_sections
from advisor.merging import merge, task_vector_gram
from estimators.backbone_loading import BackboneSource, build_backbone, resolve
from estimators.tasks import LinearHead

PROJECT = """\
backbone: {name: test_resnet, in_chans: 1, image_size: 16, checkpoint: base.safetensors}
tasks:
  low: {data: builtin/digits-low, limit: 80, split: [0.4, 0.3, 0.3]}
  high: {data: builtin/digits-high, limit: 80, split: [0.4, 0.3, 0.3]}
search: {learning_rate: {sgd: [1.0e-3, 1.0]}, batch_size: [8, 16], steps: [20, 80]}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two experts that are random steps away from it."""
    folder = tmp_path_factory.mktemp("experts")
    source = resolve(BackboneSource(name="test_resnet", in_chans=1, image_size=16, seed=0))[0]
    backbone, _ = build_backbone(source, device=torch.device("cpu"))
    safetensors.torch.save_file(backbone.state_dict(backbone.initial), folder / "base.safetensors")
    for number, name in enumerate(("low", "high"), start=1):
        step = 0.002 * number * torch.randn(backbone.initial.shape, generator=torch.Generator().manual_seed(number))
        safetensors.torch.save_file(backbone.state_dict(backbone.initial + step), folder / f"{name}.safetensors")
    (folder / "project.yaml").write_text(PROJECT)
    return folder


def experts_of(files: Path) -> dict[str, Path]:
    return {name: files / f"{name}.safetensors" for name in ("low", "high")}


def test_weights_alone_give_the_priors_coefficients_and_say_how_far_to_trust_them(files: Path) -> None:
    tuned = tune(files / "base.safetensors", experts_of(files))
    gram = task_vector_gram(files / "base.safetensors", experts_of(files))
    np.testing.assert_allclose(list(tuned.coefficients.values()), hedged_coefficients(gram.gram, gram.base_norm))
    assert tuned.source == "weights"
    assert tuned.merge is None
    assert "nine cases of ten" in " ".join(tuned.notes)
    assert [section.title for section in tuned_sections(tuned)][0] == "Coefficients chosen from weights alone"


def test_a_projects_data_tune_and_the_written_merge_is_the_measured_one(files: Path, tmp_path: Path) -> None:
    tuned = tune(files / "base.safetensors", experts_of(files), data=files / "project.yaml", max_merges=8)
    merge(files / "base.safetensors", experts_of(files), coefficients=dict(tuned.coefficients), out=tmp_path / "m")
    base, written = read_state(files / "base.safetensors", "base"), read_state(tmp_path / "m", "merged")
    for key, value in written.items():
        expected = base[key].clone()
        for name, coefficient in tuned.coefficients.items():
            if value.is_floating_point():
                expected += coefficient * (read_state(files / f"{name}.safetensors", name)[key] - base[key])
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
    titles = [section.title for section in tuned_sections(tuned)]
    assert titles[0].startswith("Coefficients chosen on validation labels, ")
    assert "Risk of each task, in nats" in titles
    assert set(tuned.tasks) == {"low", "high"}
    assert tuned.disturbance.shape == (2, 2)


def test_a_head_beside_its_expert_is_used(files: Path, tmp_path: Path) -> None:
    experts = {}
    for name, path in experts_of(files).items():
        experts[name] = tmp_path / path.name
        experts[name].write_bytes(path.read_bytes())
    tensors = {"weight": torch.ones(5, 96), "bias": torch.zeros(5)}
    safetensors.torch.save_file(tensors, tmp_path / "low-head.safetensors")
    found = open_problem(files / "base.safetensors", experts, files / "project.yaml")
    torch.testing.assert_close(found.heads["low"].weight, torch.ones(5, 96))
    assert not torch.equal(found.heads["high"].weight, torch.ones(5, 96))
    assert any("'low'" in note and "beside its expert" in note for note in found.notes)
    fitted = found.heads["high"]
    with pytest.raises(ValueError, match="the project's task needs"):
        own_head(experts["low"], LinearHead(weight=fitted.weight[:2], bias=fitted.bias[:2]))
    assert own_head(experts["high"], fitted) is None


def test_what_weights_cannot_tell_and_tasks_without_experts_are_refused(files: Path) -> None:
    with pytest.raises(ValueError, match="weights alone say nothing of layers"):
        tune(files / "base.safetensors", experts_of(files), granularity="group")
    only = {"low": experts_of(files)["low"]}
    with pytest.raises(ValueError, match=r"tasks \['high'\] of the project have no expert of that name"):
        tune(files / "base.safetensors", only, data=files / "project.yaml")
