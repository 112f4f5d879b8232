r"""What tuned coefficients are worth: figure 5 of ``docs/benchmark.md`` on finished experts, and what the tuning costs.

    python -m benchmarks.coefficients --seeds 0 1 2

For every problem (``benchmarks/coefficient_problems.py``) merged *test* risk and accuracy of: x_0, the simple average,
task arithmetic at 0.3, the best single coefficient of a grid (validation labels), TIES and DARE as they come,
AdaMerging (task-wise, validation images without labels; started at 0.3, or lower where that merge is broken), our
coefficients from (a) weights, (b) unlabelled images, (c) five labels a class, (d) validation labels, task-wise and for
layer groups, and 500 trials of TPE and 150 of CMA-ES on the validation risk.

    gap closed = sum of gains over the simple average / sum of the gaps that TPE's best closes     (test accuracy)
                 over the problems where that gap is at least one point

    evaluations  merges measured until the validation risk is within 0.001 nats of what (d) ends at: for (d) those of
                 its search, x_0 and the average included; its verdicts take up to 2 N more, counted beside it

Constants and forms of (a)-(d) were chosen on development problems (``benchmarks/coefficient_problems.py``); never
report those.  How often the reported ones were judged is in ``benchmarks/coefficients_log.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray

from advisor.coefficients import Settings, tune_from_weights, tune_on_data
from advisor.coefficients_evidence import Criterion, labelled
from advisor.coefficients_recombining import layer_groups
from advisor.merging.adamerging import MergeDiverged, tune_by_gradient
from benchmarks.coefficient_problems import FAMILIES, ExpertProblem, make_problem
from estimators.cost import CostMeter
from estimators.objectives import ClassificationObjective, evaluate

FloatArray = NDArray[np.float64]
RESULTS = Path(__file__).parent / "results" / "coefficients.json"
TRIALS = {"TPE": 500, "CMA-ES": 150}
NEAR = 1e-3  # nats
GRID = tuple(round(0.05 * k, 2) for k in range(21))
ADA = {"steps": 100, "learning_rate": 1e-2, "batch": 16}
LABELS_A_CLASS = 5
BEST = "TPE, 500 labelled trials"
EVOLVED = "CMA-ES, 150 labelled trials"
LAYERED = "(d) for each layer group"
OURS = {
    "weights": "(a) weights only",
    "unlabelled": "(b) unlabelled images",
    "few": f"(c) {LABELS_A_CLASS} labels a class",
    "validation": "(d) validation labels",
}


def labelled_criterion(case: ExpertProblem) -> Criterion:
    """The validation risk."""
    problem = case.problem
    evidence = {
        name: labelled(split.labels.numpy(), problem.heads[name].num_classes) for name, split in problem.samples.items()
    }
    return Criterion(evidence=evidence, goal=problem.goal)


def search_by_optuna(
    sampler: Any, risk: Callable[[FloatArray], float], count: int, trials: int
) -> tuple[FloatArray, list[float]]:
    """Best coefficients of a sequential search from the simple average, and the risks of all trials."""
    study = optuna.create_study(sampler=sampler)
    names = [f"c{i}" for i in range(count)]
    study.enqueue_trial(dict.fromkeys(names, 1 / count))

    def objective(trial: optuna.Trial) -> float:
        value = risk(np.array([trial.suggest_float(name, 0.0, 2.0) for name in names]))
        return value if np.isfinite(value) else 100.0

    study.optimize(objective, n_trials=trials)
    return np.array([study.best_params[name] for name in names]), [float(t.value or 0.0) for t in study.trials]


def adamerge(case: ExpertProblem, seed: int) -> FloatArray:
    """Task-wise AdaMerging on validation images: entropy, Adam, small batches."""
    problem, merges = case.problem, case.problem.merges
    rng = np.random.default_rng(seed)
    base = {"all": merges.start}

    def loss_and_gradient(state: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        weights = state["all"]
        point = weights.clone().requires_grad_(True)
        total = 0.0
        for name, split in problem.samples.items():
            rows = torch.from_numpy(rng.choice(len(split), int(ADA["batch"]), replace=False))
            features = merges.backbone.features(point, split.inputs[rows])
            logits = torch.nn.functional.linear(features, problem.heads[name].weight, problem.heads[name].bias)
            loss = torch.special.entr(torch.softmax(logits, 1)).sum(1).mean()
            torch.autograd.backward(loss)
            total += float(loss.detach())
        return total, {"all": point.grad}

    for initial in (0.3, 0.1, 0.03):  # a merge at 0.3 can be broken where one expert went far
        try:
            found = tune_by_gradient(
                base,
                [{"all": vector} for vector in merges.vectors],
                loss_and_gradient,
                granularity="task",
                steps=int(ADA["steps"]),
                learning_rate=ADA["learning_rate"],
                initial=initial,
                bounds=(0.0, 1.0),
            )
        except MergeDiverged:
            continue
        return np.array(found.task_coefficients)
    return np.zeros(len(merges.labels))


def measure_baselines(case: ExpertProblem, seed: int) -> dict[str, Any]:
    """Coefficients and test figures of everything that is not ours, and the samplers' risks trial by trial."""
    problem, count = case.problem, len(case.experts)
    criterion = labelled_criterion(case)

    def risk(row: FloatArray) -> float:
        values = problem.logits(problem.merges.weights(row))
        return criterion.value(values) if np.isfinite(values).all() else float("inf")

    rows: dict[str, Any] = {"x0": np.zeros(count), "simple average": np.full(count, 1 / count)}
    rows["task arithmetic, 0.3"] = np.full(count, 0.3)
    rows["best single coefficient"] = min((np.full(count, c) for c in GRID), key=risk)
    rows["AdaMerging, task-wise"] = adamerge(case, seed)
    traces: dict[str, list[float]] = {}
    samplers = {
        BEST: optuna.samplers.TPESampler(multivariate=True, seed=seed),
        EVOLVED: optuna.samplers.CmaEsSampler(seed=seed, x0={f"c{i}": 1 / count for i in range(count)}),
    }
    for name, sampler in samplers.items():
        rows[name], traces[name] = search_by_optuna(sampler, risk, count, TRIALS[name.split(",")[0]])
    tests = {name: case.test_figures(row.tolist()) for name, row in rows.items()}
    for name, method in (("TIES, its defaults", "ties"), ("DARE, its defaults", "dare")):
        default = {"ties": 1.0, "dare": 0.3}[method]
        tests[name] = case.test_figures([default] * count, method)
    return {
        "coefficients": {name: np.round(row, 4).tolist() for name, row in rows.items()},
        "test": tests,
        "traces": traces,
        "experts_as_single_model": [case.test_figures(np.eye(count)[i].tolist()) for i in range(count)],
        "norms": np.sqrt(np.diag(problem.merges.gram())).round(4).tolist(),
    }


def measure_case(case: ExpertProblem, seed: int, baselines: dict[str, Any]) -> dict[str, Any]:
    """All figures of one problem."""
    rows, tests, cost = dict(baselines["coefficients"]), dict(baselines["test"]), {}
    traces = dict(baselines["traces"])
    for key, name in OURS.items():
        tuned = tune_ours(case, key, seed)
        row = np.array(list(tuned.coefficients.values()))
        rows[name] = np.round(row, 4).tolist()
        tests[name] = case.test_figures(row.tolist())
        cost[name] = {"merges": tuned.merges, "units": tuned.units, "searched": len(tuned.goals)}
        if key == "validation":
            traces[name] = tuned.goals.tolist()
            held = [task.predicted.holds(_test_risk(case, row, task_name)) for task_name, task in tuned.tasks.items()]
            cost[name]["intervals_hold"] = [bool(h) for h in held]
    layered = tune_ours(case, "validation", seed, granularity="group")
    tests[LAYERED] = case.figures(_layered_weights(case, layered))
    cost[LAYERED] = {"merges": layered.merges, "units": layered.units, "groups": len(layered.groups)}
    kept = {name: baselines[name] for name in ("experts_as_single_model", "norms")}
    return {"coefficients": rows, "test": tests, "cost": cost, "evaluations": evaluations(traces), **kept}


def tune_ours(case: ExpertProblem, key: str, seed: int, granularity: Any = "task") -> Any:
    """Our coefficients; the meter starts at 0."""
    if key == "weights":
        return tune_from_weights(case.base, case.experts, Settings())
    labels: Any = {"unlabelled": 0, "few": LABELS_A_CLASS, "validation": "all"}[key]
    problem = replace(case.problem, meter=CostMeter())
    return tune_on_data(problem, Settings(labels=labels, seed=seed, granularity=granularity))


def _layered_weights(case: ExpertProblem, tuned: Any) -> torch.Tensor:
    merges = case.problem.merges
    if not tuned.groups:
        return merges.weights(np.array(list(tuned.coefficients.values())))
    grouped = merges.grouped(layer_groups(merges.backbone))
    return grouped.weights(np.array([list(cells.values()) for cells in tuned.groups.values()]).ravel())


def _test_risk(case: ExpertProblem, row: FloatArray, task: str) -> float:
    problem = case.problem
    objective = ClassificationObjective(problem.merges.backbone, problem.heads[task])
    return evaluate(objective, problem.merges.weights(row), case.tests[task]).risk


def evaluations(traces: dict[str, list[float]]) -> dict[str, Any]:
    """Merges that each search needed to come within ``NEAR`` of what (d) reached; ``None`` where it never did."""
    ours = OURS["validation"]
    goal = min(traces[ours]) + NEAR
    first = {name: next((k + 1 for k, v in enumerate(t) if v <= goal), None) for name, t in traces.items()}
    lowest = {name: min(t) for name, t in traces.items()}
    return {"first": first, "lowest": lowest, "stopped_after": len(traces[ours])}


def summarise(cases: dict[str, Any]) -> dict[str, Any]:
    """Gap closed by every method, and the evaluations of (d) beside the samplers'."""
    methods = list(next(iter(cases.values()))["test"])
    summary: dict[str, Any] = {"gap_closed": {}}
    for figure, sign, least in (("accuracy", 1.0, 0.01), ("risk", -1.0, 0.0)):
        gaps: list[float] = []
        gains: dict[str, list[float]] = {name: [] for name in methods}
        for case in cases.values():
            t = {name: sign * case["test"][name][figure] for name in methods}
            gap = t[BEST] - t["simple average"]
            if gap >= least:
                gaps.append(gap)
                for name in methods:
                    gains[name].append(t[name] - t["simple average"])
        summary["gap_closed"][figure] = {
            "problems": len(gaps),
            "mean_gap": statistics.mean(gaps) if gaps else None,
            "closed": {name: sum(g) / sum(gaps) for name, g in gains.items()} if gaps else {},
        }
    summary["gap_closed_over_better_of_x0_and_average"] = over_the_better(cases, methods)
    worst = {
        name: min(c["test"][name]["accuracy"] - c["test"]["simple average"]["accuracy"] for c in cases.values())
        for name in methods
    }
    summary["worst_accuracy_against_average"] = worst
    summary["mean_accuracy"] = {
        name: statistics.mean(c["test"][name]["accuracy"] for c in cases.values()) for name in methods
    }
    summary["mean_risk"] = {name: statistics.mean(c["test"][name]["risk"] for c in cases.values()) for name in methods}
    summary["evaluations"] = {}
    for name in (OURS["validation"], BEST, EVOLVED):
        first = [c["evaluations"]["first"][name] for c in cases.values()]
        summary["evaluations"][name] = {
            "median_until_same_risk": statistics.median(
                TRIALS.get(name.split(",")[0], 0) if f is None else f for f in first
            ),
            "never": sum(f is None for f in first),
        }
    stopped = [c["evaluations"]["stopped_after"] for c in cases.values()]
    ours = summary["evaluations"][OURS["validation"]]
    ours["median_until_it_stops"] = statistics.median(stopped)
    ours["median_with_verdicts"] = statistics.median(c["cost"][OURS["validation"]]["merges"] for c in cases.values())
    ours["times_fewer"] = {
        name: summary["evaluations"][name]["median_until_same_risk"] / ours["median_until_same_risk"]
        for name in (BEST, EVOLVED)
    }
    held = [h for c in cases.values() for h in c["cost"][OURS["validation"]]["intervals_hold"]]
    summary["task_intervals_hold"] = sum(held) / len(held)
    return summary


def over_the_better(cases: dict[str, Any], methods: list[str]) -> dict[str, Any]:
    """The same share where the start is the better of x_0 and the average on the test data: a harder reference."""
    gaps, gains = 0.0, dict.fromkeys(methods, 0.0)
    for case in cases.values():
        t = {name: case["test"][name]["risk"] for name in methods}
        start = min(t["x0"], t["simple average"])
        gaps += start - t[BEST]
        for name in methods:
            gains[name] += start - t[name]
    return {"figure": "risk", "mean_gap": gaps / len(cases), "closed": {name: g / gaps for name, g in gains.items()}}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--families", nargs="+", default=list(FAMILIES))
    parser.add_argument("--kinds", nargs="+", default=["adamw", "unequal"])
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/coefficients"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    cases: dict[str, Any] = {}
    for seed in options.seeds:
        for family in options.families:
            for kind in options.kinds:
                name = f"{family}-{kind}-seed-{seed}"
                folder = options.work / f"{family}-{seed}"
                began = time.perf_counter()
                place = options.work / f"{name}-ours.json"
                if not place.exists():
                    case = make_problem(folder, FAMILIES[family], kind, seed)
                    baselines = stored(options.work / f"{name}-baselines.json", partial(measure_baselines, case, seed))
                    stored(place, partial(measure_case, case, seed, baselines))
                cases[name] = json.loads(place.read_text()) | {"seconds": time.perf_counter() - began}
                print(name, f"{cases[name]['seconds']:.0f} s", flush=True)
                write(options, cases)
    print(json.dumps(summarise(cases), indent=2))


def stored(place: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured before, or is measured now and kept."""
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(measure(), indent=1) + "\n")
    found: dict[str, Any] = json.loads(place.read_text())
    return found


def write(options: argparse.Namespace, cases: dict[str, Any]) -> None:
    """Store everything measured so far."""
    seeds = " ".join(map(str, options.seeds))
    environment = {
        "command": f"python -m benchmarks.coefficients --seeds {seeds}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "optuna": optuna.__version__,
        "machine": platform.machine(),
        "AdaMerging": ADA,
    }
    earlier = json.loads(options.out.read_text()) if options.out.exists() else {}
    document = {"environment": environment, "summary": summarise(cases), "problems": cases}
    if "mergeability" in earlier:
        document["mergeability"] = earlier["mergeability"]
    options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
