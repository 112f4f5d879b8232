r"""Search methods on real training, replayed from the stored table, in their strong version.

*Strong*: a trained run is merged at every stored coefficient and every kept checkpoint, for the price of the
evaluations; a longer run of a constant schedule goes on from a shorter one.  *Naive*: a trial is a recipe with its
length and coefficient, trained from the start and merged once.  All pay for the heads and the evaluation of x_0; the
recommended plan is the one with the lowest validation goal so far, or none where that is not below x_0.

Samplers: ``random`` (NumPy), ``tpe`` and ``gp`` (Optuna's ``TPESampler(multivariate=True)`` and ``GPSampler``),
``hyperband`` (``HyperbandPruner`` over checkpoints, with TPE).  What a sampler suggests is moved to the nearest stored
run, so all search the same grid.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import optuna

from benchmarks.judge_advisor import CurvePoint
from benchmarks.suite_format import Candidates, FloatArray, Suite, candidate_plans, evaluation_units
from benchmarks.suite_replay import checkpoints_of
from estimators.recipe import Recipe

TRIALS = {"random": 60, "tpe": 40, "gp": 16, "hyperband": 40}
HYPERBAND_FACTOR = 3


@dataclass(slots=True)
class Table:
    """One seed of a suite as a search sees it.

    Args:
        suite: the suite.
        seed: its seed.
        refined: whether a trained run is merged at all its checkpoints and coefficients (strong) or just once.
    """

    suite: Suite
    seed: int
    refined: bool = True
    candidates: Candidates = field(init=False)
    runs: dict[int, Recipe] = field(init=False)
    rows: dict[tuple[int, int], list[int]] = field(init=False)
    trained: dict[int, int] = field(init=False)
    measured: set[int] = field(init=False)
    cost: float = field(init=False)
    points: list[CurvePoint] = field(init=False)

    def __post_init__(self) -> None:
        """Index the candidates by run and checkpoint; book heads and x_0."""
        suite, seed = self.suite, self.seed
        self.candidates = candidate_plans(suite, seed)
        self.rows = {}
        for position, row in enumerate(self.candidates.rows):
            group = suite.groups[int(suite.group[row])]
            self.rows.setdefault((group.recipes[0], group.steps[0]), []).append(position)
        self.runs = {number: suite.recipes[number] for number, _ in self.rows}
        self.trained, self.measured = {}, set()
        self.cost = float(suite.record(seed)["head_cost"]) + evaluation_units(suite, seed)
        self.points = [CurvePoint(cost=self.cost, choice=None, training=0.0, trained=True)]

    def checkpoints(self, number: int) -> list[int]:
        """Kept checkpoints of a run."""
        return checkpoints_of(self.suite, self.seed, number)

    def train(self, number: int, steps: int, *, coefficient: float | None = None) -> float:
        """Train a run up to ``steps`` and measure its merges; returns the best validation goal among them."""
        recipe = self.runs[number]
        done = self.trained.get(number, 0) if self.refined else 0
        self.cost += len(self.suite.tasks) * recipe.batch_size * max(steps - done, 0)
        self.trained[number] = max(steps, self.trained.get(number, 0))
        wanted = self._wanted(number, steps, coefficient)
        new = [position for position in wanted if position not in self.measured]
        self.cost += len(new) * evaluation_units(self.suite, self.seed)
        self.measured |= set(new)
        self.points.append(self.point())
        values = self.candidates.validation[wanted]
        return float(values.min()) if len(values) else math.inf

    def _wanted(self, number: int, steps: int, coefficient: float | None) -> list[int]:
        if self.refined:
            return [p for k in self.checkpoints(number) if k <= steps for p in self.rows[number, k]]
        here = self.rows[number, steps]
        values = [self._coefficient(position) for position in here]
        target = coefficient if coefficient is not None else 1.0
        return [here[int(np.argmin([abs(math.log(value / target)) for value in values]))]]

    def _coefficient(self, position: int) -> float:
        return next(iter(self.candidates.plans[position].coefficients.values()))

    def point(self) -> CurvePoint:
        """What would be recommended now."""
        known = sorted(self.measured)
        best = min(known, key=lambda position: self.candidates.validation[position], default=None)
        initial = float(self.suite.initial(self.seed, "validation").mean())
        if best is None or not self.candidates.validation[best] < initial:
            best = None
        training = 0.0 if best is None else float(self.candidates.training_cost[best])
        return CurvePoint(cost=self.cost, choice=best, training=training, trained=True)

    @property
    def exhausted(self) -> bool:
        """Whether every run was trained to its end."""
        return all(self.trained.get(number, 0) >= recipe.steps for number, recipe in self.runs.items())

    def families(self) -> list[str]:
        """Optimizer and schedule of the stored runs."""
        return sorted({_family(recipe) for recipe in self.runs.values()})

    def rates(self) -> tuple[float, float]:
        """Lowest and highest stored rate."""
        rates = [recipe.learning_rate for recipe in self.runs.values()]
        return min(rates), max(rates)

    def nearest(self, family: str, rate: float, batch: float, steps: float) -> tuple[int, int]:
        """The stored run and checkpoint nearest to a suggestion of one family."""

        def distance(number: int) -> tuple[float, float, bool]:
            recipe = self.runs[number]
            return (
                abs(math.log(recipe.batch_size / batch)),
                round(abs(math.log(recipe.learning_rate / rate)), 9),
                recipe.steps < steps,
            )

        number = min((n for n, recipe in self.runs.items() if _family(recipe) == family), key=distance)
        return number, min(self.checkpoints(number), key=lambda k: abs(math.log(k / steps)))


def _family(recipe: Recipe) -> str:
    return f"{recipe.optimizer} {recipe.schedule}"


def search_curve(suite: Suite, seed: int, method: str, *, sampler_seed: int, refined: bool = True) -> list[CurvePoint]:
    """Cost and recommendation of a search method after each training.

    Args:
        suite: where to search.
        seed: the suite's seed.
        method: ``random``, ``tpe``, ``gp`` or ``hyperband``.
        sampler_seed: seed of the sampler.
        refined: the strong version.
    """
    table = Table(suite, seed, refined)
    if method == "random":
        _random_search(table, sampler_seed)
        return table.points
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = _study(method, sampler_seed, table)
        for _ in range(TRIALS[method]):
            study.optimize(_objective(table, pruned=method == "hyperband"), n_trials=1)
            if table.exhausted and refined:
                break
    return table.points


def _study(method: str, sampler_seed: int, table: Table) -> optuna.Study:
    samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=sampler_seed, multivariate=True),
        "hyperband": lambda: optuna.samplers.TPESampler(seed=sampler_seed, multivariate=True),
        "gp": lambda: optuna.samplers.GPSampler(seed=sampler_seed),
    }
    if method not in samplers:
        raise ValueError(f"method={method!r} must be random or one of {sorted(samplers)}; choose one")
    longest = max(recipe.steps for recipe in table.runs.values())
    pruner = optuna.pruners.HyperbandPruner(
        min_resource=min(table.checkpoints(next(iter(table.runs)))),
        max_resource=longest,
        reduction_factor=HYPERBAND_FACTOR,
    )
    return optuna.create_study(
        direction="minimize",
        sampler=samplers[method](),
        pruner=pruner if method == "hyperband" else optuna.pruners.NopPruner(),
    )


def _objective(table: Table, *, pruned: bool) -> Callable[[optuna.Trial], float]:
    low, high = table.rates()
    batches = sorted({recipe.batch_size for recipe in table.runs.values()})
    steps = sorted({k for number in table.runs for k in table.checkpoints(number)})

    def objective(trial: optuna.Trial) -> float:
        family = trial.suggest_categorical("family", table.families())
        rate = trial.suggest_float("learning_rate", low, high, log=True)
        batch = trial.suggest_categorical("batch_size", batches)
        length = steps[-1] if pruned else trial.suggest_int("steps", steps[0], steps[-1], log=True)
        coefficient = None if table.refined else trial.suggest_float("coefficient", 0.1, 3.0, log=True)
        number, checkpoint = table.nearest(family, rate, batch, length)
        if not pruned:
            return _reported(table.train(number, checkpoint, coefficient=coefficient))
        value = math.inf
        for k in [k for k in table.checkpoints(number) if k <= checkpoint]:
            value = min(value, table.train(number, k))
            trial.report(_reported(value), k)
            if trial.should_prune():
                raise optuna.TrialPruned
        return _reported(value)

    return objective


def _reported(value: float) -> float:
    """Samplers need finite numbers: a diverged merge counts as a very large risk."""
    return value if math.isfinite(value) else 1e6


def _random_search(table: Table, sampler_seed: int) -> None:
    generator = np.random.default_rng(sampler_seed)
    low, high = np.log(table.rates())
    batches = sorted({recipe.batch_size for recipe in table.runs.values()})
    longest = sorted({k for number in table.runs for k in table.checkpoints(number)})
    for _ in range(TRIALS["random"]):
        family = table.families()[int(generator.integers(len(table.families())))]
        rate = float(np.exp(generator.uniform(low, high)))
        length = float(np.exp(generator.uniform(math.log(longest[0]), math.log(longest[-1]))))
        number, steps = table.nearest(family, rate, float(generator.choice(batches)), length)
        table.train(number, steps, coefficient=float(np.exp(generator.uniform(math.log(0.1), math.log(3.0)))))
        if table.exhausted and table.refined:
            return


def default_curves(suite: Suite, seed: int) -> dict[str, list[CurvePoint]]:
    """Recipes that a careful user would take without any search, each with the best stored coefficient on validation.

    ``range test``: the rate that a learning-rate range test suggests, at the longest run; ``FusionBench``: SGD 1e-3,
    cosine, batch 64; ``task vectors``: AdamW 1e-5, cosine, batch 128; both moved to the nearest stored run.  A default
    whose optimizer the suite does not hold is left out.
    """
    table = Table(suite, seed)
    wanted: dict[str, tuple[str, float, float]] = {
        "FusionBench": ("sgd", 1e-3, 64.0),
        "task vectors": ("adamw", 1e-5, 128.0),
    }
    optimizers = {recipe.optimizer for recipe in table.runs.values()}
    extra = {name: 0.0 for name in wanted}
    test = suite.record(seed).get("range_test")
    if test is not None:
        name = "sgd" if "sgd" in optimizers else "momentum"
        wanted["range test"] = (name, float(test["suggestion"]) * (0.1 if name == "momentum" else 1.0), 32.0)
        extra["range test"] = float(test["cost"])
    curves = {}
    for label, (optimizer, rate, batch) in wanted.items():
        families = [f for f in table.families() if f.startswith(f"{optimizer} ")]
        if not families:
            continue
        family = next((f for f in families if f.endswith("cosine") and label != "range test"), families[0])
        fresh = Table(suite, seed)
        number, steps = fresh.nearest(family, rate, batch, suite.max_steps)
        fresh.cost += extra[label]
        last = fresh.rows[number, steps]
        fresh.cost += len(suite.tasks) * fresh.runs[number].batch_size * steps
        fresh.cost += len(last) * evaluation_units(suite, seed)
        fresh.measured |= set(last)
        curves[label] = [fresh.point()]
    return curves


def joint_regret(suite: Suite, seed: int, best: float, initial: float) -> tuple[float, float] | None:
    """Cost and regret of joint training, its checkpoint chosen on validation; ``None`` where it was not measured."""
    rows = [row for row in suite.joint if row["seed"] == seed]
    if not rows:
        return None

    def mean(row: dict[str, float], figure: str) -> float:
        return float(np.mean([row[f"{figure}_{task}"] for task in suite.tasks]))

    chosen = min(rows, key=lambda row: mean(dict(row), "validation"))
    recipe = suite.recipes[int(chosen["recipe"])]
    trained = max(row["step"] for row in rows if row["recipe"] == chosen["recipe"])
    cost = recipe.batch_size * float(trained) + len(rows) * evaluation_units(suite, seed)
    return cost, (mean(dict(chosen), "test") - best) / (initial - best)


def regrets(points: Sequence[CurvePoint], test: FloatArray, initial: float) -> FloatArray:
    """Regret of every recommendation on a curve.

    (risk - best)/(x_0 - best); recommending nothing keeps x_0 and scores 1.  Where nothing beats x_0, nothing scores 0
    and anything scores 1.  An infinite risk counts as 1e6 nats.
    """
    best = float(test.min())
    if best >= initial:
        return np.array([0.0 if point.choice is None else 1.0 for point in points])
    risks = [initial if point.choice is None else min(float(test[point.choice]), 1e6) for point in points]
    return (np.array(risks) - best) / (initial - best)
