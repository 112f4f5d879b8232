r"""A workspace: one project, its run directory, and what every stage needs of both.

Stages (``advisor.pipeline``) take a workspace, do their part once, keep it in the run directory, and return what is
stored when asked again.  Every stored piece carries its own cost, so costs are added up from what is there: a run that
was killed and taken up again counts, and decides, like one that was not.  Work that was cut off is told in an event;
what it keeps until it is taken up again is ``advisor.unfinished``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from advisor.engine import EngineSettings, Pool
from advisor.goal import Goal
from advisor.interrupts import Interrupts
from advisor.progress import Progress, both, event_progress, silent
from advisor.project import Project, load_project
from advisor.runs import RunDirectory, is_run
from estimators.cost import CostMeter, full_fine_tune_units

if TYPE_CHECKING:
    from advisor.preparing import Prepared
    from estimators.objectives import ClassificationObjective
    from estimators.tasks import Task

RUNS_ROOT = Path("runs")
PROJECT_NAME = "project.yaml"
HEADS_NAME = "heads.json"
CONSTANTS_NAME = "constants.json"
RANGE_TEST_NAME = "range_test.json"
PROBES_NAME = "probes.jsonl"
EXPERTS_NAME = "experts.json"
VALIDATION_NAME = "validation.json"
DIVERGED_NAME = "diverged_experts.json"
MERGES_NAME = "measured_merges.json"
COSTED = (HEADS_NAME, CONSTANTS_NAME, RANGE_TEST_NAME, DIVERGED_NAME, EXPERTS_NAME, VALIDATION_NAME, MERGES_NAME)
STEPLESS = ("heads", "constants", "range test")  # work of seconds without a question between its steps
BEFORE_ADVICE = ("heads", "constants", "range test", "probes")


@dataclass(slots=True, kw_only=True)
class Spending:
    """What one piece of work spends.

    Attributes:
        what: its name.
        meter: counts units.
        seconds_before: wall seconds of earlier processes whose work is gone on from.
    """

    what: str
    meter: CostMeter = field(default_factory=CostMeter)
    seconds_before: float = 0.0
    _started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Wall seconds since it began, and those of earlier processes whose work is gone on from."""
        return self.seconds_before + time.perf_counter() - self._started

    def spent(self) -> dict[str, dict[str, float]]:
        """The ``spent`` entry of a stored piece: purpose -> units and seconds."""
        return {self.what: {"units": self.meter.units, "seconds": self.seconds}}


class CostLimitReached(RuntimeError):
    """The next step would spend more than ``max_cost``."""


@dataclass(kw_only=True)
class Workspace:
    """One project and its run.

    Attributes:
        project: the project.
        run: its run directory.
        progress: told about every step of long work.
        interrupts: answers whether to go on.
        device: overrides the project's device.
        max_cost: most units that the whole command may spend, or ``None``.
        allow_unreadable: whether images that cannot be read are left out instead of refused.
        engine: where independent work is done.
        storage: database URL of studies, or ``None`` for a journal in the run.
    """

    project: Project
    run: RunDirectory
    progress: Progress = silent
    interrupts: Interrupts = field(default_factory=Interrupts)
    device: str | None = None
    max_cost: float | None = None
    allow_unreadable: bool = False
    engine: EngineSettings = field(default_factory=EngineSettings)
    storage: str | None = None
    _depth: int = 0
    _workers: Pool | None = None

    @property
    def goal(self) -> Goal:
        """The project's goal."""
        objective = self.project.objective
        return Goal(weights=self.project.task_weights(), kind=objective.goal, max_drop=objective.max_drop)

    @property
    def full_fine_tune(self) -> float:
        """Units of one full fine-tune of all tasks."""
        return full_fine_tune_units(len(self.project.tasks), self.project.search.steps[1])

    @property
    def advice_budget(self) -> float:
        """Units that everything before the advice may cost."""
        budget = self.project.budget
        limits = [budget.probe_share * self.full_fine_tune]
        limits += [limit for limit in (budget.max_cost, self.max_cost) if limit is not None]
        return min(limits)

    @cached_property
    def prepared(self) -> Prepared:
        """Backbone and tasks with heads, made or loaded on first use."""
        from advisor.preparing import PIECES, prepare

        for name in PIECES:
            if self.run.condition(name) == "damaged":
                self.run.discard(name)
        with self.spending("heads") as spending:
            prepared = prepare(
                self.project,
                self.run.path,
                device=self.device or self.project.device,
                meter=spending.meter,
                allow_unreadable=self.allow_unreadable,
                may_calm_threads=self._depth > 0,
            )
            if not self.run.has(HEADS_NAME):
                self.run.write_json(HEADS_NAME, {"spent": spending.spent(), "notes": list(prepared.notes)})
        for name in PIECES:
            if not self.run.has(name):
                self.run.record(name)
        for text in prepared.mended:
            self.run.event("mended", text=text)
            self.progress("mended", 1, 1, what=text)
        return prepared

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """Tasks by name, in the project's order."""
        return {task.name: task for task in self.prepared.tasks}

    @cached_property
    def objectives(self) -> dict[str, ClassificationObjective]:
        """Each task's loss."""
        from estimators.objectives import ClassificationObjective

        trained = self.project.heads == "trained"
        return {
            name: ClassificationObjective(self.prepared.backbone, task.fitted_head(), trained_head=trained)
            for name, task in self.tasks.items()
        }

    @property
    def workers(self) -> Pool:
        """The workers of its engine, opened on first use and ended with the session."""
        from advisor.dispatching import open_workers

        if self._workers is None:
            self._workers = open_workers(self)
        return self._workers

    @property
    def num_samples(self) -> dict[str, int]:
        """Training samples of each task."""
        return {name: len(task.train) for name, task in self.tasks.items()}

    def costs(self) -> dict[str, float]:
        """Units of everything stored so far, by purpose, in the order of the path."""
        return {name: float(cell["units"]) for name, cell in self._ledger().items()}

    def seconds(self) -> dict[str, float]:
        """Wall seconds of everything stored so far, by purpose."""
        return {name: float(cell["seconds"]) for name, cell in self._ledger().items()}

    def _ledger(self) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for name in COSTED:
            if self.run.has(name):
                for purpose, cell in self.run.read_json(name).get("spent", {}).items():  # older refits kept none
                    found[purpose] = cell
        records = self.run.read_log(PROBES_NAME).records if self.run.path_of(PROBES_NAME).exists() else ()
        for record in sorted(records, key=lambda record: record.get("number", 0)):  # sums in one order, to the last bit
            cell = found.setdefault("probes", {"units": 0.0, "seconds": 0.0})
            cell["units"] += float(record["cost"])
            cell["seconds"] += float(record["seconds"])
        return found

    @contextmanager
    def session(self, command: str) -> Iterator[None]:
        """Be the run's one writer and catch signals inside the block; blocks may nest."""
        if self._depth:
            yield
            return
        self._depth += 1
        import torch

        from estimators.devices import calm_threads

        threads = torch.get_num_threads()
        try:
            with self.run.writing(command), self.interrupts:
                if "prepared" in self.__dict__:
                    calm_threads(self.prepared.backbone.num_parameters, self.prepared.backbone.device)
                yield
        finally:
            self._depth -= 1
            if self._workers is not None:
                self._workers.close()
                self._workers = None
            torch.set_num_threads(threads)

    @contextmanager
    def spending(self, what: str) -> Iterator[Spending]:
        """Count the units and seconds of one piece of work; that it was cut off, and how far it was, is told."""
        spending = Spending(what=what)
        try:
            with self.interrupts.at_once() if what in STEPLESS else nullcontext():
                yield spending
        except BaseException:
            self.run.event("cut_off", what=what, units=spending.meter.units, seconds=spending.seconds)
            raise

    def require_affordable(self, units: float, what: str) -> None:
        """Refuse a step that would exceed ``max_cost``.

        Raises:
            CostLimitReached: naming what is left and what the step takes.
        """
        if self.max_cost is None:
            return
        left = self.max_cost - sum(self.costs().values())
        if units > left:
            raise CostLimitReached(
                f"max_cost={self.max_cost:.0f} leaves {max(left, 0):.0f} per-sample gradients, {what} takes "
                f"{units:.0f}; raise --max-cost and run the command again: everything done so far is kept"
            )


def open_workspace(
    source: Project | Path | str,
    out: Path | str | None = None,
    *,
    device: str | None = None,
    seed: int | None = None,
    max_cost: float | None = None,
    time_limit: float | None = None,
    progress: Progress = silent,
    allow_unreadable: bool = False,
    engine: EngineSettings | None = None,
    storage: str | None = None,
) -> Workspace:
    """A workspace for a project file, a project value, or an existing run directory.

    Args:
        source: project file, ``Project``, or run directory to go on with.
        out: run directory; by default a new one below ``runs/`` (for a run directory as source: that one).
        device: overrides the project's device.
        seed: overrides the project's seed.
        max_cost: most units that may be spent in all.
        time_limit: seconds; by default the project's.
        progress: told about every step of long work.
        allow_unreadable: leave out images that cannot be read.
        engine: where probes, experts and merged evaluations are computed; by default in this process.
        storage: database URL of studies; by default a journal in the run.

    Raises:
        ValueError: for a bad project, or a run directory that belongs to another project.
    """
    is_path = isinstance(source, Path | str)
    if is_path and is_run(Path(str(source))):
        run = RunDirectory.open(Path(str(source)), mend=True)
        if run.condition(PROJECT_NAME) == "damaged":
            raise ValueError(
                f"{PROJECT_NAME} of run {run.id!r} is damaged; run the command on your project file with "
                f"--out {run.path}, which writes it again and keeps the rest"
            )
        project = load_project(run.path_of(PROJECT_NAME))
    else:
        project = load_project(Path(str(source))) if is_path else source  # type: ignore[assignment]
        name = Path(str(source)).stem if is_path else "project"
        run = _open_or_create(project, name, out)
    if seed is not None and seed != project.seed:
        project = _with_seed(project, seed, run)
    if not run.has(PROJECT_NAME):
        if run.condition(PROJECT_NAME) == "damaged":
            run.event("mended", text=f"{PROJECT_NAME} was damaged and written again")
        run.write_text(PROJECT_NAME, project.to_yaml(moved=True))
    limit = time_limit if time_limit is not None else project.budget.time_limit
    return Workspace(
        project=project,
        run=run,
        progress=both(progress, event_progress(run)),
        interrupts=Interrupts(run.stop_requested, time_limit=limit),
        device=device,
        max_cost=max_cost,
        allow_unreadable=allow_unreadable,
        engine=engine or EngineSettings(),
        storage=storage,
    )


def _open_or_create(project: Project, name: str, out: Path | str | None) -> RunDirectory:
    if out is None or not is_run(Path(out)):
        return RunDirectory.create(RUNS_ROOT, name, path=out)
    run = RunDirectory.open(Path(out), mend=True)
    if run.has(PROJECT_NAME):
        stored = load_project(run.path_of(PROJECT_NAME))
        if stored.content_hash() != project.content_hash():
            raise ValueError(
                f"out={str(out)!r} holds a run of another project (other backbone, tasks or seed); "
                "choose another --out, or pass the run directory itself to go on with it"
            )
        if stored.to_yaml() != project.to_yaml():
            run.write_text(PROJECT_NAME, project.to_yaml(moved=True))
    return run


def _with_seed(project: Project, seed: int, run: RunDirectory) -> Project:
    if run.has(PROJECT_NAME):
        raise ValueError(
            f"seed={seed} differs from the run's seed {project.seed}; a run keeps its seed: choose another --out"
        )
    changed = project.model_copy(update={"seed": seed})
    changed._origin = project._origin
    return changed
