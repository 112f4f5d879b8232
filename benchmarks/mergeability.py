r"""Is a merge's risk foretold before it is made?  Random subsets of experts, all of one size, averaged.

    python -m benchmarks.mergeability --seeds 0

Eight digit tasks, one expert each (``benchmarks/coefficient_problems.py``); every drawn subset of three is merged with
coefficients of 1/3 and its *test* risk measured, mean over the subset's tasks.  Foretold from 11 merges, none of them
of a subset: x_0, each expert alone at 1/3, all eight at 1/8 and at 1/4; the surrogate that tunes coefficients
(``advisor.coefficients_surrogate``) interpolates validation logits.  Beside it, Spearman correlations of signals that
others publish: mean cosine of task vectors, mean Euclidean distance between experts (model kinship), summed squared
norms, and the task difficulty that is known beforehand (mean risk of x_0 and of the experts alone).  ``gain`` is the
risk minus that of x_0 on the same tasks.
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
from advisor.coefficients_surrogate import fit_surrogate
from benchmarks.coefficient_problems import EIGHT, ExpertProblem, make_problem
from estimators.objectives import ClassificationObjective, evaluate

FloatArray = NDArray[np.float64]
RESULTS = Path(__file__).parent / "results" / "mergeability.json"
SIZE, DRAWN = 3, 30


def test_risks(case: ExpertProblem, row: FloatArray, tasks: list[str]) -> FloatArray:
    """Test risk of tasks under a merge."""
    weights = case.problem.merges.weights(row)
    backbone, heads = case.problem.merges.backbone, case.problem.heads
    return np.array([evaluate(ClassificationObjective(backbone, heads[t]), weights, case.tests[t]).risk for t in tasks])


def measure(case: ExpertProblem, seed: int) -> dict[str, Any]:
    """Measured risks of subsets and every prediction of them."""
    problem, names = case.problem, list(case.experts)
    count = len(names)
    evidence = {n: labelled(s.labels.numpy(), problem.heads[n].num_classes) for n, s in problem.samples.items()}
    criterion = Criterion(evidence=evidence, goal=problem.goal)
    design = np.vstack([np.zeros(count), np.eye(count) / SIZE, np.full(count, 1 / count), np.full(count, 1 / 4)])
    values = np.stack([problem.logits(problem.merges.weights(row)) for row in design])
    whole = np.isfinite(values).all(axis=1)
    gram = problem.merges.gram()
    surrogate = fit_surrogate(design[whole], values[whole], values[0], gram)
    start = criterion.risks(values[0])
    alone = [criterion.risks(value)[name] for value, name in zip(values[1 : 1 + count], names, strict=True)]
    norms = np.sqrt(np.diag(gram))
    cosines = gram / np.outer(norms, norms)
    subsets = list(itertools.combinations(range(count), SIZE))
    drawn = [subsets[k] for k in np.random.default_rng(seed).permutation(len(subsets))[:DRAWN]]
    rows: list[dict[str, Any]] = []
    for members in drawn:
        row = np.zeros(count)
        row[list(members)] = 1 / SIZE
        tasks = [names[i] for i in members]
        foretold = criterion.risks(surrogate.predict(row))
        pairs = list(itertools.combinations(members, 2))
        rows.append(
            {
                "members": tasks,
                "measured": float(test_risks(case, row, tasks).mean()),
                "initial": float(test_risks(case, np.zeros(count), tasks).mean()),
                "foretold": float(np.mean([foretold[t] for t in tasks])),
                "initial_validation": float(np.mean([start[t] for t in tasks])),
                "alone": float(np.mean([alone[i] for i in members])),
                "cosine": float(np.mean([cosines[i, j] for i, j in pairs])),
                "distance": float(np.mean([np.sqrt(gram[i, i] + gram[j, j] - 2 * gram[i, j]) for i, j in pairs])),
                "norms": float(sum(norms[i] ** 2 for i in members)),
            }
        )
    return {"subsets": rows, "spearman": correlations(rows)}


def correlations(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Spearman of every signal with the measured risk and with the measured gain over x_0."""

    def column(name: str) -> FloatArray:
        return np.array([row[name] for row in rows])

    targets = {"risk": column("measured"), "gain": column("measured") - column("initial")}
    signals = {
        "ours": {"risk": column("foretold"), "gain": column("foretold") - column("initial_validation")},
        "risk of x_0": dict.fromkeys(targets, column("initial_validation")),
        "experts alone": {"risk": column("alone"), "gain": column("alone") - column("initial_validation")},
        "minus cosine": dict.fromkeys(targets, -column("cosine")),
        "distance": dict.fromkeys(targets, column("distance")),
        "squared norms": dict.fromkeys(targets, column("norms")),
    }
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
    found: dict[str, Any] = {}
    for seed in options.seeds:
        for kind in options.kinds:
            name = f"{kind}-seed-{seed}"
            found[name] = measure(make_problem(options.work / f"eight-{seed}", EIGHT, kind, seed), seed)
            print(name, json.dumps(found[name]["spearman"]), flush=True)
            seeds = " ".join(map(str, options.seeds))
            document = {"command": f"python -m benchmarks.mergeability --seeds {seeds}", "problems": found}
            options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
