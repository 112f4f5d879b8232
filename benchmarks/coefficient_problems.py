r"""Problems of finished experts for the benchmark of coefficients: digit tasks, one small ResNet, three histories.

Everything goes through the product's own preparing and training code: a project file, ``advisor.preparing``,
``estimators.fine_tuning``, experts as safetensors.  The backbone is pre-trained on the pool of digits that no task
holds.  Families of four tasks:

    views    all ten digits, turned / inverted / transposed / halves exchanged
    halves   digits 0-4, 5-9, even and odd, all turned

    mixed    five tasks of different views and digits              (for development alone)
    inverse  halves, inverted instead of turned                    (for development alone)

Recipes: ``adamw`` (equal: learning rate 1e-3, batch 16, 100 steps), ``unequal`` (four different learning rates,
batches, steps and optimizers: displacements differ more than tenfold), ``gentle`` (equal: 3e-4, batch 32, 60 steps; for
development alone).

Methods and their constants are chosen on seeds 100-102 (``DEVELOPMENT_SEEDS``; views, halves and mixed, all recipes)
and 103-110 (``RELATED_SEEDS``; halves and inverse, ``adamw``: related tasks, where the simple average is hardest to
beat).  What is reported is views and halves, adamw and unequal, seeds 0-2, looked at when a method is finished.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
from torch import Tensor

from advisor import demo
from advisor.coefficients_problem import TuningProblem, open_problem
from advisor.preparing import prepare
from advisor.project import load_project
from advisor.training import train_runs
from estimators.cost import CostMeter
from estimators.fine_tuning import Run
from estimators.objectives import ClassificationObjective, evaluate
from estimators.recipe import Recipe
from estimators.splits import open_test
from estimators.tasks import Split

PRETRAIN_EPOCHS = 15
FAMILIES = {
    "views": {name: f"builtin/digits-{name}" for name in ("rotated", "inverted", "transposed", "rolled")},
    "halves": {name: f"builtin/digits-rotated-{name}" for name in ("low", "high", "even", "odd")},
}
DEVELOPMENT_SEEDS = (100, 101, 102)
DEVELOPMENT = {
    **FAMILIES,
    "mixed": {
        "upside-down": "builtin/digits-upside-down",
        "low": "builtin/digits-rotated-low",
        "even": "builtin/digits-inverted-even",
        "odd": "builtin/digits-transposed-odd",
        "high": "builtin/digits-rolled-high",
    },
    "inverse": {name: f"builtin/digits-inverted-{name}" for name in ("low", "high", "even", "odd")},
}
RELATED_SEEDS = tuple(range(103, 111))
KINDS = ("adamw", "unequal", "gentle")
EIGHT = {
    **FAMILIES["views"],
    "upside-down": "builtin/digits-upside-down",
    "low": "builtin/digits-rotated-low",
    "even": "builtin/digits-inverted-even",
    "odd": "builtin/digits-transposed-odd",
}
PROJECT = """\
backbone: {{name: test_resnet, checkpoint: {base}, in_chans: 1, image_size: 16}}
tasks:
{tasks}
search: {{learning_rate: {{adamw: [1.0e-5, 1.0e-2]}}, batch_size: [8, 32], steps: [20, 240]}}
seed: {seed}
"""


def recipes_of(kind: str, tasks: list[str]) -> dict[str, Recipe]:
    """Recipes of the experts, by task."""
    if kind == "adamw":
        return dict.fromkeys(tasks, _cosine("adamw", 1e-3, 16, 100))
    if kind == "unequal":
        cells = [("adamw", 2e-3, 8, 200), ("adamw", 3e-4, 32, 60), ("momentum", 2e-4, 16, 120), ("adamw", 1e-3, 16, 60)]
        return {task: _cosine(*cells[k % len(cells)]) for k, task in enumerate(tasks)}
    if kind == "gentle":
        return dict.fromkeys(tasks, _cosine("adamw", 3e-4, 32, 60))
    raise ValueError(f"kind={kind!r} must be one of {KINDS}; choose one")


def _cosine(optimizer: str, rate: float, batch: int, steps: int) -> Recipe:
    return Recipe(
        optimizer=optimizer,  # type: ignore[arg-type]
        learning_rate=rate,
        batch_size=batch,
        steps=steps,
        schedule="warmup_cosine",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertProblem:
    """Experts on disk, the problem that tuning sees, and the test data that judge.

    Attributes:
        base: pretrained checkpoint.
        experts: task -> checkpoint.
        problem: as ``tune`` opens it.
        tests: task -> test split.
    """

    base: Path
    experts: dict[str, Path]
    problem: TuningProblem
    tests: dict[str, Split]

    def test_figures(self, row: list[float], method: str = "task_arithmetic") -> dict[str, float]:
        """Test risk (nats) and accuracy of a merge, means over tasks."""
        return self.figures(self.problem.merges.by_operator(method, np.asarray(row), seed=0, options={}))

    def figures(self, weights: Tensor) -> dict[str, float]:
        """Test risk and accuracy of merged weights, means over tasks."""
        cells = [
            evaluate(ClassificationObjective(self.problem.merges.backbone, head), weights, self.tests[name])
            for name, head in self.problem.heads.items()
        ]
        return {
            "risk": sum(cell.risk for cell in cells) / len(cells),
            "accuracy": sum(cell.accuracy for cell in cells) / len(cells),
        }


def make_problem(folder: Path, tasks: dict[str, str], kind: str, seed: int) -> ExpertProblem:
    """Pre-train, prepare and train what is not there yet, and open it."""
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / "base.safetensors"
    if not base.exists():
        demo.EPOCHS = PRETRAIN_EPOCHS
        safetensors.torch.save_file(demo.pretrain(seed=seed), base)
    lines = "\n".join(f"  {name}: {{data: {data}, split: [0.3, 0.15, 0.55]}}" for name, data in tasks.items())
    file = folder / "project.yaml"
    file.write_text(PROJECT.format(base=base.resolve(), tasks=lines, seed=seed))
    run = folder / "run"
    prepared = prepare(load_project(file), run, meter=CostMeter())
    experts = {task.name: folder / f"{kind}-{task.name}.safetensors" for task in prepared.tasks}
    recipes = recipes_of(kind, list(experts))
    missing = [Run(task=name, recipe=recipes[name], seed=seed) for name, path in experts.items() if not path.exists()]
    if missing:
        objectives = {t.name: ClassificationObjective(prepared.backbone, t.fitted_head()) for t in prepared.tasks}
        for group in train_runs(objectives, {t.name: t.train for t in prepared.tasks}, missing):
            for done in group:
                state = prepared.backbone.state_dict(done.weights)
                safetensors.torch.save_file(state, experts[done.run.task])
    return ExpertProblem(
        base=base,
        experts=experts,
        problem=open_problem(base, experts, file),
        tests={name: open_test(run, name, reader="benchmark of coefficients") for name in experts},
    )
