"""Tables of the claims' pool that follow known laws, so that every verdict is known beforehand."""

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.claim_curves import NETWORKS
from benchmarks.claim_design import (
    COEFFICIENTS,
    FULL,
    FURTHER,
    MAIN,
    METHOD_COEFFICIENTS,
    PoolRun,
)
from benchmarks.claim_design import NETWORKS as BACKBONES
from benchmarks.claim_predictions import RATE_GRID, STEP_GRID
from benchmarks.claim_tables import UnitTable

EIGHT = MAIN + FURTHER
START = 0.5  # risk of x_0 on every task
SAMPLES = 320


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The laws behind a synthetic unit; logarithmic exponents of the merged risk unless another thing is said."""

    stability_rate: float = 2.0  # exponent of twins' stability in the rate ...
    stability_batch: float = 1.0  # ... and in the batch size
    edge: float = 0.7  # rate, of 2/L, from where merges of SGD grow steeply
    small_batch_loss: float = 0.3  # log training risk at b = 2 over that at b = 32
    turn: float = 80.0  # K* at every coefficient
    turn_of_method: float = 80.0  # K* of TIES and DARE
    learning_rate: float = 0.1
    batch_size: float = -0.05
    num_samples: float = -0.1
    coefficients: float = 0.2
    gap: float = -1.0  # exponent of the experts' gap in n
    gain: float = 0.3  # A of floor + A/k
    penalty: float = 0.05  # log risk that each further expert costs at the fixed coefficient
    method_share: float = 0.8  # kappa/pi^2 of TIES, DARE and aligned experts
    adamerging: float = 0.9  # its risk over the simple average's
    average_loss: float = 0.2  # log risk of the simple average over tuned coefficients, over-trained mix
    noise: float = 0.004  # of every unit, in all logarithms
    predicted_edge: float = 1.0  # factors on what is predicted
    predicted_turn: float = 1.0
    predicted_exponents: float = 0.0  # added


@functools.lru_cache(maxsize=8)
def unit(network: str, seed: int, truth: Truth | None = None, *, with_predictions: bool = True) -> UnitTable:
    """A table of one unit."""
    return _Unit(network, seed, truth or Truth()).table(with_predictions)


def units(truth: Truth | None = None, *, seeds: int = 3, vit: Truth | None = None) -> list[UnitTable]:
    """Tables of both networks; ``vit`` gives the second one laws of its own."""
    truth = truth or Truth()
    laws = dict(zip(NETWORKS, (truth, vit or truth), strict=True))
    return [unit(network, seed, laws[network]) for network in NETWORKS for seed in range(seeds)]


class _Unit:
    def __init__(self, network: str, seed: int, truth: Truth) -> None:
        self.network, self.seed, self.truth = network, seed, truth
        rng = np.random.default_rng([seed, len(network)])
        shift = truth.noise * float(rng.normal())
        self.truth = replace(
            truth,
            **{
                name: getattr(truth, name) + shift
                for name in ("stability_rate", "stability_batch", "small_batch_loss", "learning_rate", "batch_size")
                + (
                    "num_samples",
                    "coefficients",
                    "gap",
                    "gain",
                    "penalty",
                    "method_share",
                    "adamerging",
                    "average_loss",
                )
            },
        )
        self.rate = BACKBONES[network].rate
        self.runs = {run.name: run for run in FULL.runs(BACKBONES[network], 1e-3, SAMPLES)}
        self.merges: list[dict[str, Any]] = []
        self.predicted: list[dict[str, Any]] = []

    def log_risk(self, run: PoolRun, step: int, coefficient: float, method: str, *, predicted: bool = False) -> float:
        """Log risk over x_0's of a merge of the run's experts."""
        t, recipe = self.truth, run.recipe
        extra = t.predicted_exponents if predicted else 0.0
        if recipe.optimizer == "sgd":
            rate = recipe.learning_rate / 1e-3
            small = t.small_batch_loss * math.log(32 / recipe.batch_size) / math.log(16) if "sgd-b" in run.name else 0
            return -0.1 + small + 3 * max(0.0, math.log(rate / t.edge))
        turn = t.turn if method == "task_arithmetic" else t.turn_of_method
        turn *= t.predicted_turn if predicted else 1.0
        share = (recipe.num_samples or SAMPLES) / SAMPLES
        return (
            0.1 * math.log(step / turn) ** 2
            + (t.learning_rate + extra) * math.log(recipe.learning_rate / self.rate)
            + (t.batch_size + extra) * math.log(recipe.batch_size / 8)
            + (t.num_samples + extra) * math.log(share)
            + (t.coefficients + extra) * math.log(coefficient / 0.25)
        )

    def add(
        self,
        kind: str,
        members: Any,
        coefficients: Any,
        risks: Any,
        *,
        method: str = "task_arithmetic",
        predicted: Any = None,
    ) -> None:
        """One row with given risks of tasks, and the row that was predicted for it."""
        guesses = risks if predicted is None else predicted
        self.merges.append(
            {
                "kind": kind,
                "method": method,
                "members": {task: list(member) for task, member in members.items()},
                "coefficients": coefficients,
                "gram": None,
                "figures": {
                    task: {
                        "validation": value,
                        "validation_error": 0.01,
                        "test": value,
                        "test_accuracy": 0.9,
                        "train": 0.8 * value,
                    }
                    for task, value in risks.items()
                },
            }
        )
        mean = float(np.mean(list(guesses.values())))
        self.predicted.append({"risk": mean, "gap": 0.2 * mean, "tasks": list(guesses.values())})

    def common(self, kind: str, run: str, step: int, coefficient: float, method: str = "task_arithmetic") -> None:
        """The merge of a run's experts with a common coefficient."""
        pair = [
            START * math.exp(self.log_risk(self.runs[run], step, coefficient, method, predicted=guess))
            for guess in (False, True)
        ]
        self.add(
            kind,
            dict.fromkeys(MAIN, (run, step)),
            dict.fromkeys(MAIN, coefficient),
            dict.fromkeys(MAIN, pair[0]),
            method=method,
            predicted=dict.fromkeys(MAIN, pair[1]),
        )

    def table(self, with_predictions: bool) -> UnitTable:
        """Everything put together."""
        for name, run in self.runs.items():
            for step in run.checkpoints if name != "more" else ():
                for value in COEFFICIENTS:
                    self.common("linear", name, step, value)
                for method, values in METHOD_COEFFICIENTS.items() if name == "base" else ():
                    for value in values:
                        self.common("method", name, step, value, method)
        self.subsets()
        data = {
            "command": "made up",
            "environment": {"python": "3"},
            "design": "full",
            "network": self.network,
            "seed": self.seed,
            "tasks": list(EIGHT),
            "num_samples": dict.fromkeys(EIGHT, SAMPLES),
            "num_parameters": 1000,
            "edge": 1e-3,
            "initial": {t: dict.fromkeys(("test", "validation", "train"), START) for t in EIGHT},
            "runs": {name: {"recipe": run.recipe.to_json(), "runs": []} for name, run in self.runs.items()},
            "experts": self.experts(),
            "merges": self.merges,
            "twins": self.twins(),
            "methods": self.methods(),
            "mixes": self.mixes(),
        }
        return UnitTable(data=data, predictions=self.predictions() if with_predictions else {})

    def subsets(self) -> None:
        """Merges of 1 to 8 experts: risk floor + A/k, and a penalty at the fixed coefficient."""
        t = self.truth
        single = dict.fromkeys(EIGHT, START * (0.7 + t.gain))
        for task in EIGHT:
            self.add("single", {task: ("base", 160)}, {task: 1.0}, single)
            self.add("alone", {task: ("base", 160)}, {task: 0.25}, {task: 0.4})
        for size in range(2, 9):
            members = dict.fromkeys(EIGHT[:size], ("base", 160))
            risks = dict.fromkeys(EIGHT, START * (0.7 + t.gain / size))
            self.add("subset-average", members, dict.fromkeys(members, 1 / size), risks)
            risks = dict.fromkeys(members, 0.4 * math.exp(t.penalty * (size - 1)))
            self.add("subset-fixed", members, dict.fromkeys(members, 0.25), risks)
        whole = START * math.exp(self.log_risk(self.runs["base"], 160, 0.25, "task_arithmetic"))
        for out in MAIN:
            coefficients = {task: 0.0 if task == out else 0.25 for task in MAIN}
            self.add("left-out", dict.fromkeys(MAIN, ("base", 160)), coefficients, dict.fromkeys(MAIN, 0.95 * whole))

    def experts(self) -> list[dict[str, Any]]:
        """Experts that go on improving; their gap follows n."""
        rows = []
        for name, run in self.runs.items():
            share = (run.recipe.num_samples or SAMPLES) / SAMPLES
            for step in run.checkpoints:
                test = 0.4 * step**-0.1
                gap = 0.002 * share**self.truth.gap
                for task in run.tasks:
                    rows.append({"run": name, "task": task, "step": step, "test": test, "train": test - gap})
        return rows

    def twins(self) -> list[dict[str, Any]]:
        """Stability as powers of rate and batch size; the refined bound a hundred times above, flat in b."""
        rows = []
        settings = [("rate", f, 8) for f in FULL.twin_fractions]
        settings += [("batch", FULL.twin_fractions[1], b) for b in FULL.twin_batches]
        for varied, fraction, batch in settings:
            value = 1e-6 * fraction**self.truth.stability_rate * (batch / 8) ** self.truth.stability_batch
            recipe = {"learning_rate": fraction * 1e-3, "batch_size": batch}
            rows.append(
                {
                    "varied": varied,
                    "fraction": fraction,
                    "recipe": recipe,
                    "stability": value,
                    "refined": 1e-4 * fraction**2,
                    "paper": 1e-4 * fraction**2 * batch,
                }
            )
        return rows

    def methods(self) -> list[dict[str, Any]]:
        """Ways of merging with known shares."""
        rows = []
        for way in ("simple average", "TIES", "DARE", "AdaMerging", "tangent", "sharpness-aware"):
            value = 0.4 * (self.truth.adamerging if way == "AdaMerging" else 1.0)
            rows.append(
                {
                    "way": way,
                    "progress": 0.1 if way == "simple average" else 0.2,
                    "beyond": 0.05 if way == "simple average" else 0.05 * 4 * self.truth.method_share,
                    "cosine": 0.1,
                    "chi_square": 0.0 if way != "AdaMerging" else 0.1,
                    "expert_length": 1.0,
                    "figures": {task: {"test": value, "test_accuracy": 0.9} for task in MAIN},
                }
            )
        return rows

    def mixes(self) -> list[dict[str, Any]]:
        """Mixes in which the advisor's coefficients do as well as tuned ones."""
        best = {"figures": {task: {"test": 0.4} for task in MAIN}}
        worse = 0.4 * math.exp(self.truth.average_loss)
        return [
            {
                "mix": name,
                "members": dict.fromkeys(MAIN, ("base", 160)),
                "chi_square": {"average": 0.5, "advisor": 0.1},
                "predicted": {"average": worse, "advisor": 0.4},
                "average": {"figures": {task: {"test": worse} for task in MAIN}},
                "advisor": best,
                "tuned": best,
            }
            for name in ("one over-trained", "learning rates")
        ]

    def predictions(self) -> dict[str, Any]:
        """What a fit would say that knows the laws, up to the truth's factors."""
        t, base = self.truth, self.runs["base"]
        curves = {
            method: {
                f"{value:g}": [
                    START * math.exp(self.log_risk(base, int(k), value, method, predicted=True)) for k in STEP_GRID
                ]
                for value in (COEFFICIENTS if method == "task_arithmetic" else METHOD_COEFFICIENTS[method])
            }
            for method in ("task_arithmetic", *METHOD_COEFFICIENTS)
        }
        edge = t.edge * t.predicted_edge
        worst = [
            {"number": i, "total": 3 + math.log10(row["figures"][MAIN[0]]["test"])}
            for i, row in enumerate(self.merges)
            if row["kind"] == "linear"
        ]
        return {
            "probes": 10,
            "rows": self.predicted,
            "steps": STEP_GRID.tolist(),
            "curves": curves,
            "rates": RATE_GRID.tolist(),
            "rate_curve": [START * math.exp(-0.1 + 3 * max(0.0, math.log(rate / edge))) for rate in RATE_GRID],
            "edge": [edge * 1e-3] * 3,
            "exponents": {},
            "worst_case": worst,
        }
