r"""Is a merge's risk foretold before it is made?  Random subsets of experts, all of one size, averaged.

    python -m benchmarks.mergeability --seeds 0 1 2

Eight digit tasks, one expert each (``benchmarks/coefficient_problems.py``); every drawn subset of three is merged with
coefficients of 1/3 and its *test* risk measured, mean over the subset's tasks.  Spearman with that risk of

    ours         ``advisor.mergeability`` from 11 merges on validation labels, none of them of a subset: x_0, each
                 expert alone at 1/3, all eight at 1/8 and at 1/4
    known first  risk of x_0, mean risk of the experts alone on their own tasks
    published    ``benchmarks/merge_signals.py``, on the same merges
    ceilings     ``halves``: between the measured risks of two random halves of the test data (mean of 20 draws);
                 ``validation``: the subset's own merge measured on the validation data that predictions are made from

``gain`` is the risk minus that of x_0 on the same tasks.  The method was chosen on seeds 100 and 101, whose figures are
stored as ``development``; how often the reported seeds were judged is in ``benchmarks/coefficients_log.jsonl``.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from advisor.coefficients_evidence import Criterion, labelled
from advisor.mergeability import measure_responses
from benchmarks.coefficient_problems import DEVELOPMENT_SEEDS, EIGHT, ExpertProblem, make_problem
from benchmarks.merge_signals import pair_signals
from estimators.objectives import ClassificationObjective

FloatArray = NDArray[np.float64]
RESULTS = Path(__file__).parent / "results" / "mergeability.json"
SIZE, DRAWN, HALVINGS = 3, 30, 20


@torch.no_grad()
def losses_on_test(case: ExpertProblem, row: FloatArray, tasks: list[str]) -> dict[str, FloatArray]:
    """Every test sample's loss under a merge, by task."""
    merges = case.problem.merges
    weights, found = merges.weights(row), {}
    for task in tasks:
        objective, split = ClassificationObjective(merges.backbone, case.problem.heads[task]), case.tests[task]
        logits = torch.cat([objective.logits(weights, part) for part in torch.split(split.inputs, 256)])
        found[task] = torch.nn.functional.cross_entropy(logits, split.labels, reduction="none").double().numpy()
    return found


def measure(case: ExpertProblem, seed: int) -> dict[str, Any]:
    """Measured risks of subsets and every prediction of them."""
    problem, names = case.problem, list(case.experts)
    count = len(names)
    evidence = {n: labelled(s.labels.numpy(), problem.heads[n].num_classes) for n, s in problem.samples.items()}
    criterion = Criterion(evidence=evidence, goal=problem.goal)
    responses = measure_responses(problem, criterion, scale=1 / SIZE)
    start = criterion.risks(responses.values[0])
    alone = [criterion.risks(value)[name] for value, name in zip(responses.values[1:], names, strict=False)]
    signals = pair_signals(problem, seed)
    subsets = list(itertools.combinations(range(count), SIZE))
    drawn = [subsets[k] for k in np.random.default_rng(seed).permutation(len(subsets))[:DRAWN]]
    rows: list[dict[str, Any]] = []
    losses: list[dict[str, FloatArray]] = []
    initial = {task: float(x.mean()) for task, x in losses_on_test(case, np.zeros(count), names).items()}
    for members in drawn:
        row = np.zeros(count)
        row[list(members)] = 1 / SIZE
        tasks = [names[i] for i in members]
        foretold = responses.risks(dict.fromkeys(tasks, 1 / SIZE))
        own = criterion.risks(problem.logits(problem.merges.weights(row)))
        losses.append(losses_on_test(case, row, tasks))
        rows.append(
            {
                "members": tasks,
                "measured": float(np.mean([x.mean() for x in losses[-1].values()])),
                "initial": float(np.mean([initial[t] for t in tasks])),
                "foretold": float(np.mean([foretold[t] for t in tasks])),
                "validation": float(np.mean([own[t] for t in tasks])),
                "initial_validation": float(np.mean([start[t] for t in tasks])),
                "alone": float(np.mean([alone[i] for i in members])),
                "signals": signals.of(members),
            }
        )
    return {"subsets": rows, "ceiling": halves(losses, seed), "spearman": correlations(rows)}


def halves(losses: list[dict[str, FloatArray]], seed: int) -> float:
    """Spearman between subsets' risks on two random halves of every task's samples, mean over draws."""
    rng = np.random.default_rng(seed)
    sizes = {task: len(x) for cells in losses for task, x in cells.items()}
    found = []
    for _ in range(HALVINGS):
        first = {task: rng.permutation(size) < size // 2 for task, size in sizes.items()}
        sides = [
            [np.mean([x[first[task] == side].mean() for task, x in cells.items()]) for cells in losses]
            for side in (True, False)
        ]
        found.append(float(spearmanr(np.array(sides[0]), np.array(sides[1])).statistic))
    return float(np.mean(found))


def correlations(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Spearman of every signal with the measured risk and with the measured gain over x_0."""

    def column(name: str) -> FloatArray:
        return np.array([row[name] for row in rows])

    start = column("initial_validation")
    targets = {"risk": column("measured"), "gain": column("measured") - column("initial")}
    signals = {
        "ours": {"risk": column("foretold"), "gain": column("foretold") - start},
        "validation": {"risk": column("validation"), "gain": column("validation") - start},
        "risk of x_0": dict.fromkeys(targets, start),
        "experts alone": {"risk": column("alone"), "gain": column("alone") - start},
    }
    for name in rows[0]["signals"]:
        signals[name] = dict.fromkeys(targets, np.array([row["signals"][name] for row in rows]))
    return {
        name: {target: float(spearmanr(cells[target], measured).statistic) for target, measured in targets.items()}
        for name, cells in signals.items()
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--kinds", nargs="+", default=["adamw", "unequal"])
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/mergeability"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    document = json.loads(options.out.read_text()) if options.out.exists() else {}
    document["command"] = "python -m benchmarks.mergeability --seeds 0 1 2"
    for seed in options.seeds:
        for kind in options.kinds:
            name = f"{kind}-seed-{seed}"
            found = measure(make_problem(options.work / f"eight-{seed}", EIGHT, kind, seed), seed)
            print(name, f"ceiling {found['ceiling']:.2f}", json.dumps(found["spearman"]), flush=True)
            part = "development" if seed in DEVELOPMENT_SEEDS else "problems"
            document.setdefault(part, {})[name] = found
            options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
