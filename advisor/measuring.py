"""The measuring stages of a workspace: constants, range test and probes, each within its share of the budget."""

from __future__ import annotations

from advisor.observations import ProbeData
from advisor.probe_session import run_probes
from advisor.probing import LINEAR_METHOD, design_probes
from advisor.settling import Settling
from advisor.unfinished import unfinished
from advisor.workspace import BEFORE_ADVICE, CONSTANTS_NAME, RANGE_TEST_NAME, Workspace
from estimators.constants import Constants
from estimators.joint_training import join_tasks
from estimators.measuring import measure_constants
from estimators.range_test import run_range_test
from estimators.recipe import Optimizer
from estimators.sampling import stable_seed

CONSTANTS_SHARE = 0.15  # of the budget before advice, at most
RANGE_TEST_SHARE = 0.04
RANGE_TEST_BATCH = 16
RANGE_TEST_STEPS = (20, 60)
OTHER_METHODS = ("ties",)  # measured beside the linear merge where merge.method is auto


def measure_project(ws: Workspace) -> None:
    """Measure and store the constants of every task."""
    objectives, tasks = ws.objectives, ws.tasks
    ws.progress("constants", 0, 1)
    with ws.spending("constants") as spending, unfinished(ws, "constants", spending) as kept:
        constants = measure_constants(
            objectives,
            tasks,
            task_weights=ws.goal.shares,
            seed=stable_seed(ws.project.seed, "constants") % 2**31,
            meter=spending.meter,
            max_units=CONSTANTS_SHARE * ws.advice_budget,
            kept=kept,
        )
        ws.run.write_json(CONSTANTS_NAME, {"constants": constants.to_json(), "spent": spending.spent()})
    ws.progress("constants", 1, 1)


def range_test_project(ws: Workspace) -> None:
    """Do and store a learning-rate range test on all tasks at once."""
    tasks, backbone = ws.tasks, ws.prepared.backbone
    rates = dict(ws.project.search.learning_rate)
    highest = rates["sgd"][1] if "sgd" in rates else 1.0
    objective, pool = join_tasks(backbone, tasks, ws.goal.shares)
    batch = min(RANGE_TEST_BATCH, len(pool))
    affordable = int(RANGE_TEST_SHARE * ws.advice_budget / batch)
    with ws.spending("range test") as spending, unfinished(ws, "range test", spending) as kept:
        test = run_range_test(
            objective,
            pool,
            highest=highest,
            batch_size=batch,
            steps=min(max(affordable, RANGE_TEST_STEPS[0]), RANGE_TEST_STEPS[1]),
            seed=stable_seed(ws.project.seed, "range test") % 2**31,
            meter=spending.meter,
            snapshots=kept,
        )
        found = {"suggestion": test.suggestion, "rates": test.rates.tolist(), "losses": test.losses.tolist()}
        ws.run.write_json(RANGE_TEST_NAME, {**found, "spent": spending.spent()})


def probe_project(ws: Workspace, constants: Constants) -> ProbeData:
    """Run the probes that the budget pays for."""
    costs = ws.costs()
    spent = sum(costs.get(name, 0.0) for name in BEFORE_ADVICE if name != "probes")
    search = ws.project.search
    rates: dict[Optimizer, tuple[float, float]] = dict(search.learning_rate)
    design = design_probes(
        constants,
        rates=rates,
        batch_range=search.batch_size,
        max_steps=search.steps[1],
        budget=ws.advice_budget - spent,
        validation_samples=min(len(task.validation) for task in ws.tasks.values()),
        methods=methods_of(ws),
    )
    return ProbeData.of(constants, run_probes(ws, design, Settling(design, search, constants, ws.goal)))


def methods_of(ws: Workspace) -> tuple[str, ...]:
    """Merge methods that the advice may choose from; the linear merge is always probed."""
    method = ws.project.merge.method
    if method == "auto":
        return (LINEAR_METHOD, *OTHER_METHODS)
    return (method,)
