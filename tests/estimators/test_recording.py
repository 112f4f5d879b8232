"""A recorder writes what happened, and only that: against distances and weights computed by hand."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from estimators.recipe import Recipe
from estimators.recording import TraceRecorder, recipe_of
from estimators.trace_files import BadTrace, read_trace
from estimators.trained_recipe import TrainedRecipe

RECIPE = Recipe(learning_rate=0.1, batch_size=4, steps=6)


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))


def move(model: nn.Module, by: float) -> None:
    with torch.no_grad():
        for value in model.parameters():
            value.add_(by)


def test_distances_and_weights_are_those_of_the_recorded_parameters(tmp_path):
    model = two_layers()
    with TraceRecorder(model, tmp_path / "t", task="a", recipe=RECIPE, prefix="0.", checkpoints=(2, 6)) as recorder:
        for step in range(1, 7):
            move(model, 0.5)
            recorder.step(model, torch.tensor(1.0 / step))
    trace = read_trace(tmp_path / "t")
    assert trace.steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert trace.losses.tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6])
    # eight parameters of the first layer, each moved by 0.5 a step
    assert trace.squared_displacements.tolist() == pytest.approx([8 * (0.5 * k) ** 2 for k in range(1, 7)], rel=1e-5)
    assert trace.header.status == "finished"
    assert set(trace.header.checkpoints) == {2, 6}
    kept = safetensors.torch.load_file(trace.checkpoint(6))
    assert set(kept) == {"weight", "bias"}
    assert torch.equal(kept["bias"], model[0].bias.detach())


def test_sparse_recording_keeps_the_first_step_and_checkpoints(tmp_path):
    model = two_layers()
    with TraceRecorder(model, tmp_path / "t", task="a", recipe=RECIPE, every=4, checkpoints=(3,)) as recorder:
        for _ in range(6):
            move(model, 0.1)
            recorder.step(model, 1.0, learning_rate=0.1, gradient_norm=2.0)
    assert read_trace(tmp_path / "t").steps.tolist() == [1, 3, 4]
    row = json.loads((tmp_path / "t" / "steps.jsonl").read_text().splitlines()[0])
    assert (row["learning_rate"], row["gradient_norm"]) == (0.1, 2.0)


def test_recording_changes_nothing_in_the_training(tmp_path):
    def train(recorder_of) -> torch.Tensor:
        model = two_layers()
        recorder = recorder_of(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(6):
            optimizer.zero_grad()
            loss = model(torch.full((4, 3), float(step))).square().mean()
            loss.backward()
            optimizer.step()
            if recorder is not None:
                recorder.step(model, loss)
        return nn.utils.parameters_to_vector(model.parameters())

    recorded = train(lambda model: TraceRecorder(model, tmp_path / "t", task="a", recipe=RECIPE))
    assert torch.equal(recorded, train(lambda model: None))


def test_a_loss_that_is_not_finite_is_kept_as_null_and_weights_are_not(tmp_path):
    model = two_layers()
    with TraceRecorder(model, tmp_path / "t", task="a", recipe=RECIPE, checkpoints=(1, 2)) as recorder:
        recorder.step(model, 1.0)
        move(model, float("nan"))
        recorder.step(model, float("nan"))
    trace = read_trace(tmp_path / "t")
    assert torch.isnan(torch.tensor(trace.losses[1]))
    assert trace.squared_displacements[1] == float("inf")
    assert set(trace.header.checkpoints) == {1}
    assert "weights after step 2 are not finite" in trace.header.notes[0]


def test_an_error_in_the_loop_leaves_what_was_recorded_marked_as_unfinished(tmp_path):
    model = two_layers()

    def train() -> None:
        with TraceRecorder(model, tmp_path / "t", task="a", recipe=RECIPE) as recorder:
            recorder.step(model, 1.0)
            raise KeyError("the user's own")

    with pytest.raises(KeyError, match="the user's own"):
        train()
    trace = read_trace(tmp_path / "t")
    assert trace.header.status == "recording"
    assert trace.steps.tolist() == [1]


def test_other_weights_than_parameters_can_be_recorded(tmp_path):
    model = two_layers()
    product = {"read": lambda m: {"merged": m[1].weight @ m[0].weight}}
    recorder = TraceRecorder(model, tmp_path / "t", task="a", recipe=RECIPE, **product)
    assert list(recorder.header.parameters) == ["merged"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"prefix": "encoder."}, r"leave no parameter that trains to record; the model's begin with \['0', '1'\]"),
        ({"every": 0}, "every=0 must be at least 1"),
        ({"checkpoints": (7,)}, r"checkpoints=\[7\] must lie in 1..steps=6"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, text):
    with pytest.raises(ValueError, match=text):
        TraceRecorder(two_layers(), tmp_path / "t", task="a", recipe=RECIPE, **options)


def test_a_folder_in_use_more_steps_and_freed_layers_are_refused(tmp_path):
    model = two_layers()
    recorder = TraceRecorder(model, tmp_path / "t", task="a", recipe=RECIPE.replace(steps=1))
    with pytest.raises(ValueError, match="is not empty; give each run a folder"):
        TraceRecorder(model, tmp_path / "t", task="a", recipe=RECIPE)
    model[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match="the parameters that train changed since x_0"):
        recorder.step(model, 1.0)
    with pytest.raises(ValueError, match="step 2 goes beyond recipe.steps=1"):
        recorder.step(model, 1.0)


def test_the_recipe_is_read_off_an_optimizer():
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))]
    sgd = recipe_of(torch.optim.SGD(weights, lr=0.1, momentum=0.8, weight_decay=0.01), batch_size=8, steps=5)
    assert sgd.as_recipe()[0] == Recipe(
        learning_rate=0.1, batch_size=8, steps=5, optimizer="momentum", momentum=0.8, weight_decay=0.01
    )
    groups = [{"params": weights[:1], "weight_decay": 0.0}, {"params": weights[1:], "weight_decay": 0.1}]
    adam = recipe_of(torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95)), batch_size=8, steps=5, schedule="linear")
    recipe, notes = adam.as_recipe()
    assert (recipe.optimizer, recipe.schedule, recipe.weight_decay) == ("adamw", "warmup_cosine", 0.1)
    assert len(notes) == 3
    with pytest.raises(ValueError, match="recipe.optimizer='rmsprop' is not one of"):
        recipe_of(torch.optim.RMSprop(weights), batch_size=8, steps=5)
    rates = [{"params": weights[:1], "lr": 0.1}, {"params": weights[1:], "lr": 0.2}]
    with pytest.raises(ValueError, match=r"train at rates \[0.1, 0.2\]"):
        recipe_of(torch.optim.SGD(rates), batch_size=8, steps=5)


def test_a_recipe_survives_json_and_says_what_it_cannot_express():
    recipe = TrainedRecipe(
        learning_rate=1e-3,
        batch_size=8,
        steps=100,
        optimizer="adam",
        schedule="cosine",
        weight_decay=0.1,
        betas=(0.9, 0.98),
        warmup_steps=50,
        gradient_clipping=1.0,
        augmentation="flips",
        dropout=0.1,
        label_smoothing=0.1,
        lora_rank=8,
        frozen=("stem",),
        remarks=("trained at night",),
    )
    assert TrainedRecipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    notes = " ".join(recipe.as_recipe()[1])
    for word in (
        "coupled",
        "betas",
        "cosine",
        "warm-up of 50",
        "clipped",
        "flips",
        "dropout",
        "smoothed",
        "LoRA",
        "stem",
    ):
        assert word in notes
    assert notes.endswith("trained at night")
    assert TrainedRecipe.of(RECIPE).as_recipe() == (RECIPE, ())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"steps": None}, "recipe lacks steps"),
        ({"colour": 1}, r"recipe fields \['colour'\] are not known"),
        ({"learning_rate": "0.1"}, "recipe.learning_rate='0.1' must be a number"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0 must be positive"),
        ({"schedule": "triangle"}, "recipe.schedule='triangle' is not one of constant"),
        ({"lora_rank": 0}, "recipe.lora_rank=0 must be a whole number"),
        ({"dropout": float("nan")}, "recipe.dropout=nan must be at least 0"),
    ],
)
def test_a_recipe_with_a_wrong_field_is_refused_by_name(change, text):
    with pytest.raises(ValueError, match=text):
        TrainedRecipe.from_json(TrainedRecipe.of(RECIPE).to_json() | change)


def _trace(folder: Path, lines: str) -> Path:
    model = two_layers()
    TraceRecorder(model, folder, task="a", recipe=RECIPE).close()
    header = json.loads((folder / "trace.json").read_text()) | {"rows": None}
    (folder / "trace.json").write_text(json.dumps(header))
    (folder / "steps.jsonl").write_text(lines)
    return folder


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ('{"step": 1}\n', "line 1 is no JSON object with step, loss and squared_displacement"),
        ('{"step": 1.5, "loss": 1, "squared_displacement": 1}\n', "step=1.5 must be a whole number"),
        ('{"step": 1, "loss": 1, "squared_displacement": -1}\n', "squared_displacement=-1.0 must be at least 0"),
        ('{"step": 9, "loss": 1, "squared_displacement": 1}\n', "goes to step 9, recipe.steps=6"),
        ('{"step": 1, "loss": 1, "squared_displacement": 1}\n' * 2, "steps must increase"),
        ("", "neither steps.jsonl nor a checkpoint is there"),
        ("[1]\n", "line 1 is no JSON object"),
    ],
)
def test_damaged_steps_are_refused_by_line(tmp_path, lines, text):
    with pytest.raises(BadTrace, match=text):
        read_trace(_trace(tmp_path / "t", lines))
