"""Where a study looks next: samplers by name, each a pure function of (seed, trial number, finished batches).

    random   uniform in the unit cube
    qmc      scrambled Sobol' sequence, point = trial number
    tpe      Optuna's multivariate TPE with constant liar; divergence enters as a violated constraint
    gp       Optuna's Gaussian process (needs torch; dear: about half a second a trial)
    cmaes    CMA-ES of the package ``cmaes`` that Optuna's sampler wraps, one generation for each batch
    nsga2    Optuna's NSGA-II, one generation for each batch; two objectives only

For each batch the sampler is built anew, sees the finished trials of earlier batches in order, and is seeded by (seed,
trial number); so a resumed study, and any number of workers, propose the same points.  Optuna's own CMA-ES and QMC
samplers are not used: the first keeps a pickle inside the study file (reading it would run what somebody wrote there),
the second keeps its place in the study's attributes and is experimental.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from studies.journal import checksum
from studies.knobs import FloatArray, Knob
from studies.storage import Record, quiet_optuna

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

SamplerName = Literal["tpe", "gp", "cmaes", "random", "qmc", "nsga2"]
CMA_SPREAD = 0.2  # initial standard deviation in the unit cube: 1/5 of each range, Hansen's advice for a known region
_GENERATION = "NSGAIISampler:generation"


def check_sampler(name: str, *, dimensions: int, objectives: int) -> None:
    """Refuse an unknown sampler, or one that cannot do the job."""
    if name not in get_args(SamplerName):
        raise ValueError(f"sampler={name!r} is not known; choose from {list(get_args(SamplerName))}")
    if objectives == 2 and name in ("gp", "cmaes"):
        raise ValueError(f"sampler={name!r} works on one objective; use 'nsga2', 'tpe', 'qmc' or 'random'")
    if objectives == 1 and name == "nsga2":
        raise ValueError("sampler='nsga2' needs two objectives; use it in search_tradeoffs, or choose 'tpe' here")
    if name == "cmaes" and dimensions < 2:
        raise ValueError(f"sampler='cmaes' needs at least two free knobs, not {dimensions}; choose 'tpe'")


def propose(
    name: str,
    knobs: Sequence[Knob],
    history: Sequence[Record],
    *,
    seed: int,
    start: int,
    batch: int,
    objectives: int = 1,
) -> FloatArray:
    """The next ``batch`` points [batch, D] of the unit cube.

    Args:
        name: the sampler.
        knobs: the D free knobs.
        history: finished trials of all earlier batches, in order.
        seed: seed of the study.
        start: number of the first trial of this batch among the sampler's trials; a multiple of ``batch``.
        batch: how many points.
        objectives: 1 (goal) or 2 (goal and cost).
    """
    if name == "random":
        return np.stack([np.random.default_rng([seed, start + k]).random(len(knobs)) for k in range(batch)])
    if name == "qmc":
        return sobol(len(knobs), start + batch, seed)[start:]
    if name == "cmaes":
        return _cma_generation(len(knobs), history, seed=seed, start=start, batch=batch)
    return _ask_optuna(name, knobs, history, seed=seed, start=start, batch=batch, objectives=objectives)


def sobol(dimensions: int, count: int, seed: int) -> FloatArray:
    """The first ``count`` points of a scrambled Sobol' sequence, shape [count, dimensions]."""
    from scipy.stats import qmc

    if dimensions == 0:
        return np.empty((count, 0))
    sequence = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed))
    return np.asarray(sequence.random_base2(max(count - 1, 1).bit_length())[:count])


def frozen_trial(
    knobs: Sequence[Knob],
    record: Record,
    *,
    objectives: int,
    ceiling: float,
    meta: bool = False,
    system: dict[str, Any] | None = None,
) -> FrozenTrial:
    """A finished Optuna trial of a record.

    Infeasible trials without a finite goal carry ``ceiling`` + violation, since Optuna's samplers take no infinite
    value; constraint-aware samplers look at the violation, not at this value.
    """
    from optuna.trial import create_trial

    goal = record.goal if np.isfinite(record.goal) else ceiling + record.violation
    values = [goal] if objectives == 1 else [goal, record.cost]
    data = record.to_json()
    return create_trial(
        values=values,
        params={label(knob): value for knob, value in zip(knobs, _params(knobs, record.unit), strict=True)},
        distributions={label(knob): _distribution(knob) for knob in knobs},
        user_attrs={"record": data, "checksum": checksum(data)} if meta else {},
        system_attrs=system,
        constraints={"violation": record.violation},
    )


def ceiling_of(records: Sequence[Record]) -> float:
    """The largest finite goal seen, 0 if none: what infeasible trials without a goal are placed above."""
    return max((record.goal for record in records if np.isfinite(record.goal)), default=0.0)


def _ask_optuna(
    name: str, knobs: Sequence[Knob], history: Sequence[Record], *, seed: int, start: int, batch: int, objectives: int
) -> FloatArray:
    optuna = quiet_optuna()
    study = optuna.create_study(directions=["minimize"] * objectives)
    ceiling = ceiling_of(history)
    for number, record in enumerate(history):
        generation = {_GENERATION: number // batch} if name == "nsga2" else None
        study.add_trial(frozen_trial(knobs, record, objectives=objectives, ceiling=ceiling, system=generation))
    distributions = {label(knob): _distribution(knob) for knob in knobs}
    units = []
    for k in range(batch):
        study.sampler = _optuna_sampler(name, _trial_seed(seed, start + k), batch)
        params = study.ask(distributions).params
        units.append([_unit(knob, params[label(knob)]) for knob in knobs])
    return np.array(units, dtype=np.float64).reshape(batch, len(knobs))


def _optuna_sampler(name: str, seed: int, batch: int) -> BaseSampler:
    from optuna.samplers import GPSampler, NSGAIISampler, TPESampler

    if name == "tpe":
        return TPESampler(seed=seed, multivariate=True, constant_liar=True)
    if name == "gp":
        return GPSampler(seed=seed)
    return NSGAIISampler(seed=seed, population_size=batch)


def _trial_seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _cma_generation(dimensions: int, history: Sequence[Record], *, seed: int, start: int, batch: int) -> FloatArray:
    """One generation of CMA-ES: replay the earlier ones, whose results are known, then ask."""
    from cmaes import CMA

    given = history[: len(history) - start]  # what came before the sampler's own trials
    best = min(given, key=_merit) if given else None
    mean = np.full(dimensions, 0.5) if best is None else np.asarray(best.unit)
    bounds = np.tile([0.0, 1.0], (dimensions, 1))
    optimizer = CMA(mean=mean, sigma=CMA_SPREAD, bounds=bounds, seed=seed % 2**32, population_size=batch)
    own = history[len(history) - start :]
    ceiling = ceiling_of(given)
    for first in range(0, start, batch):
        asked = [optimizer.ask() for _ in range(batch)]
        results = own[first : first + batch]
        # CMA-ES knows no constraints: an infeasible point ranks behind all feasible ones, by its violation.
        worst = max(ceiling, ceiling_of(own[: first + batch]))
        values = [r.goal if r.violation <= 0 else worst + r.violation for r in results]
        optimizer.tell(list(zip(asked, values, strict=True)))
    return np.asarray(np.clip(np.stack([optimizer.ask() for _ in range(batch)]), 0.0, 1.0), dtype=np.float64)


def _merit(record: Record) -> tuple[bool, float, float]:
    infeasible = record.violation > 0
    return infeasible, record.violation if infeasible else 0.0, record.goal


def label(knob: Knob) -> str:
    """The knob's name in Optuna; a learning rate whose range depends on the optimizer is kept as its position in it."""
    return f"{knob.name}_position" if knob.selector else knob.name


def _distribution(knob: Knob) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if knob.categorical:
        return CategoricalDistribution(knob.choices)
    axis = knob.axes[0]
    if knob.selector:
        return FloatDistribution(0.0, 1.0)
    if axis.integer:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(float(axis.low), float(axis.high), log=axis.log)


def _params(knobs: Sequence[Knob], unit: Sequence[float]) -> list[Any]:
    found: list[Any] = []
    for knob, u in zip(knobs, unit, strict=True):
        found.append(float(u) if knob.selector else knob.decode(np.array([u])).tolist()[0])
    return found


def _unit(knob: Knob, value: Any) -> float:
    return float(value) if knob.selector else float(knob.encode(np.array([value]))[0])
