import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.project import Project, load_project

EXAMPLE = """
backbone: {name: resnet18, pretrained: true}
tasks:
  flowers: {data: data/flowers}
  digits:  {data: builtin/digits-low}
heads: probe
objective: {weights: {flowers: 2, digits: 1}, loss: cross_entropy, goal: mean, max_drop: null}
search: {learning_rate: {sgd: [1e-4, 1.0], adamw: [1e-5, 1e-2]}, batch_size: [8, 128], steps: [20, 640],
         schedule: [constant, warmup_cosine], coefficients: {scope: per_task, range: [0, 2]}, per_task_recipes: false}
budget: {probe_share: 0.25, max_cost: null, time_limit: 30m}
merge: {method: auto}
device: auto
seed: 0
"""
BASE = yaml.safe_load(EXAMPLE)

BAD = [
    ({"serach": {}}, r"serach is no key of the project; did you mean 'search'\?"),
    ({"search.batch_sizes": [1, 2]}, r"search.batch_sizes is no key of search; did you mean 'batch_size'\?"),
    ({"tasks.flowers.dta": "x"}, r"tasks.flowers.dta is no key of tasks.flowers; did you mean 'data'\?"),
    ({"tasks.flowers.reader": {"imgkey": "x"}}, r"tasks.flowers.reader.imgkey is no key.*did you mean 'image_key'\?"),
    ({"search.coefficients.rnge": [0, 1]}, r"search.coefficients.rnge is no key.*did you mean 'range'\?"),
    ({"backbone.zzzzqqq": 1}, r"backbone.zzzzqqq is no key of backbone; the keys are name, kind, pretrained"),
    ({"search.batch_size": [128, 8]}, r"search.batch_size=\[128, 8\] is inverted.*swap"),
    ({"search.batch_size": []}, r"search.batch_size=\[\] must be a range of two numbers.*write both ends"),
    ({"search.batch_size": [0, 8]}, r"search.batch_size=\[0, 8\] must be positive at both ends"),
    ({"search.steps": [1.5, 8]}, r"search.steps.0=1.5 must be a valid integer"),
    ({"search.steps": [True, 8]}, r"search.steps.0=True must be a number, not true or false"),
    ({"search.learning_rate.sgd": [1, 1e-3]}, r"search.learning_rate.sgd=\[1, 0.001\] is inverted"),
    ({"search.learning_rate.sgd": [0, 1e-3]}, r"search.learning_rate.sgd=\[0, 0.001\] must be positive"),
    ({"search.learning_rate.sdg": [1e-3, 1]}, r"search.learning_rate.sdg='sdg' must be.*did you mean 'sgd'\?"),
    ({"search.learning_rate": {}}, r"search.learning_rate=\{\} must not be empty"),
    ({"search.schedule": ["linear"]}, r"search.schedule.0='linear' must be 'constant' or 'warmup_cosine'"),
    ({"search.schedule": ["constant", "constant"]}, r"search.schedule=.*names a schedule twice"),
    ({"search.coefficients.range": [-1, 1]}, r"search.coefficients.range=\[-1, 1\] must be at least 0"),
    ({"search": None}, r"search=None must be a valid dictionary"),
    ({"objective.weights.flowers": -1}, r"objective.weights: weights.flowers=-1 must be at least 0"),
    ({"objective.weights": {"flowers": 0, "digits": 0}}, r"objective.weights: must hold a positive weight.*raise one"),
    ({"objective.weights": {"flowers": 1, "digts": 1}}, r"objective.weights names unknown tasks \['digts'\]"),
    ({"objective.weights": {"flowers": 1}}, r"objective.weights leaves out \['digits'\].*0 leaves one out"),
    ({"objective.max_drop": float("nan")}, r"objective.max_drop=nan must be a finite number"),
    ({"objective.goal": "men"}, r"objective.goal='men' must be 'mean' or 'worst'; did you mean 'mean'\?"),
    ({"tasks": {}}, r"tasks=\{\} must name at least one task"),
    ({"tasks": [1]}, r"tasks=\[1\] must be a valid dictionary"),
    ({"tasks": {"../x": "a"}}, r"name '../x' must be 1 to 64 letters, digits"),
    ({"tasks": {"a": "x", "A": "y"}}, r"differ only in upper and lower case"),
    ({"tasks.flowers.split": [0.5, 0.5, 0.5]}, r"tasks.flowers.split=.*three positive shares that sum to 1"),
    ({"tasks.flowers.classes": ["a"]}, r"tasks.flowers.classes=.*at least two different classes"),
    ({"tasks.flowers.limit": 0}, r"tasks.flowers.limit=0 must be greater than or equal to 1"),
    ({"backbone": {}}, r"backbone.name is missing; add it"),
    ({"backbone.checkpoint": "x.pth"}, r"backbone: pretrained: true and checkpoint exclude each other"),
    ({"backbone.map_keys": "by_order"}, r"backbone: map_keys: by_order needs a checkpoint"),
    ({"backbone.in_chans": 2}, r"backbone.in_chans=2 must be 1 or 3"),
    ({"backbone.image_size": 10**6}, r"backbone.image_size=1000000 must be less than or equal to 2048"),
    ({"backbone.normalisation": {"mean": [0.5], "std": [0]}}, r"backbone.normalisation.std.0=0 must be greater than 0"),
    ({"backbone.normalisation": {"mean": [0.5] * 2, "std": [1]}}, r"normalisation.mean has 2 entries for in_chans=3"),
    ({"budget.time_limit": "soon"}, r"budget.time_limit='soon' must be a duration such as 30m"),
    ({"budget.time_limit": "0s"}, r"budget.time_limit=0.0 must be greater than 0"),
    ({"budget.time_limit": True}, r"budget.time_limit=True must be a duration"),
    ({"budget.probe_share": 0}, r"budget.probe_share=0 must be greater than 0"),
    ({"budget.probes": 1}, r"budget.probes=1 must be greater than or equal to 2"),
    ({"seed": -1}, r"seed=-1 must be greater than or equal to 0"),
    ({"seed": True}, r"seed=True must be a number, not true or false"),
    ({"device": "gpu"}, r"device='gpu' must be auto, cpu, cuda"),
    ({"merge.method": "tis"}, r"merge.method='tis' must be auto or one of .*ties"),
    ({"heads": "prob"}, r"heads='prob' must be 'probe' or 'trained'; did you mean 'probe'\?"),
]


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    data = copy.deepcopy(BASE)
    for place, value in changes.items():
        *owners, last = place.split(".")
        owner = data
        for key in owners:
            owner = owner[key]
        owner[last] = value
    return data


@pytest.mark.parametrize(("changes", "said"), BAD, ids=[next(iter(c)) + f"-{i}" for i, (c, _) in enumerate(BAD)])
def test_a_bad_value_is_named_with_its_place_rule_and_next_step(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        Project.from_mapping(changed(changes), label="project.yaml")
    assert str(caught.value).startswith("project.yaml: ")
    assert "\n" not in str(caught.value)


def test_the_example_of_the_readme_loads(tmp_path: Path) -> None:
    (tmp_path / "project.yaml").write_text(EXAMPLE)
    project = load_project(tmp_path / "project.yaml")
    assert project.search.learning_rate == {"sgd": (1e-4, 1.0), "adamw": (1e-5, 1e-2)}
    assert project.budget.time_limit == 1800
    assert project.task_weights() == {"flowers": pytest.approx(2 / 3), "digits": pytest.approx(1 / 3)}
    assert project.path("data/flowers") == (tmp_path / "data" / "flowers").resolve()


def test_a_project_survives_the_round_trip_through_yaml(tmp_path: Path) -> None:
    for text in (EXAMPLE, "backbone: test_resnet\ntasks: {a: builtin/digits-low, b: ./x}\n"):
        (tmp_path / "a.yaml").write_text(text)
        project = load_project(tmp_path / "a.yaml")
        (tmp_path / "b.yaml").write_text(project.to_yaml())
        assert load_project(tmp_path / "b.yaml") == project


def test_a_moved_project_still_finds_its_data(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(EXAMPLE)
    project = load_project(tmp_path / "a.yaml")
    run = tmp_path / "runs" / "1"
    run.mkdir(parents=True)
    (run / "project.yaml").write_text(project.to_yaml(moved=True))
    moved = load_project(run / "project.yaml")
    assert moved.path("data/flowers") == project.path("data/flowers")
    assert moved.content_hash() == project.content_hash()


def test_only_backbone_tasks_and_seed_tie_a_project_to_its_run() -> None:
    base = Project.from_mapping(BASE)
    for harmless in (
        {"objective.goal": "worst"},
        {"search.steps": [5, 10]},
        {"budget.probe_share": 0.1},
        {"device": "cpu"},
    ):
        assert Project.from_mapping(changed(harmless)).content_hash() == base.content_hash()
    for other in ({"seed": 1}, {"backbone.in_chans": 1}, {"tasks.flowers.limit": 9}):
        assert Project.from_mapping(changed(other)).content_hash() != base.content_hash()


def test_a_project_cannot_be_changed_after_birth() -> None:
    project = Project.from_mapping(BASE)
    with pytest.raises(ValueError, match="frozen"):
        project.seed = 3  # type: ignore[misc]


def test_many_problems_are_told_at_once_and_counted() -> None:
    with pytest.raises(ValueError, match="no key.*; and 3 more"):
        Project.from_mapping(changed({f"unknown{i}": i for i in range(8)}))


def test_a_file_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(ValueError, match="holds a list, not a mapping; it begins with `backbone:`"):
        Project.from_mapping([1, 2])


def test_importing_the_project_loads_no_heavy_library() -> None:
    code = (
        "import sys, advisor.project as p\n"
        f"p.Project.from_mapping({BASE!r})\n"
        "print([m for m in ('torch', 'optuna', 'timm', 'sklearn', 'streamlit') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        "backbone",
        "tasks",
        "heads",
        "objective",
        "search",
        "budget",
        "merge",
        "device",
        "seed",
        "folder",
        "backbone.name",
    ]
    + [f"tasks.flowers.{key}" for key in ("data", "limit", "classes", "split", "reader")]
    + [f"search.{key}" for key in ("learning_rate", "batch_size", "steps", "schedule", "coefficients")]
    + [f"budget.{key}" for key in ("probe_share", "max_cost", "time_limit", "probes")]
)


@settings(max_examples=150, deadline=None)
@given(place=KEYS, value=JUNK)
def test_whatever_stands_in_a_field_it_loads_or_is_refused_in_one_paragraph(place: str, value: Any) -> None:
    try:
        project = Project.from_mapping(changed({place: value}), label="p.yaml")
    except ValueError as error:
        assert str(error).startswith("p.yaml: ")  # noqa: PT017
        assert len(str(error)) < 3000  # noqa: PT017
    else:
        assert Project.from_mapping(yaml.safe_load(project.to_yaml())) == project.model_copy()
