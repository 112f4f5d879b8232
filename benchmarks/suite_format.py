r"""Read a stored suite, and replay probes from it.

    suite = load_suite("benchmarks/suites/resnet-fashion")
    replay = replay_probes(suite, seed=0, design=[ProbeRequest(recipe=..., points=(...))])
    model = RiskModel().fit(replay.data)                      # replay.cost counts what it would have taken
    candidates = candidate_plans(suite, seed=0)               # plans, validation and test goal of each

A suite holds N tasks; M merges with figures [M, N] in nats.  ``validation`` figures may be seen by advice and by
baselines, ``test`` figures only judge.  An infinite risk is a merge of an expert that diverged.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.observations import DisplacementTrace
from advisor.plan import Plan
from advisor.probing import LINEAR_METHOD
from benchmarks.suite_measuring import FIGURES
from benchmarks.suite_writing import SUITE_VERSION
from estimators.constants import Constants
from estimators.cost import FORWARD_UNITS, full_fine_tune_units
from estimators.files import read_json
from estimators.recipe import Recipe

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
TEXT_COLUMNS = ("kind", "method", "task", "outcome", "cause", "optimizer", "schedule", "sampling", "alignment")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """Experts that were merged together.

    Attributes:
        seed: the suite's seed.
        recipes: index of each task's recipe.
        steps: checkpoint of each task's run.
        gram: <tau_i, tau_j> [N, N]; infinite where an expert diverged.
    """

    seed: int
    recipes: tuple[int, ...]
    steps: tuple[int, ...]
    gram: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Suite:
    """A stored suite.

    Attributes:
        name: its folder's name.
        tasks: task names, N of them.
        recipes: index -> recipe of a whole run.
        groups: index -> experts merged together.
        group: [M] group of each merge.
        seed: [M] seed of each merge.
        kind: [M] ``uniform``, ``method``, ``alone``, ``mixed`` or ``subset``.
        method: [M] merge operator.
        coefficients: [M, N].
        figures: name of a figure -> [M, N].
        traces: (seed, recipe, task) -> displacement trace of the whole run.
        experts: (seed, recipe, task, step) -> figures of the expert on its own task.
        outcomes: (seed, recipe, task) -> outcome of the run.
        joint: rows of joint training.
        metadata: what ``suite.json`` holds.
    """

    name: str
    tasks: tuple[str, ...]
    recipes: Mapping[int, Recipe]
    groups: Mapping[int, Group]
    group: IntArray
    seed: IntArray
    kind: NDArray[np.str_]
    method: NDArray[np.str_]
    coefficients: FloatArray
    figures: Mapping[str, FloatArray]
    traces: Mapping[tuple[int, int, str], DisplacementTrace]
    experts: Mapping[tuple[int, int, str, int], Mapping[str, float]]
    outcomes: Mapping[tuple[int, int, str], str]
    joint: tuple[Mapping[str, float], ...]
    metadata: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.group)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds that were measured."""
        return tuple(int(seed) for seed in self.metadata["seeds"])

    @property
    def max_steps(self) -> int:
        """Longest run, K_max."""
        return int(self.metadata["max_steps"])

    @property
    def full_fine_tune(self) -> float:
        """Units of one full fine-tune of all tasks."""
        return full_fine_tune_units(len(self.tasks), self.max_steps)

    def record(self, seed: int) -> Mapping[str, Any]:
        """What ``suite.json`` says of a seed."""
        if str(seed) not in self.metadata["seeds"]:
            raise ValueError(f"seed={seed} is not in suite {self.name!r}; its seeds are {self.seeds}")
        return dict(self.metadata["seeds"][str(seed)])

    def constants(self, seed: int) -> Constants:
        """Constants at x_0."""
        return Constants.from_json(self.record(seed)["constants"])

    def num_samples(self, seed: int) -> dict[str, int]:
        """Training samples of each task."""
        return {name: int(value) for name, value in self.record(seed)["num_samples"].items()}

    def initial(self, seed: int, figure: str = "test") -> FloatArray:
        """A figure of x_0 on every task, [N]."""
        return np.array([self.record(seed)["initial"][name][figure] for name in self.tasks], dtype=np.float64)

    def evaluation_size(self, seed: int, figure: str) -> int:
        """Samples a task behind a figure: ``probe``, ``validation``, ``test`` or ``train``."""
        return int(self.record(seed)["evaluation"][figure])

    def rows(self, seed: int, kinds: Sequence[str] = ("uniform",)) -> IntArray:
        """Merges of a seed."""
        return np.flatnonzero((self.seed == seed) & np.isin(self.kind, list(kinds)))

    def plan(self, row: int) -> Plan:
        """The plan that a merge carries out."""
        group = self.groups[int(self.group[row])]
        members = zip(self.tasks, group.recipes, group.steps, strict=True)
        return Plan(
            recipes={name: self.recipes[recipe].replace(steps=steps) for name, recipe, steps in members},
            coefficients=dict(zip(self.tasks, self.coefficients[row].tolist(), strict=True)),
            method=str(self.method[row]),
        )

    def goal(self, rows: IntArray, figure: str = "test") -> FloatArray:
        """Mean risk over tasks of some merges."""
        return np.asarray(self.figures[figure][rows].mean(axis=1))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """Plans that advice chooses from, with what they really give.

    Attributes:
        rows: [C] rows of the suite.
        plans: C plans.
        training_cost: [C] units of training each.
        validation: [C] goal on validation samples.
        test: [C] goal on test samples.
    """

    rows: IntArray
    plans: tuple[Plan, ...]
    training_cost: FloatArray
    validation: FloatArray
    test: FloatArray

    def __len__(self) -> int:
        return len(self.rows)


def candidate_plans(suite: Suite, seed: int, kinds: Sequence[str] = ("uniform",)) -> Candidates:
    """Candidate plans of a seed; equal recipes with a common coefficient by default."""
    rows = suite.rows(seed, kinds)
    plans = tuple(suite.plan(int(row)) for row in rows)
    return Candidates(
        rows=rows,
        plans=plans,
        training_cost=np.array([plan.training_cost() for plan in plans], dtype=np.float64),
        validation=suite.goal(rows, "validation"),
        test=suite.goal(rows, "test"),
    )


def evaluation_units(suite: Suite, seed: int, figure: str = "validation") -> float:
    """Units of evaluating one merge on all tasks."""
    return len(suite.tasks) * suite.evaluation_size(seed, figure) * FORWARD_UNITS


def load_suite(path: Path | str) -> Suite:
    """Read a suite's folder.

    Raises:
        ValueError: if it is no suite, or of another version.
    """
    path = Path(path)
    if not (path / "suite.json").exists():
        raise ValueError(f"path={str(path)!r} holds no suite.json; make the suite with benchmarks/make_suite.py first")
    metadata = read_json(path / "suite.json")
    if metadata.get("version") != SUITE_VERSION:
        raise ValueError(
            f"version={metadata.get('version')!r} of suite {path.name!r} is not {SUITE_VERSION}; make the suite again"
        )
    tasks = tuple(metadata["tasks"])
    recipes = {row["recipe"]: _recipe(row) for row in read_table(path / "recipes.csv.gz")}
    groups = {row["group"]: _group(row, tasks) for row in read_table(path / "groups.csv.gz")}
    merges = read_table(path / "merges.csv.gz")

    def block(prefix: str) -> FloatArray:
        return np.array([[row[f"{prefix}_{task}"] for task in tasks] for row in merges], dtype=np.float64)

    return Suite(
        name=path.name,
        tasks=tasks,
        recipes=recipes,
        groups=groups,
        group=np.array([row["group"] for row in merges], dtype=np.int64),
        seed=np.array([groups[row["group"]].seed for row in merges], dtype=np.int64),
        kind=np.array([row["kind"] for row in merges]),
        method=np.array([row["method"] for row in merges]),
        coefficients=block("coefficient"),
        figures={figure: block(figure) for figure in FIGURES},
        traces=_traces(read_table(path / "traces.csv.gz"), recipes),
        experts={(r["seed"], r["recipe"], r["task"], r["step"]): r for r in read_table(path / "experts.csv.gz")},
        outcomes={(r["seed"], r["recipe"], r["task"]): r["outcome"] for r in read_table(path / "runs.csv.gz")},
        joint=tuple(read_table(path / "joint.csv.gz")),
        metadata=metadata,
    )


def read_table(path: Path) -> list[dict[str, Any]]:
    """Rows of a compressed CSV file; whole numbers, numbers and text are told apart, an empty cell is ``None``."""
    if not path.exists():
        raise ValueError(f"path={str(path)!r} is missing; make the suite again")
    with gzip.open(path, "rt", newline="") as file:
        reader = csv.DictReader(file)
        return [{name: _value(name, cell) for name, cell in row.items()} for row in reader]


def _value(name: str, cell: str) -> Any:
    if name in TEXT_COLUMNS:
        return cell
    if cell == "":
        return None
    try:
        return int(cell)
    except ValueError:
        return float(cell)


def _recipe(row: Mapping[str, Any]) -> Recipe:
    return Recipe.from_json({name: value for name, value in row.items() if name != "recipe"})


def _group(row: Mapping[str, Any], tasks: Sequence[str]) -> Group:
    gram = np.full((len(tasks), len(tasks)), math.inf)
    for i, first in enumerate(tasks):
        for j, second in enumerate(tasks[i:], start=i):
            gram[i, j] = gram[j, i] = float(row[f"gram_{first}_{second}"])
    return Group(
        seed=row["seed"],
        recipes=tuple(row[f"recipe_{task}"] for task in tasks),
        steps=tuple(row[f"steps_{task}"] for task in tasks),
        gram=gram,
    )


def _traces(
    rows: Sequence[Mapping[str, Any]], recipes: Mapping[int, Recipe]
) -> dict[tuple[int, int, str], DisplacementTrace]:
    by_run: dict[tuple[int, int, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_run.setdefault((row["seed"], row["recipe"], row["task"]), []).append(row)
    return {
        (seed, recipe, task): DisplacementTrace(
            task=task,
            recipe=recipes[recipe],
            seed=seed,
            steps=np.array([row["step"] for row in found]),
            squared_displacements=np.array([row["squared_displacement"] for row in found], dtype=np.float64),
            losses=np.array([row["loss"] for row in found], dtype=np.float64),
        )
        for (seed, recipe, task), found in by_run.items()
    }


def is_linear(suite: Suite) -> NDArray[np.bool_]:
    """[M] whether a merge is task arithmetic."""
    return np.asarray(suite.method == LINEAR_METHOD)
