r"""What the fitted effective bound says of a unit, from its short merges alone.

The risk model is fitted on the validation figures of merges of at most ``PROBE_STEPS`` = 40 steps (20 for SGD), as
cheap probes would give them; claims are judged on test figures of merges at least twice, mostly four to eight times, as
long.  Predicted are every stored merge, the risk over steps for each method and coefficient, the rate at which the
simple average of SGD experts gets worse than x_0, and the local exponents at the base plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from advisor.bound import worst_case
from advisor.bound_constants import from_constants
from advisor.observations import DisplacementTrace, MergeObservation, ProbeData
from advisor.plan import FloatArray, Plan, PlanTable
from advisor.probing import LINEAR_METHOD
from advisor.risk_model import RiskModel
from benchmarks.claim_design import BATCH, COEFFICIENTS, MAIN, METHOD_COEFFICIENTS, PROBE_STEPS
from benchmarks.claim_merging import rounded
from benchmarks.claim_tables import UnitTable
from estimators.constants import Constants
from estimators.recipe import Recipe

SGD_PROBES = ("sgd-0.125", "sgd-0.5", "sgd-2", "sgd-b32")  # what the model sees of the sweep
SGD_PROBE_STEPS = 20
PROBED_COEFFICIENTS = (0.25, 1.0, 2.0, 3.0)
METHOD_PROBES = (0.25, 0.5, 1.0)
WORSE = 1.1  # the edge is where the simple average has so many times x_0's risk
STEP_GRID = np.unique(np.geomspace(10, 2560, 81).round().astype(int))
RATE_GRID = np.geomspace(1 / 16, 32, 109)  # of 2/L


def plan_of(table: UnitTable, row: Mapping[str, Any]) -> Plan:
    """The plan that a stored merge carries out."""
    recipes = {task: table.recipe(run).replace(steps=int(step)) for task, (run, step) in row["members"].items()}
    return Plan(recipes=recipes, coefficients=dict(row["coefficients"]), method=row["method"])


def is_probe(table: UnitTable, row: Mapping[str, Any]) -> bool:
    """Whether the model may be fitted on a merge."""
    if row["kind"] not in ("linear", "method", "probe-alone", "eight"):
        return False
    for run, step in row["members"].values():
        recipe = table.recipe(run)
        if recipe.optimizer == "sgd" and (run not in SGD_PROBES or step > SGD_PROBE_STEPS):
            return False
        if step > PROBE_STEPS or recipe.alignment != "none" or recipe.num_samples is not None:
            return False
    if row["kind"] == "linear":
        return set(row["coefficients"].values()) <= set(PROBED_COEFFICIENTS)
    if row["kind"] == "method":
        return all(step == PROBE_STEPS for _, step in row["members"].values()) and set(
            row["coefficients"].values()
        ) <= set(METHOD_PROBES)
    return True


def fit_model(table: UnitTable) -> RiskModel:
    """The risk model of a unit, for the goal of the main tasks."""
    constants = Constants.from_json(table.data["constants"])
    probes = [row for row in table.data["merges"] if is_probe(table, row)]
    data = ProbeData(
        constants=constants,
        merges=tuple(_observation(table, row) for row in probes),
        traces=tuple(_traces(table, probes)),
    )
    weights = {task: 1.0 if task in MAIN else 0.0 for task in constants.names}
    return RiskModel(task_weights=weights, seed=0).fit(data)


def _observation(table: UnitTable, row: Mapping[str, Any]) -> MergeObservation:
    figures, initial, gram = row["figures"], table.data["initial"], row["gram"]
    lost = any(values["validation"] is None for values in figures.values())
    return MergeObservation(
        plan=plan_of(table, row),
        risks={task: np.inf if lost else values["validation"] for task, values in figures.items()},
        initial_risks={task: initial[task]["validation"] for task in figures},
        num_samples=90,
        noise={task: 0.0 if lost else values["validation_error"] for task, values in figures.items()},
        squared_displacements={} if gram is None else {t: gram[i][i] for i, t in enumerate(row["members"])},
        displacement_gram=None if gram is None else tuple(tuple(line) for line in gram),
        seed=int(table.data["seed"]),
    )


def _traces(table: UnitTable, probes: Sequence[Mapping[str, Any]]) -> list[DisplacementTrace]:
    """Displacements of the probed runs up to the end of the probe."""
    longest: dict[str, int] = {}
    for row in probes:
        for run, step in row["members"].values():
            longest[run] = max(longest.get(run, 0), int(step))
    found = []
    for run, end in longest.items():
        for trace in table.data["runs"][run]["runs"]:
            looks = [
                (step, moved, loss)
                for step, moved, loss in zip(
                    trace["steps"], trace["squared_displacements"], trace["losses"], strict=True
                )
                if step <= end
            ]
            if not looks:
                continue
            steps, moved, losses = (np.array(column, dtype=float) for column in zip(*looks, strict=True))
            found.append(
                DisplacementTrace(
                    task=trace["task"],
                    recipe=table.recipe(run).replace(steps=end),
                    seed=int(table.data["seed"]),
                    steps=steps.astype(int),
                    squared_displacements=np.nan_to_num(moved, nan=np.inf),
                    losses=np.nan_to_num(losses, nan=np.inf),
                )
            )
    return found


def goal_of(model: RiskModel, plans: Sequence[Plan], tasks: Sequence[str] = MAIN) -> FloatArray:
    """Predicted mean risk over some tasks, [M]; plans must name the same tasks."""
    prediction = model.predict(plans)
    columns = [prediction.names.index(task) for task in tasks]
    return np.asarray(prediction.task_risk[:, columns].mean(axis=1))


def predict_unit(table: UnitTable) -> dict[str, Any]:
    """Everything that is predicted of a unit; plain values."""
    model = fit_model(table)
    base = table.recipe("base")
    return {
        "probes": sum(is_probe(table, row) for row in table.data["merges"]),
        "rows": [_row(table, model, row) for row in table.data["merges"]],
        "steps": STEP_GRID.tolist(),
        "curves": _curves(model, base),
        "rates": [float(f"{f:.5g}") for f in RATE_GRID],
        "rate_curve": _rate_curve(model, table),
        "edge": [rounded(value) for value in model.edge("sgd", BATCH)],
        "exponents": {
            knob: [rounded(value) for value in values]
            for knob, values in model.elasticities(Plan.uniform(MAIN, base.replace(steps=160), 1 / len(MAIN))).items()
        },
        "worst_case": _worst_case(table),
    }


def _row(table: UnitTable, model: RiskModel, row: Mapping[str, Any]) -> dict[str, Any]:
    if any(table.recipe(run).alignment != "none" for run, _ in row["members"].values()):
        return {"risk": None, "gap": None, "tasks": None}
    prediction = model.predict([plan_of(table, row)])
    columns = [prediction.names.index(task) for task in row["figures"]]
    return {
        "risk": rounded(float(prediction.task_risk[0, columns].mean())),
        "gap": rounded(float(prediction.terms["generalisation"][0, columns].mean())),
        "tasks": [rounded(float(prediction.task_risk[0, column])) for column in columns],
    }


def _curves(model: RiskModel, base: Recipe) -> dict[str, dict[str, list[float | None]]]:
    """Method -> coefficient -> predicted risk over ``STEP_GRID``."""
    values = {LINEAR_METHOD: COEFFICIENTS, **METHOD_COEFFICIENTS}
    curves: dict[str, dict[str, list[float | None]]] = {}
    for method, coefficients in values.items():
        if method not in model.method_shares_:
            continue
        curves[method] = {}
        for value in coefficients:
            plans = [Plan.uniform(MAIN, base.replace(steps=int(k)), value, method) for k in STEP_GRID]
            curves[method][f"{value:g}"] = [rounded(float(risk)) for risk in goal_of(model, plans)]
    return curves


def _rate_curve(model: RiskModel, table: UnitTable) -> list[float | None]:
    recipe = table.recipe("sgd-0.5")
    plans = [
        Plan.uniform(MAIN, recipe.replace(learning_rate=float(f * table.data["edge"])), 1 / len(MAIN))
        for f in RATE_GRID
    ]
    return [rounded(float(risk)) for risk in goal_of(model, plans)]


def _worst_case(table: UnitTable) -> list[dict[str, Any]]:
    """log10 of the worst-case bound and its halves for linear merges of the long runs."""
    constants = Constants.from_json(table.data["constants"])
    weights = np.array([1 / len(MAIN) if task in MAIN else 0.0 for task in constants.names])
    bound = from_constants(constants, weights)
    found = []
    for number, row in enumerate(table.data["merges"]):
        if row["kind"] != "linear" or any(table.recipe(run).alignment != "none" for run, _ in row["members"].values()):
            continue
        plan = plan_of(table, row)
        whole = Plan(
            recipes={task: plan.recipes.get(task, plan.recipes[MAIN[0]]) for task in constants.names},
            coefficients={task: plan.coefficients.get(task, 0.0) for task in constants.names},
        )
        terms = worst_case(bound, PlanTable.from_plans([whole], constants.num_samples))
        values = {name: rounded(float(terms.log10(name)[0])) for name in ("total", "generalisation", "optimization")}
        found.append({"number": number} | values)
    return found
