"""The path on texts: what is made for images must not be asked of them, from the project file to the report."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from advisor import pipeline
from advisor.cli import app
from advisor.preparing import OtherProject, prepare
from advisor.project import load_project
from advisor.setting_up import look_over, sample_texts
from advisor.surveying import survey, survey_json
from estimators.cost import CostMeter
from estimators.stored_tasks import UnreadableSamples
from tests import small_encoders
from tests.advisor.tiny_text_path import PROJECT, write_text_project

pytest.importorskip("transformers", reason="needs the extra 'text'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_project(tmp_path_factory.mktemp("texts"))


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(folder, tmp_path / "own"))


def test_check_and_the_forms_look_over_texts(folder: Path) -> None:
    found = survey(load_project(folder / "project.yaml"), device="cpu")
    assert found.inputs == "texts of at most 12 tokens"
    assert found.image_size is None
    assert found.tasks["here"].classes == {"cat": 40, "dog": 40}
    assert survey_json(found)["inputs"] == found.inputs
    over = look_over(PROJECT, folder)
    assert over.problem == ""
    assert over.project is not None
    samples = sample_texts(over.project, "there", most=3)
    assert [sample.label for sample in samples] == ["bird", "fish", "bird"]
    assert samples[0].text.startswith("the bird")


def test_the_command_line_checks_and_times_a_project_of_texts(folder: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(folder / "project.yaml"), "--timing", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "texts of at most 12 tokens" in result.output


def test_preparing_is_read_back_and_rests_on_text_and_tokenizer(own: Path, tmp_path: Path) -> None:
    project = load_project(own / "project.yaml")
    run = tmp_path / "run"
    first = prepare(project, run, device="cpu", meter=CostMeter())
    again = prepare(project, run, device="cpu", meter=CostMeter())
    assert first.fingerprint == again.fingerprint
    assert again.mended == ()
    assert first.image_size is None
    for one, two in zip(first.tasks, again.tasks, strict=True):
        assert one.train.inputs.dtype == torch.int32
        assert torch.equal(one.train.inputs, two.train.inputs)
        assert torch.equal(one.fitted_head().weight, two.fitted_head().weight)
    record = json.loads((run / "splits.json").read_text())["tasks"]["here"]
    assert (record["kind"], record["max_length"]) == ("texts", 12)
    small_encoders.write_table(own / "here.jsonl", 0, count=82)
    changed = prepare(project, run, device="cpu", meter=CostMeter())
    assert any("data='here.jsonl' has changed since this run was made" in note for note in changed.notes)
    (own / "encoder" / "tokenizer.json").write_text(small_encoders.tokenizer_json().replace('"cat"', '"cow"'))
    with pytest.raises(OtherProject, match="samples of task 'here'"):
        prepare(project, run, device="cpu", meter=CostMeter())


def test_cut_empty_and_shared_texts_are_said(own: Path, tmp_path: Path) -> None:
    here = own / "here.jsonl"
    (own / "there.jsonl").write_text(here.read_text())
    with here.open("a") as file:
        file.write('{"text": " ", "label": "cat"}\n')
        file.write(json.dumps({"text": "the cat " * 20, "label": "cat"}) + "\n")
    project = load_project(own / "project.yaml")
    with pytest.raises(UnreadableSamples, match=r"1 of 82 texts cannot be read: .* \(no token in it"):
        prepare(project, tmp_path / "run", device="cpu", meter=CostMeter())
    made = prepare(project, tmp_path / "run", device="cpu", meter=CostMeter(), allow_unreadable=True)
    notes = "\n".join(made.notes)
    assert "task 'here': 1 unreadable texts were left out" in notes
    assert "task 'here': 1 of 82 texts have more than 12 tokens and were cut" in notes
    assert "'here' and 'there' share 80 texts" in notes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("here.jsonl", "builtin/digits-low"), r"tasks.here: data='builtin/digits-low' holds images"),
        (("here.jsonl", "nowhere.csv"), r"tasks.here: data='nowhere.csv' does not exist"),
        (("name: encoder", "name: elsewhere"), r"backbone.name='elsewhere' is neither a folder nor a .zip"),
        (("max_length: 12", "max_length: 99"), r"max_length=99 is beyond the 24 positions"),
        (
            ("{kind: transformers, name: encoder, max_length: 12}", "{name: test_resnet, image_size: 32}"),
            r"data='here.jsonl' holds texts, which backbone='test_resnet' cannot read; set backbone.kind",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(folder: Path, change: tuple[str, str], said: str) -> None:
    over = look_over(PROJECT.replace(*change), folder)
    assert over.survey is None
    with pytest.raises(ValueError, match=said):
        raise ValueError(over.problem)


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> pipeline.Workspace:
    """The whole path; a refused plan is carried through all the same."""
    ws = pipeline.open_workspace(
        load_project(folder / "project.yaml"), tmp_path_factory.mktemp("run") / "run", device="cpu"
    )
    pipeline.run_all(ws)
    return ws


@pytest.mark.slow
def test_the_whole_path_runs_on_texts(finished: pipeline.Workspace) -> None:
    run = finished.run.path
    advice = json.loads((run / "recommendation.json").read_text())
    assert set(advice["plan"]["recipes"]) == {"here", "there"}
    validation = json.loads((run / "validation.json").read_text())["validation"]
    kinds = [model["kind"] for model in validation["models"]]
    assert {"advised", "pretrained", "expert", "baseline", "joint"} <= set(kinds)
    assert (run / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_the_merge_goes_back_into_the_library(finished: pipeline.Workspace) -> None:
    merged = load_file(finished.run.path / "merged" / "model.safetensors")
    model = small_encoders.build(seed=3)
    model.load_state_dict(merged, strict=True)
    start = small_encoders.build().state_dict()
    assert torch.equal(merged["pooler.dense.weight"], start["pooler.dense.weight"])


@pytest.mark.slow
def test_experts_are_merged_by_the_command_line_with_coefficients_tuned_on_texts(
    finished: pipeline.Workspace, folder: Path, tmp_path: Path
) -> None:
    base = folder / "encoder" / "model.safetensors"
    experts = [f"{name}={finished.run.path / 'experts' / name}.safetensors" for name in ("here", "there")]
    arguments = ["merge", "--base", str(base), "--experts", *experts, "--coefficients", "auto", "--device", "cpu"]
    data = ["--data", str(folder / "project.yaml"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, *data])
    assert result.exit_code == 0, result.output
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert merged.keys() == load_file(base).keys()
