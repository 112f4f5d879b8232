r"""The advisor under judgement: probes chosen by its own design and replayed, its own risk model, advice on the grid.

    probes      ``advisor.probing.next_probe`` within ``BUDGET_SHARE`` of a full fine-tune, heads and constants
                included, until the advice has settled (``advisor.settling``, over the grid's plans)
    fit         ``advisor.risk_model.RiskModel``
    advice      the candidate of the grid with the lowest predicted goal, ranked with the advisor's own prices
                (``advisor.searching.caution``); refused where the predicted gain over x_0 is below its ``MIN_GAIN``
    refit       the advised recipe is trained, its merges at half to twice the advised coefficients are measured on
                validation data, the model is fitted again; the trained experts stay advised unless others are worth
                training (``advisor.keeping``).  Then what looks best among the rest is trained, and so on

Every step is counted: heads, constants, probes, merged evaluations, trained recipes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.keeping import MEASURED_SCALES, TRIED_SCALES, is_worth_training
from advisor.measured_on import MeasuredOn
from advisor.observations import ProbeData
from advisor.plan import Plan, PlanTable
from advisor.probing import LINEAR_METHOD, MergePoint, Probe, design_probes, measured_gain, next_probe
from advisor.risk_fit import over_all
from advisor.risk_model import ContradictoryProbes, ProbesDiverged, RiskModel, TooFewProbes
from advisor.searching import caution
from advisor.settling import Ranking, is_settled, last_counts, may_settle
from advisor.status import MIN_GAIN
from benchmarks.suite_format import Candidates, FloatArray, Suite, candidate_plans, evaluation_units
from benchmarks.suite_replay import ProbeRequest, Replay, ReplayedProbe, collect, observation, replay_probe
from estimators.recipe import Optimizer, Recipe

BUDGET_SHARE = 0.25  # of a full fine-tune, everything before advice (the advisor's default)
REFITS = 5  # rounds of advise, train, refit that a curve shows
KEPT_SCALES = (MEASURED_SCALES[0] * TRIED_SCALES[0], MEASURED_SCALES[-1] * TRIED_SCALES[-1])  # of advised coefficients
MOST_PROBES = 24


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SuiteAdvice:
    """What the advisor says on one seed of a suite.

    Attributes:
        candidates: the grid's plans.
        choice: position of the advised candidate, or ``None`` for refusing.
        goal: [C] predicted goal of each candidate; infinite where the model could not say.
        price: [C] the cautious factor by which candidates are ranked.
        model: the fitted model.
        replay: the probes it rests on.
    """

    candidates: Candidates
    choice: int | None
    goal: FloatArray
    price: FloatArray
    model: RiskModel
    replay: Replay


def advise_on_suite(suite: Suite, seed: int, *, replay: Replay | None = None) -> SuiteAdvice:
    """The advisor's first advice on a seed, before any long training; ``replay`` overrides its own probes."""
    replay = replay_design(suite, seed) if replay is None else replay
    candidates = candidate_plans(suite, seed)
    model = fit_on_suite(suite, seed, replay.data)
    predicted = predict_goal(model, candidates.plans)
    return SuiteAdvice(
        candidates=candidates,
        choice=choose(predicted.value, predicted.price, float(model.scales_.initial_risk @ model.weights_)),
        goal=predicted.value,
        price=predicted.price,
        model=model,
        replay=replay,
    )


def fit_on_suite(suite: Suite, seed: int, data: ProbeData) -> RiskModel:
    """The model as a run fits it: its intervals are those of figures on the suite's test samples."""
    size = suite.evaluation_size(seed, "test")
    return RiskModel(seed=0, measured_on=MeasuredOn(sizes=dict.fromkeys(suite.tasks, size), shared={})).fit(data)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictedGoal:
    """Predicted goals of M plans with 90 % intervals; infinite where the model has no word on a plan.

    Attributes:
        value: [M].
        low: [M].
        high: [M].
        price: [M] the advisor's cautious factor (``advisor.searching``), by which plans are ranked and not reported.
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray
    price: FloatArray


def predict_goal(model: RiskModel, plans: Sequence[Plan]) -> PredictedGoal:
    """Predict what the model can: a plan whose optimizer or method was not probed gets an infinite goal."""
    value = np.full((4, len(plans)), np.inf)
    kinds = [(plan.method, frozenset(recipe.optimizer for recipe in plan.recipes.values())) for plan in plans]
    for kind in dict.fromkeys(kinds):
        here = [i for i, other in enumerate(kinds) if other == kind]
        try:
            prediction = model.predict([plans[i] for i in here], return_interval=True)
        except ValueError:
            continue
        whole = [over_all(plans[i], model.scales_.names) for i in here]
        table = PlanTable.from_plans(whole, model.constants_.num_samples)
        price = 1.0 + caution(table, model.weights_, prediction.untried)
        value[:, here] = prediction.goal, prediction.goal_low, prediction.goal_high, price
    return PredictedGoal(value=value[0], low=value[1], high=value[2], price=value[3])


def choose(goal: FloatArray, price: FloatArray, initial: float) -> int | None:
    """The lowest goal with its price, or ``None`` where it gains less than ``MIN_GAIN`` of x_0's risk."""
    best = int(np.argmin(goal * price))
    return best if initial - goal[best] > MIN_GAIN * initial else None


def replay_design(suite: Suite, seed: int, *, share: float = BUDGET_SHARE) -> Replay:
    """Probes as the advisor's design asks for them, one after another, moved to the nearest stored settings."""
    search = suite.metadata["project"]["search"]
    constants = suite.constants(seed)
    record = suite.record(seed)
    spent_before = constants.cost + float(record["head_cost"])
    design = design_probes(
        constants,
        rates={name: (float(low), float(high)) for name, (low, high) in search["learning_rate"].items()},
        batch_range=tuple(search["batch_size"]),
        max_steps=suite.max_steps,
        budget=share * suite.full_fine_tune - spent_before,
        validation_samples=suite.evaluation_size(seed, "probe"),
        methods=(LINEAR_METHOD, *_stored_methods(suite)),
    )
    # stored merges were measured on more samples than the advisor takes, and cost as much
    design = dataclasses.replace(design, evaluation_samples=suite.evaluation_size(seed, "probe"))
    done: list[ReplayedProbe] = []
    probes: list[Probe] = []
    weights = dict.fromkeys(suite.tasks, 1.0)
    spent = evaluation_units(suite, seed, "probe")
    wanted, plans = tuple(design.rates), candidate_plans(suite, seed).plans
    rankings: list[Ranking] = []
    while len(done) < MOST_PROBES and design.rates and not _settled(rankings, done, wanted):
        open_ones = [probe for probe in probes if probe.recipe.optimizer in design.rates]
        recipe = next_probe(design, open_ones, weights, spent=spent)
        if recipe is None:
            break
        first = all(probe.recipe.optimizer != recipe.optimizer for probe in probes)
        points: list[tuple[MergePoint, float]] = []
        while (point := design.next_merge(recipe, points, number=len(done), first=first)) is not None:
            seen = replay_probe(suite, seed, ProbeRequest(recipe=recipe, points=(*(p for p, _ in points), point)))
            points.append((point, -math.inf if point in seen.missing else measured_gain(seen.merges[-1], weights)))
        request = ProbeRequest(recipe=recipe, points=tuple(point for point, _ in points))
        probe = replay_probe(suite, seed, request)
        if any(before.number == probe.number and before.recipe == probe.recipe for before in done):
            # the grid has no new setting nearby: the advisor would learn nothing, so this optimizer is done
            rates = {name: ends for name, ends in design.rates.items() if name != recipe.optimizer}
            design = dataclasses.replace(design, rates=rates)
            continue
        done.append(probe)
        probes.append(_as_probe(probe, recipe))
        spent += probe.training + probe.evaluation
        rankings.append(_ranked(suite, seed, done, plans))
    return collect(suite, seed, done)


def _ranked(suite: Suite, seed: int, done: Sequence[ReplayedProbe], plans: Sequence[Plan]) -> Ranking:
    """Priced goals of the grid's plans after some probes, and x_0's goal; none if nothing fits."""
    try:
        model = fit_on_suite(suite, seed, collect(suite, seed, done).data)
    except (TooFewProbes, ProbesDiverged, ContradictoryProbes):
        return None, 0.0
    predicted = predict_goal(model, plans)
    return predicted.value * predicted.price, float(model.scales_.initial_risk @ model.weights_)


def _settled(rankings: Sequence[Ranking], done: Sequence[ReplayedProbe], wanted: Collection[Optimizer]) -> bool:
    """``advisor.settling`` on the plans of the grid, from the rankings after each number of probes."""
    if not may_settle([probe.recipe.optimizer for probe in done], wanted):
        return False
    *before, (goal, initial) = (rankings[count - 1] for count in last_counts(len(done)))
    return is_settled(goal, [ranking for ranking, _ in before], initial)


def _stored_methods(suite: Suite) -> list[str]:
    return sorted({str(name) for name in suite.method} - {LINEAR_METHOD})


def _as_probe(probe: ReplayedProbe, wanted: Recipe) -> Probe:
    """The probe as the design sees it: at the batch size that was asked for, at the rate that was stored."""
    seen = wanted.replace(learning_rate=probe.recipe.learning_rate, steps=probe.recipe.steps)
    return Probe(
        recipe=seen,
        traces=probe.traces,
        merges=probe.merges,
        outcomes={},
        cost=probe.training + probe.evaluation,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One moment of a search.

    Attributes:
        cost: units spent so far.
        choice: candidate that would be recommended now, or ``None``.
        training: units of training the recipe that is recommended.
        trained: whether that recipe was already trained, so that ``cost`` holds its training.
    """

    cost: float
    choice: int | None
    training: float
    trained: bool


def advisor_curve(
    suite: Suite, seed: int, *, replay: Replay | None = None, first: SuiteAdvice | None = None
) -> list[CurvePoint]:
    """Advice, then rounds of training what is advised, measuring it on validation data and refitting."""
    advice = advise_on_suite(suite, seed, replay=replay) if first is None else first
    candidates, data = advice.candidates, advice.replay.data
    cost, choice = advice.replay.units, advice.choice
    points = [_point(candidates, cost, choice, trained=False)]
    trained = np.zeros(len(candidates), dtype=bool)
    ranked = advice.goal * advice.price
    for _ in range(REFITS):
        wanted = (
            choice if choice is not None and not trained[choice] else int(np.argmin(np.where(trained, np.inf, ranked)))
        )
        if not np.isfinite(ranked[wanted]) or trained[wanted]:
            break
        rows = _same_experts(candidates, wanted, MEASURED_SCALES)
        cost += float(candidates.training_cost[wanted]) + int(rows.sum()) * evaluation_units(suite, seed)
        trained |= _same_experts(candidates, wanted, KEPT_SCALES)
        data = _with_rows(suite, data, candidates.rows[rows])
        model = fit_on_suite(suite, seed, data)
        predicted, initial = predict_goal(model, candidates.plans), float(model.scales_.initial_risk @ model.weights_)
        ranked = predicted.value * predicted.price
        choice = keep_or_train(predicted.value, ranked, trained, initial)
        points.append(_point(candidates, cost, choice, trained=choice is not None and bool(trained[choice])))
    return points


def keep_or_train(goal: FloatArray, ranked: FloatArray, trained: NDArray[np.bool_], initial: float) -> int | None:
    """What a refit advises (``advisor.keeping``): the best trained plan unless another is worth training, or nothing.

    Args:
        goal: [C] predicted goals.
        ranked: [C] the same with the price of caution.
        trained: [C] plans whose experts are there.
        initial: goal risk of x_0.
    """
    kept, best = int(np.argmin(np.where(trained, ranked, np.inf))), int(np.argmin(ranked))
    advised = best if is_worth_training(ranked[kept], ranked[best], initial) else kept
    return advised if initial - goal[advised] > MIN_GAIN * initial else None


def _point(candidates: Candidates, cost: float, choice: int | None, *, trained: bool) -> CurvePoint:
    training = 0.0 if choice is None else float(candidates.training_cost[choice])
    return CurvePoint(cost=cost, choice=choice, training=training, trained=trained)


def _same_experts(candidates: Candidates, choice: int, scales: Sequence[float]) -> NDArray[np.bool_]:
    """Candidates that merge the same experts by the same method, at coefficients within the range of ``scales``."""
    plan = candidates.plans[choice]
    found = np.zeros(len(candidates), dtype=bool)
    for position, other in enumerate(candidates.plans):
        if other.recipes == plan.recipes and other.method == plan.method:
            ratios = [other.coefficients[name] / value for name, value in plan.coefficients.items() if value > 0]
            found[position] = min(scales) <= min(ratios) and max(ratios) <= max(scales)
    return found


def _with_rows(suite: Suite, data: ProbeData, rows: Sequence[Any] | NDArray[np.int64]) -> ProbeData:
    return data.with_merges([observation(suite, int(row), "validation") for row in rows])
