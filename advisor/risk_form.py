r"""The effective form: risk of every task after a merge, from what the experts' recipes amount to (``docs/theory.md``).

For task j, with u_i, v_i of ``advisor.displacement_law``, T_i, E_i of ``advisor.exposure``, G_j = ||grad F_j(x_0)||,
c_ij the cosine of the experts' drifts, and lambda_i the coefficients:

    progress        P = D_j (1 - (1 + m_j G_j lambda_j u_j / (alpha D_j))^-alpha),   D_j = rho_j r0_j what can be gained
    heterogeneity   H = - q_j sum_{i != j} c_ij G_j lambda_i u_i                     others' drift along j's gradient
    drift           I = h2_j/2 || sum_i lambda_i u_i ||^2_c                          directed parts add as vectors
    noise           N = k_j sum_i lambda_i^2 E_i heal_i (1 - 1/(1 + 2 s_j T_i)) + h1_j/2 sum_i lambda_i^2 v_i
    collapse        X = x_j sum_i lambda_i^2 heal_i softplus(log(e_i L_i (1 + z/b_i)/2) + d)^2      beyond the edge
    generalisation  Y = y_j lambda_j (sigma_j^2/n_j) log(1 + w T_j)/w
    heal_i = (1 + T_i/t)^-p                                                          the jump above the edge heals
    Q = I + N + X + Y;   Q~ = Q (1 + Q/q0);   Q~ / (1 + Q~/R)                         steeper than quadratic, then flat
    risk_j = floor_j + softplus(r0_j - P + H + Q~ - floor_j),   floor_j = (1 - rho_j) r0_j

Every quantity but lambda and the cosines is positive, so the parameters are fitted as logarithms (rho as a logit).
A parameter of task j is prior mean + width * shared + width_task * own_j; shared and own are standard normal a priori.
Experts of the two families (SGD with momentum, AdamW) have their own parameters; drifts of experts of different
families are taken as orthogonal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from advisor.exposure import FAMILIES, Exposure, TaskScales
from advisor.plan import FloatArray

TERMS = ("progress", "heterogeneity", "interference", "noise", "collapse", "generalisation")
FLOOR_SOFTNESS = 0.03  # nats: how sharply the risk bends before its floor
RISK_CEILING = 10.0  # nats: interference saturates about here (networks thrown far off: 4-10)
EDGE_SOFTNESS = 0.25  # in log(e L / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterPrior:
    """Prior of one kind of parameter, on its transformed scale.

    Attributes:
        mean: family -> prior mean.
        width: standard deviation shared by tasks.
        task_width: standard deviation of a task's own deviation.
    """

    mean: tuple[float, float]
    width: float
    task_width: float


# From fits to all rows of the development suites (``docs/risk-model-log.md``).
PRIORS: dict[str, ParameterPrior] = {
    "gain": ParameterPrior(mean=(0.5, 0.5), width=0.7, task_width=0.5),
    "slope": ParameterPrior(mean=(0.0, 0.0), width=0.5, task_width=0.3),
    "tail": ParameterPrior(mean=(0.0, 0.0), width=0.5, task_width=0.01),
    "help": ParameterPrior(mean=(-1.2, -1.2), width=0.5, task_width=0.3),
    "drift_curvature": ParameterPrior(mean=(-2.5, -2.5), width=1.0, task_width=0.5),
    "walk_curvature": ParameterPrior(mean=(-5.0, -5.0), width=1.5, task_width=0.5),
    "noise": ParameterPrior(mean=(-3.0, -3.0), width=1.0, task_width=0.5),
    "noise_rate": ParameterPrior(mean=(2.0, 2.0), width=1.0, task_width=0.5),
    "steepness": ParameterPrior(mean=(1.5, 1.5), width=1.0, task_width=0.3),
    "healing": ParameterPrior(mean=(-0.7, -0.7), width=0.5, task_width=0.01),
    "healing_time": ParameterPrior(mean=(-1.0, -1.0), width=1.0, task_width=0.01),
    "collapse": ParameterPrior(mean=(-0.7, -0.7), width=0.7, task_width=0.3),
    "edge": ParameterPrior(mean=(0.0, -2.0), width=0.3, task_width=0.01),
    "sample_edge": ParameterPrior(mean=(1.5, 1.5), width=0.7, task_width=0.01),
    "overfitting": ParameterPrior(mean=(0.0, 0.0), width=1.0, task_width=0.3),
    "overfitting_rate": ParameterPrior(mean=(1.5, 1.5), width=1.0, task_width=0.01),
}
KINDS = tuple(PRIORS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """What the risk form sees of M plans: the exposure and the experts' moves.

    Attributes:
        exposure: recipes in units of the tasks.
        linear: [M, N] coefficients of progress (lambda times the method's share of progress).
        square: [M, N] coefficients of interference.
        drift: [M, N] u.
        walk: [M, N] v.
    """

    exposure: Exposure
    linear: FloatArray
    square: FloatArray
    drift: FloatArray
    walk: FloatArray


def prior_parameters(family: int) -> FloatArray:
    """Prior means [kinds, 1] of a family."""
    return np.array([[PRIORS[kind].mean[family]] for kind in KINDS])


def unpack(theta: FloatArray, family: int) -> FloatArray:
    """Standardised parameters [kinds, 1 + N] (shared first) -> transformed parameters [kinds, N]."""
    width = np.array([[PRIORS[kind].width] for kind in KINDS])
    own = np.array([[PRIORS[kind].task_width] for kind in KINDS])
    return np.asarray(prior_parameters(family) + width * theta[:, :1] + own * theta[:, 1:])


def task_risk(
    parameters: dict[int, FloatArray], moves: Moves, scales: TaskScales, cosines: FloatArray
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Risks [M, N] and their terms, r0 + sum of terms = risk.

    Args:
        parameters: family -> transformed parameters [kinds, N].
        moves: the plans.
        scales: constants of the tasks.
        cosines: [N, N] between the experts' drifts.
    """
    shape = moves.drift.shape
    progress, help_, floor = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    parts = {name: np.zeros(shape) for name in ("interference", "noise", "collapse", "generalisation")}
    steep = np.zeros(shape)
    weight = np.zeros(shape)
    for family, values in parameters.items():
        mask = moves.exposure.family == family
        if not mask.any():
            continue
        p = {kind: (values[k] if kind == "gain" else np.exp(values[k])) for k, kind in enumerate(KINDS)}
        gain = scales.initial_risk / (1 + np.exp(-p["gain"]))
        linear, square = np.where(mask, moves.linear, 0.0), np.where(mask, moves.square, 0.0)
        pull = p["slope"] * scales.gradient_norm * linear * moves.drift / gain
        progress += np.where(mask, gain * -np.expm1(-p["tail"] * np.log1p(pull / p["tail"])), 0.0)
        floor = np.where(mask, scales.initial_risk - gain, floor)
        steep = np.where(mask, p["steepness"], steep)
        weight += mask
        off = cosines - np.eye(len(cosines))
        help_ -= p["help"] * scales.gradient_norm * ((linear * moves.drift) @ off)
        for name, value in _interference(p, linear, square, moves, scales, cosines).items():
            parts[name] += value
    total = sum(parts.values())
    bent = total * (1 + total / steep)
    bent = bent / (1 + bent / RISK_CEILING)
    share = bent / np.maximum(total, 1e-300)
    plain = scales.initial_risk - progress + help_ + bent
    risk = floor + FLOOR_SOFTNESS * np.logaddexp(0.0, (plain - floor) / FLOOR_SOFTNESS)
    terms = {name: value * share for name, value in parts.items()}
    terms["heterogeneity"] = help_
    terms["progress"] = risk - scales.initial_risk - help_ - bent
    return risk, {name: terms[name] for name in TERMS}


def _interference(
    p: dict[str, FloatArray],
    linear: FloatArray,
    square: FloatArray,
    moves: Moves,
    scales: TaskScales,
    cosines: FloatArray,
) -> dict[str, FloatArray]:
    """The four parts of Q, [M, N] each, from the experts of one family."""
    exposure = moves.exposure
    reach = square * moves.drift
    directed = np.einsum("mi,ij,mj->m", reach, cosines, reach, optimize=True)
    squared = square**2
    heal = (1 + exposure.time / p["healing_time"][0]) ** -p["healing"][0]
    heat = squared * exposure.temperature * exposure.anneal * heal
    filled = np.stack(
        [(heat * (1 - 1 / (1 + 2 * rate * exposure.time))).sum(axis=1) for rate in p["noise_rate"]], axis=1
    )
    beyond = edge_excess(p, exposure, scales)
    rate = p["overfitting_rate"]
    return {
        "interference": 0.5 * p["drift_curvature"] * directed[:, None],
        "noise": p["noise"] * filled + 0.5 * p["walk_curvature"] * (squared * moves.walk).sum(axis=1)[:, None],
        "collapse": p["collapse"] * (squared * heal * beyond).sum(axis=1)[:, None],
        "generalisation": p["overfitting"]
        * linear
        * scales.gradient_variance
        / exposure.num_samples
        * np.log1p(rate * exposure.time)
        / rate,
    }


def edge_excess(p: dict[str, FloatArray], exposure: Exposure, scales: TaskScales) -> FloatArray:
    """How far each expert is beyond the stability edge, squared and in log units, [M, N]."""
    curvature = scales.curvature * (1 + p["sample_edge"][0] / exposure.batch_size)
    distance = np.log(exposure.rate * curvature / 2) + np.log(p["edge"][0])
    return np.asarray((EDGE_SOFTNESS * np.logaddexp(0.0, distance / EDGE_SOFTNESS)) ** 2)


def family_index(optimizer: str) -> int:
    """Index of an optimizer's family in ``FAMILIES``."""
    return FAMILIES.index("adaptive" if optimizer == "adamw" else "gradient")
