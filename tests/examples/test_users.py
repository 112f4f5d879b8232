"""The three examples, one for each user, run on a project that takes seconds."""

import json
from pathlib import Path

import pytest
import safetensors.torch

from examples.plan_fine_tunes import plan
from examples.weigh_experts import parse_expert, weigh
from tests.reliability.tiny_project import write_project

NOTEBOOK = Path(__file__).parents[2] / "examples" / "explore.ipynb"


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("planned")
    project = write_project(folder)
    advice, predicted = plan(project, folder / "run")
    return project, folder / "run", advice, predicted


def test_planning_prints_the_advice_and_compares_plans_with_it(planned):
    _, _, advice, predicted = planned
    assert predicted["as advised"] == pytest.approx(advice.goal.value, rel=1e-6)
    assert len(predicted) == 5
    assert len(set(predicted.values())) > 1


def test_the_notebook_runs_from_top_to_bottom(planned):
    _, run, advice, _ = planned
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    names: dict = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"]).replace('Path("runs/first")', f"Path({str(run)!r})")
            exec(source, names)
    assert names["advice"] == advice
    assert names["curve"][0].value == pytest.approx(advice.initial_goal, rel=0.02)
    costs = [cost for cost, _ in names["trade"]]
    assert costs == sorted(costs)
    assert set(names["without"]) == set(advice.plan.names)


@pytest.mark.parametrize("labels", [None, 0])
def test_weighing_writes_a_model_of_the_experts_layout(planned, tmp_path, labels):
    project, _, _, _ = planned
    base = project.parent / "base.safetensors"
    weights = safetensors.torch.load_file(base)
    experts = {}
    for number, name in enumerate(("low", "high"), start=1):
        moved = {k: v + 0.01 * number * v if v.is_floating_point() else v for k, v in weights.items()}
        safetensors.torch.save_file(moved, tmp_path / f"{name}.safetensors")
        experts[name] = tmp_path / f"{name}.safetensors"
    data = {} if labels is None else {"data": project, "labels": labels}
    tuned = weigh(base, experts, tmp_path / "merged", **data)
    assert set(tuned.coefficients) == set(experts)
    assert tuned.source == ("weights" if labels is None else "unlabelled")
    if tuned.merge is not False:
        merged = safetensors.torch.load_file(tmp_path / "merged" / "model.safetensors")
        assert {k: v.shape for k, v in merged.items()} == {k: v.shape for k, v in weights.items()}


def test_an_expert_without_a_name_is_refused():
    with pytest.raises(Exception, match="must be name=path"):
        parse_expert("cars.safetensors")
