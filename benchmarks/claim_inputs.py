"""What one unit of the pool starts from: x_0, tasks with heads, evaluation samples and the constants at x_0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor.project import load_project
from benchmarks.claim_design import MAIN, SPLIT, TASKS, Network
from benchmarks.pretraining import Pretraining, pretrain
from benchmarks.suite_grid import EvaluationSizes
from benchmarks.suite_inputs import SuiteInputs, prepare_inputs
from benchmarks.suite_measuring import Samples, evaluation_samples
from estimators.backbone_loading import BackboneSource
from estimators.builtin_tasks import builtin_catalogue
from estimators.constants import Constants
from estimators.files import read_json, write_json, write_text
from estimators.measuring import measure_constants

POOL = "builtin/digits-pretrain"
EVALUATION = EvaluationSizes(probe=90, validation=90, test=180, train=90)
CONSTANTS_UNITS = 8_000.0  # per-sample gradients for all tasks together

PROJECT = """\
backbone: {{name: {model}, checkpoint: {checkpoint}, in_chans: 1, image_size: {size}}}
tasks:
{tasks}
search:
  learning_rate: {{sgd: [1.0e-5, 1.0e-1], adamw: [1.0e-5, 1.0e-2]}}
  batch_size: [2, 32]
  steps: [10, 320]
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unit:
    """One network and seed, ready to train.

    Attributes:
        network: key of ``claim_design.NETWORKS``.
        seed: of splits, heads and batch order.
        inputs: x_0, tasks and heads.
        samples: task -> evaluation samples.
        constants: at x_0.
        edge: 2/L, L the largest top curvature of the main tasks.
    """

    network: str
    seed: int
    inputs: SuiteInputs
    samples: dict[str, Samples]
    constants: Constants
    edge: float


def open_unit(
    name: str, network: Network, seed: int, work: Path, *, device: str | None, say: Callable[[str], None]
) -> Unit:
    """Pre-train x_0 (once for all seeds), prepare tasks, measure constants; what is stored is read back."""
    project = _project_file(name, network, work)
    folder = work / f"{name}-{seed}"
    inputs = prepare_inputs(load_project(project), folder / "prepared", seed=seed, device=device)
    samples = evaluation_samples(inputs, EVALUATION)
    path = folder / "constants.json"
    if not path.exists():
        say(f"{name}-{seed}: measuring constants at x_0")
        tasks = {task.name: task for task in inputs.tasks}
        measured = measure_constants(inputs.objectives, tasks, seed=seed, max_units=CONSTANTS_UNITS)
        write_json(path, measured.to_json())
    constants = Constants.from_json(read_json(path))
    return Unit(network=name, seed=seed, inputs=inputs, samples=samples, constants=constants, edge=edge_rate(constants))


def edge_rate(constants: Constants) -> float:
    """2/L to three digits, L the largest top curvature of the main tasks."""
    found = [constants.tasks[name].top_curvature for name in MAIN]
    values = [estimate.value for estimate in found if estimate is not None]
    if not values or max(values) <= 0:
        raise ValueError(f"top_curvature={values} of the main tasks must hold a positive one; measure constants again")
    return float(f"{2 / max(values):.3g}")


def _project_file(name: str, network: Network, work: Path) -> Path:
    """The project of a network, with its pre-trained checkpoint beside it."""
    checkpoint, project = work / f"{name}.safetensors", work / f"{name}.yaml"
    if not checkpoint.exists():
        source = BackboneSource(
            name=network.model, in_chans=1, image_size=network.image_size, checkpoint=checkpoint, seed=0
        )
        settings = Pretraining(
            data=_pool_images(work),
            epochs=network.epochs,
            batch_size=32,
            learning_rate=network.pretraining_rate,
            shift=0,
        )
        pretrain(source, settings, checkpoint)
    tasks = "\n".join(f"  {task}: {{data: {data}, split: {list(SPLIT)}}}" for task, data in TASKS.items())
    text = PROJECT.format(model=network.model, checkpoint=checkpoint.name, size=network.image_size, tasks=tasks)
    write_text(project, text)
    return project


def _pool_images(work: Path) -> Path:
    """The pre-training digits as class folders."""
    folder, catalogue = work / "pretraining", builtin_catalogue(POOL)
    for index, name in enumerate(catalogue.names):
        path = folder / catalogue.class_names[int(catalogue.labels[index])] / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        catalogue.open_sample(index).save(path)
    return folder


def describe_unit(unit: Unit) -> dict[str, Any]:
    """What the tables say of a unit before anything was trained."""
    start = unit.inputs.backbone.initial
    return {
        "network": unit.network,
        "seed": unit.seed,
        "tasks": list(unit.inputs.names),
        "num_samples": {task.name: len(task.train) for task in unit.inputs.tasks},
        "num_parameters": int(start.numel()),
        "fingerprint": unit.inputs.fingerprint,
        "edge": unit.edge,
        "initial": {name: samples.figures(start) for name, samples in unit.samples.items()},
        "constants": unit.constants.to_json(),
    }
