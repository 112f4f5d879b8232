r"""Scores the risk model on development tables: probe rows are replayed, long rows are predicted.

    python -m benchmarks.develop_risk_model TABLE.csv SUITE ...

For each table or suite and probe design: fit on its rows, predict every row at least 4 times longer, print Spearman
overall, in the useful region (better than x_0) and in its worst stratum, regret of the best-looking row, coverage and
width of the 90 % interval, and the mean log error there.  Exploration tables carry test risks of one seed and equal
recipes; they are for forming ideas, never for reporting.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from advisor.observations import MergeObservation, ProbeData
from advisor.plan import Plan
from advisor.probing import MergePoint, further_merges
from advisor.risk_model import RiskModel
from benchmarks.suite_format import Suite, load_suite
from benchmarks.suite_replay import ProbeRequest, replay_probes
from estimators.constants import Constants, Estimate, TaskConstants
from estimators.recipe import Recipe

TASKS = ("digits-lo", "digits-hi", "fashion-rot", "fashion-flip")
INITIAL_RISK = (0.4292, 0.6541, 0.7346, 0.7596)
VARIANCE = (489.0, 811.0, 262.0, 224.0)
CURVATURE = (184.0, 201.0, 60.6, 47.8)
SQUARED_GRADIENT = (0.862, 1.529, 0.328, 0.305)
GRAM = {(0, 1): 0.263, (0, 2): -0.036, (0, 3): 0.031, (1, 2): 0.001, (1, 3): 0.057, (2, 3): -0.045}
PARAMETERS = 33_000
FLOATS = NDArray[np.float64]


def exploration_constants() -> Constants:
    """The constants of the exploration tables (shared with both)."""

    def exact(value: float, spread: float = 0.05) -> Estimate:
        return Estimate(value=value, low=value - spread * abs(value), high=value + spread * abs(value))

    tasks = {
        name: TaskConstants(
            initial_risk=exact(INITIAL_RISK[i], 0.0),
            initial_gradient_norm=exact(SQUARED_GRADIENT[i] ** 0.5),
            gradient_variance=exact(VARIANCE[i]),
            top_curvature=exact(CURVATURE[i]),
        )
        for i, name in enumerate(TASKS)
    }
    gram = [[exact(SQUARED_GRADIENT[i] if i == j else GRAM[min(i, j), max(i, j)]) for j in range(4)] for i in range(4)]
    return Constants(
        tasks=tasks,
        num_samples=dict.fromkeys(TASKS, 2000),
        num_classes=dict.fromkeys(TASKS, 5),
        num_parameters=PARAMETERS,
        gradient_gram=tuple(tuple(row) for row in gram),
    )


def exploration_rows(path: Path, num_samples: int = 2000) -> list[MergeObservation]:
    """Every row of an exploration table with ``num_samples`` training samples, as an observation."""
    rows = []
    with path.open() as file:
        for row in csv.DictReader(file):
            if int(row["num_samples"]) != num_samples:
                continue
            recipe = Recipe(
                learning_rate=float(row["learning_rate"]),
                batch_size=int(row["batch_size"]),
                steps=int(row["steps"]),
                optimizer="adamw" if row["optimizer"] == "adamw" else "sgd",
                num_samples=num_samples,
            )
            risks = {name: float(row[f"merged_risk_{name}"]) for name in TASKS}
            initial = dict(zip(TASKS, INITIAL_RISK, strict=True))
            rows.append(
                MergeObservation(
                    plan=Plan.uniform(TASKS, recipe, float(row["coefficient"])),
                    risks=risks,
                    initial_risks=initial,
                    num_samples=1000,
                    # About the paired standard error on 1 000 samples: grows with the change.
                    noise={t: 0.5 * (abs(risks[t] - initial[t]) / 1000) ** 0.5 + 0.001 for t in TASKS},
                    squared_displacements={name: float(row[f"displacement_{name}"]) ** 2 for name in TASKS},
                )
            )
    return rows


def knobs(rows: list[MergeObservation]) -> dict[str, FLOATS]:
    """Knobs of rows with equal recipes, [M] each."""
    recipes = [next(iter(row.plan.recipes.values())) for row in rows]
    return {
        "learning_rate": np.array([r.learning_rate for r in recipes]),
        "batch_size": np.array([float(r.batch_size) for r in recipes]),
        "steps": np.array([float(r.steps) for r in recipes]),
        "coefficient": np.array([next(iter(row.plan.coefficients.values())) for row in rows]),
    }


def designs(rates: list[float]) -> dict[str, Callable[[dict[str, FLOATS]], NDArray[np.bool_]]]:
    """Probe designs, from rich to lean; ``rates`` are three learning rates from low to high."""
    low, mid, high = rates

    def at(k: dict[str, FLOATS], rate: float, batch: float) -> NDArray[np.bool_]:
        return np.asarray(np.isclose(k["learning_rate"], rate) & (k["batch_size"] == batch))

    def few(k: dict[str, FLOATS], last: float) -> NDArray[np.bool_]:
        """The coefficients of a probe: five at its end, two at a quarter of it."""
        end = np.isin(k["coefficient"], (0.25, 0.5, 1.0, 2.0, 3.0, 4.0)) & (k["steps"] == last)
        early = np.isin(k["coefficient"], (1.0, 3.0, 4.0)) & (k["steps"] == last / 4)
        return np.asarray(end | early)

    return {
        "all, 40 steps": lambda k: (k["steps"] <= 40) & (k["learning_rate"] <= 3 * high),
        "4 probes, b 32 of 40 steps, b 8 of 40": lambda k: (
            few(k, 40) & (at(k, low, 32) | at(k, mid, 32) | at(k, high, 32) | at(k, mid, 8))
        ),
        "4 probes, b 32 of 20 steps, b 8 of 80": lambda k: (
            ((few(k, 20) | (k["steps"] == 20)) & (at(k, low, 32) | at(k, mid, 32) | at(k, high, 32)))
            | (few(k, 80) & at(k, mid, 8))
        ),
        "3 probes, b 32, 40 steps": lambda k: few(k, 40) & (at(k, low, 32) | at(k, mid, 32) | at(k, high, 32)),
        "2 probes, b 8 and 32, 40 steps": lambda k: few(k, 40) & (at(k, mid, 8) | at(k, high, 32)),
    }


def worst_stratum(predicted: FLOATS, measured: FLOATS, k: dict[str, FLOATS]) -> tuple[float, str]:
    """Lowest Spearman with one knob fixed, over strata of at least 15 rows; 1 if there is none."""
    worst, where = 1.0, "-"
    for knob, values in k.items():
        for value in np.unique(values):
            mask = values == value
            if mask.sum() >= 15:
                rho = float(spearmanr(predicted[mask], measured[mask])[0])
                if rho < worst:
                    worst, where = rho, f"{knob}={value:g}"
    return worst, where


def suite_design(suite: Suite, steps: int) -> list[ProbeRequest]:
    """Probes as the product makes them: for each optimizer three rates at the small batch, one at the large."""
    requests = []
    recipes = [recipe for recipe in suite.recipes.values() if recipe.schedule == "constant"]
    for optimizer in dict.fromkeys(recipe.optimizer for recipe in recipes):
        mine = [recipe for recipe in recipes if recipe.optimizer == optimizer]
        batches = sorted({recipe.batch_size for recipe in mine})
        for place, batch in enumerate(batches[:2]):
            rates = sorted({r.learning_rate for r in mine if r.batch_size == batch})
            middle = len(rates) // 2
            chosen = rates[max(0, middle - 1) : middle + 2] if place == 0 else rates[middle : middle + 1]
            for rate in chosen:
                recipe = next(r for r in mine if r.batch_size == batch and r.learning_rate == rate)
                alone = suite.tasks[len(requests) % len(suite.tasks)]
                recipe = recipe.replace(steps=steps)
                points = [MergePoint(step=steps, coefficient=value) for value in (0.35, 1.0, 3.0)]
                points += further_merges(recipe, len(suite.tasks), best=0.5, alone=alone)
                requests.append(ProbeRequest(recipe=recipe, points=tuple(points)))
    return requests


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """One fit and what it is judged on.

    Attributes:
        name: table or suite, seed and design.
        probes: what the model is fitted on.
        plans: M longer plans.
        risk: [M, N] their measured test risk.
        initial: [N] test risk of x_0.
        knobs: knob -> [M].
    """

    name: str
    probes: ProbeData
    plans: list[Plan]
    risk: FLOATS
    initial: FLOATS
    knobs: dict[str, FLOATS]


def exploration_cases(path: Path, num_samples: int = 2000) -> list[Case]:
    """One case for each design."""
    rows = exploration_rows(path, num_samples)
    k = knobs(rows)
    adaptive = next(iter(rows[0].plan.recipes.values())).optimizer == "adamw"
    largest = 3.0 if adaptive else 1.0
    cases = []
    for name, design in designs([1e-4, 3e-4, 1e-3] if adaptive else [0.003, 0.01, 0.03]).items():
        probe = design(k)
        long = (k["steps"] >= 4 * k["steps"][probe].max()) & (k["coefficient"] <= largest)
        chosen = tuple(row for row, used in zip(rows, probe, strict=True) if used)
        far = [row for row, used in zip(rows, long, strict=True) if used]
        cases.append(
            Case(
                name=f"{path.stem} n={num_samples}, {name}",
                probes=ProbeData(constants=exploration_constants(), merges=chosen),
                plans=[row.plan for row in far],
                risk=np.array([list(row.risks.values()) for row in far]),
                initial=np.array(INITIAL_RISK),
                knobs={name: values[long] for name, values in k.items()},
            )
        )
    return cases


def suite_cases(path: Path, lengths: tuple[int, ...] = (20, 40)) -> list[Case]:
    """One case for each seed and length of probes of a stored suite."""
    suite = load_suite(path)
    cases = []
    for seed in suite.seeds:
        for steps in lengths:
            replay = replay_probes(suite, seed, suite_design(suite, steps))
            rows = suite.rows(seed, ("uniform", "mixed", "subset"))
            plans = [suite.plan(int(row)) for row in rows]
            length = np.array([min(r.steps for r in plan.recipes.values()) for plan in plans])
            rows = rows[length >= 4 * replay.longest]
            plans = [plan for plan, k in zip(plans, length, strict=True) if k >= 4 * replay.longest]
            first = [next(iter(plan.recipes.values())) for plan in plans]
            cases.append(
                Case(
                    name=f"{suite.name} seed {seed}, {len(replay.probes)} probes of {steps} steps",
                    probes=replay.data,
                    plans=plans,
                    risk=suite.figures["test"][rows],
                    initial=suite.initial(seed, "test"),
                    knobs={
                        "learning_rate": np.array([r.learning_rate for r in first]),
                        "batch_size": np.array([float(r.batch_size) for r in first]),
                        "steps": np.array([float(r.steps) for r in first]),
                        "coefficient": np.array([max(plan.coefficients.values()) for plan in plans]),
                    },
                )
            )
    return cases


def judge(case: Case) -> dict[str, float | str]:
    """Fit on the probes, score the longer plans."""
    start = time.perf_counter()
    model = RiskModel().fit(case.probes)
    seconds = time.perf_counter() - start
    prediction = model.predict(case.plans, return_interval=True)
    goal, low, high = prediction.goal, prediction.goal_low, prediction.goal_high
    measured, initial = case.risk.mean(axis=1), float(case.initial.mean())
    useful = measured < initial
    if useful.sum() < 3:
        return {"useful rows": f"{useful.sum()} of {len(useful)}", "all": float(spearmanr(goal, measured)[0])}
    worst, where = worst_stratum(goal[useful], measured[useful], {n: v[useful] for n, v in case.knobs.items()})
    best = int(np.argmin(goal))
    # Test samples have another risk at x_0 than the validation samples that the model knows: no error of the form.
    error = np.log(goal / measured * case.initial.mean() / prediction.initial_risk.mean())[useful]
    inside = (low <= measured) & (measured <= high)
    width = (high - low)[useful] / (initial - measured.min())
    return {
        "all": float(spearmanr(goal, measured)[0]),
        "useful": float(spearmanr(goal[useful], measured[useful])[0]),
        "worst": worst,
        "regret": float((measured[best] - measured.min()) / (initial - measured.min())),
        "cover": float(inside.mean()),
        "cover useful": float(inside[useful].mean()),
        "width": float(np.median(width)),
        "bias": float(error.mean()),
        "error": float(np.abs(error).mean()),
        "fit s": seconds,
        "where": where,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", type=Path, help="exploration tables (CSV) and folders of stored suites")
    parser.add_argument("--num-samples", type=int, default=2000, help="rows of exploration tables to use")
    arguments = parser.parse_args()
    pooled = []
    for path in arguments.sources:
        for case in suite_cases(path) if path.is_dir() else exploration_cases(path, arguments.num_samples):
            scores = judge(case)
            text = "  ".join(f"{n} {v:.2f}" if isinstance(v, float) else f"{n} {v}" for n, v in scores.items())
            print(f"{case.name:66} {text}")
            if "regret" in scores:
                pooled.append([value for value in scores.values() if isinstance(value, float)])
    print(f"{'mean':66} " + "  ".join(f"{value:.3f}" for value in np.mean(pooled, axis=0)))


if __name__ == "__main__":
    main()
