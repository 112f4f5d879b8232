r"""The effective form: risk of every task after a merge, from what the experts' recipes amount to (``docs/theory.md``).

For task j, with u_i, v_i of ``advisor.displacement_law``, T_i, E_i of ``advisor.exposure``, G_j = ||grad F_j(x_0)||,
c_ij the cosine of the experts' drifts, and lambda_i the coefficients:

    progress        P = D_j f(m_j G_j lambda_j a_j u_j / D_j),   f(s) = 1 - (1 + s/alpha)^-alpha,   D_j = rho_j r0_j
    heterogeneity   H: the change of P when q_j sum_{i != j} c_ij lambda_i a_i u_i is added to lambda_j a_j u_j
    interference    I = h2_j/2 || sum_i lambda_i w_i ||^2_c,   w_i = u_i (1 + T_i/t_b)^(-p_b/2)     flatter as it goes
    noise           N = k_j sum_i lambda_i^2 E_i (32/b_i)^n heal_i fill_ij + h1_j/2 sum_i lambda_i^2 v_i
    collapse        X = x_j sum_i lambda_i^2 B_i (1 + K_i/(10 (1 + B_i)))^-p_x
    generalisation  Y = y_j lambda_j (sigma_j^2/n_j) log(1 + w T_j)/w
    a_i = (1 + sigma_i^2/(n_i G_i^2) log(1 + K_i b_i/n_i))^-1/2                signal in the drift: samples come again
    heal_i = (1 + T_i/t)^-p                                                  sharp directions flatten
    fill_ij = cool_ij (1 - 1/(1 + 2 s_j T_i))                1 at a constant rate, ``cooling`` where it falls to 0
    B_i = calm_i softplus(e_i L (1 + z/b_i) d/2 - 1)^2       1 at a constant rate, ``CALMED`` where it falls to 0
    Q = (I + N + X + Y) e^luck;   Q~ = Q (1 + Q/q0);   Q~ / (1 + Q~/R)                 steeper than quadratic, then flat
    risk_j = floor_j + softplus(r0_j - P + H + Q~ - floor_j),   floor_j = (1 - rho_j) r0_j

D_j is what can be gained; for s < 0 (others pull uphill) f(s) = s.  The jump beyond the edge heals with the number of
steps, more slowly the further beyond.  Every quantity but lambda and the cosines is positive, so the parameters are
fitted as logarithms (rho as a logit, n as it is), curvatures and times in units of the project (``UNITS``).  One
of task j is prior mean + width * shared + width_task * own_j; shared and own are standard normal a priori.  Experts of
the two families (SGD with momentum, AdamW) have their own parameters; drifts of experts of different families are taken
as orthogonal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.exposure import FAMILIES, Exposure, TaskScales
from advisor.plan import FloatArray, IntArray

TERMS = ("progress", "heterogeneity", "interference", "noise", "collapse", "generalisation")
FLOOR_SOFTNESS = 0.04  # of what can be gained: how sharply the risk bends before its floor
RISK_CEILING = 10.0  # nats: interference saturates about here (networks thrown far off: 4-10)
EDGE_SOFTNESS = 0.3  # in e L / 2
CALMED = 0.3  # of what lies beyond the edge remains where the rate falls to 0 (development suites)


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


# Chosen on predictions of long runs from probes, development data only (``docs/risk-model-log.md``).
PRIORS: dict[str, ParameterPrior] = {
    "gain": ParameterPrior(mean=(0.49, 1.04), width=0.35, task_width=0.3),
    "slope": ParameterPrior(mean=(-0.3, -1.12), width=0.3, task_width=0.3),
    "tail": ParameterPrior(mean=(0.19, 0.02), width=0.35, task_width=0.0),
    "help": ParameterPrior(mean=(0.63, 0.86), width=0.74, task_width=0.3),
    "drift_curvature": ParameterPrior(mean=(-2.64, -2.86), width=0.48, task_width=0.4),
    "bending": ParameterPrior(mean=(-1.37, -1.45), width=0.51, task_width=0.0),
    "bending_time": ParameterPrior(mean=(-0.35, -0.33), width=0.63, task_width=0.0),
    "walk_curvature": ParameterPrior(mean=(-6.08, -6.29), width=1.38, task_width=0.5),
    "noise": ParameterPrior(mean=(-0.93, -1.43), width=0.76, task_width=0.4),
    "noise_rate": ParameterPrior(mean=(2.01, 1.32), width=0.98, task_width=0.4),
    "noise_batch": ParameterPrior(mean=(-0.1, 0.04), width=0.13, task_width=0.0),
    "steepness": ParameterPrior(mean=(3.65, 3.65), width=0.8, task_width=0.2),
    "healing": ParameterPrior(mean=(-0.3, -0.47), width=0.26, task_width=0.0),
    "healing_time": ParameterPrior(mean=(1.24, 1.55), width=0.47, task_width=0.0),
    "collapse": ParameterPrior(mean=(-1.31, -0.9), width=0.69, task_width=0.3),
    "edge": ParameterPrior(mean=(-1.25, -1.13), width=0.98, task_width=0.0),
    "sample_edge": ParameterPrior(mean=(1.68, 2.66), width=0.47, task_width=0.0),
    "collapse_healing": ParameterPrior(mean=(-1.22, -0.99), width=0.38, task_width=0.0),
    "overfitting": ParameterPrior(mean=(-3.08, -2.38), width=1.22, task_width=0.3),
    "overfitting_rate": ParameterPrior(mean=(1.85, 1.47), width=0.79, task_width=0.0),
}
KINDS = tuple(PRIORS)
PLAIN = ("gain", "noise_batch")  # not logarithms
# kind -> power of (pace, sharpness / 100) that it is measured in; both are 1 loss/|x|^2 on the exploration tables.
UNITS = {
    "drift_curvature": (1, 0),
    "bending_time": (-1, 0),
    "overfitting_rate": (1, 0),
    "walk_curvature": (0, 1),
    "noise_rate": (0, 1),
    "healing_time": (0, -1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """What the risk form sees of M plans: the exposure and the experts' moves.

    Attributes:
        exposure: recipes in units of the tasks.
        linear: [M, N] coefficients of progress (lambda times the method's share of progress).
        square: [M, N] coefficients of interference.
        drift: [M, N] u.
        walk: [M, N] v.
        luck: [M] log factor of the interference Q of each plan (``advisor.run_luck``).
    """

    exposure: Exposure
    linear: FloatArray
    square: FloatArray
    drift: FloatArray
    walk: FloatArray
    luck: FloatArray


def prior_parameters(family: int) -> FloatArray:
    """Prior means [kinds, 1] of a family."""
    return np.array([[PRIORS[kind].mean[family]] for kind in KINDS])


def unpack(theta: FloatArray, family: int) -> FloatArray:
    """Standardised parameters [..., kinds, 1 + N] (shared first) -> transformed parameters [kinds, ..., N].

    S sets of them come out as [kinds, S, 1, N], ready to meet plans [M, N].
    """
    width = np.array([[PRIORS[kind].width] for kind in KINDS])
    own = np.array([[PRIORS[kind].task_width] for kind in KINDS])
    values = prior_parameters(family) + width * theta[..., :1] + own * theta[..., 1:]
    return values if theta.ndim == 2 else np.moveaxis(values, 0, 1)[:, :, None, :]


def task_risk(
    parameters: dict[int, FloatArray], moves: Moves, scales: TaskScales, cosines: FloatArray
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Risks [M, N] and their terms, r0 + sum of terms = risk.

    Args:
        parameters: family -> transformed parameters [kinds, N], or [kinds, S, 1, N] for S sets of them at once, which
            gives risks [S, M, N].
        moves: the plans.
        scales: constants of the tasks.
        cosines: [families, N, N] between the experts' drifts, or [N, N] for all families.
    """
    sets = next(iter(parameters.values())).shape[1:-2]
    shape = (*sets, *moves.drift.shape)
    progress, help_, floor, steep = np.zeros(shape), np.zeros(shape), np.zeros(shape), np.ones(shape)
    parts = {name: np.zeros(shape) for name in ("interference", "noise", "collapse", "generalisation")}
    cosines = np.broadcast_to(cosines, (len(FAMILIES), *cosines.shape[-2:]))
    off = cosines - np.eye(cosines.shape[-1])
    signal = moves.drift * signal_share(moves.exposure, scales)
    others = np.zeros(shape)
    natural: dict[int, dict[str, FloatArray]] = {}
    for family, values in parameters.items():
        mask = moves.exposure.family == family
        if mask.any():
            p = natural[family] = natural_parameters(values, scales)
            others += p["help"] * (np.where(mask, moves.linear * signal, 0.0) @ off[family])
    judges = _judges(moves)
    for family, p in natural.items():
        mask = judges == family
        gain = scales.initial_risk / (1 + np.exp(-p["gain"]))
        pull = p["slope"] * scales.gradient_norm / gain
        alone = gain * saturate(pull * moves.linear * signal, p["tail"])
        helped = gain * saturate(pull * (moves.linear * signal + others), p["tail"])
        progress = np.where(mask, alone, progress)
        help_ = np.where(mask, alone - helped, help_)
        floor = np.where(mask, scales.initial_risk - gain, floor)
        steep = np.where(mask, p["steepness"], steep)
        for name, value in _interference(p, moves.exposure.family == family, moves, scales, cosines[family]).items():
            parts[name] += value
    total = sum(parts.values()) * np.exp(moves.luck)[:, None]
    bent = total * (1 + total / steep)
    bent = bent / (1 + bent / RISK_CEILING)
    share = np.exp(moves.luck)[:, None] * bent / np.maximum(total, 1e-300)
    plain = scales.initial_risk - progress + help_ + bent
    softness = FLOOR_SOFTNESS * (scales.initial_risk - floor)
    risk = floor + softness * np.logaddexp(0.0, (plain - floor) / softness)
    terms = {name: value * share for name, value in parts.items()}
    terms["heterogeneity"] = help_
    terms["progress"] = risk - scales.initial_risk - help_ - bent
    return risk, {name: terms[name] for name in TERMS}


def signal_share(exposure: Exposure, scales: TaskScales) -> FloatArray:
    """a_i [M, N] in (0, 1]: the part of an expert's drift that follows the population's gradient.

    A gradient over n samples is G plus a sampling error of squared length sigma^2/n.  In the first epoch every batch is
    a fresh draw and the error averages out like noise; from then on the same errors come again and again.
    """
    error = scales.gradient_variance / (exposure.num_samples * scales.gradient_norm**2)
    epochs = exposure.steps * exposure.batch_size / exposure.num_samples
    return np.asarray(1 / np.sqrt(1 + error * np.log1p(epochs)))


def _judges(moves: Moves) -> IntArray:
    """Family whose parameters judge each task [M, N]: its own expert's, or the farthest moved expert's if left out."""
    family = moves.exposure.family
    leader = np.argmax(moves.linear * moves.drift, axis=1)
    return np.where(moves.linear > 0, family, np.take_along_axis(family, leader[:, None], axis=1))


def natural_parameters(values: FloatArray, scales: TaskScales) -> dict[str, FloatArray]:
    """Transformed parameters [kinds, ..., N] -> kind -> values in their own units [..., N]."""
    out = {}
    for kind, value in zip(KINDS, values, strict=True):
        pace, sharpness = UNITS.get(kind, (0, 0))
        unit = scales.pace**pace * (scales.sharpness / 100) ** sharpness
        out[kind] = value if kind in PLAIN else np.exp(value) * unit
    return out


def saturate(pull: FloatArray, tail: FloatArray) -> FloatArray:
    """f(s) = 1 - (1 + s/alpha)^-alpha for s >= 0, s below: slope 1 at 0, at most 1.

    >>> saturate(np.array([-0.5, 0.0, 1.0]), np.array([1.0])).tolist()
    [-0.5, 0.0, 0.5]
    """
    return np.asarray(np.where(pull >= 0, -np.expm1(-tail * np.log1p(np.maximum(pull, 0.0) / tail)), pull))


def _interference(
    p: dict[str, FloatArray], mask: NDArray[np.bool_], moves: Moves, scales: TaskScales, cosines: FloatArray
) -> dict[str, FloatArray]:
    """The four parts of Q, [M, N] each, from the experts of one family."""
    exposure = moves.exposure
    square = np.where(mask, moves.square, 0.0)
    squared = square**2
    bend = (1 + exposure.time / first(p["bending_time"])) ** (-0.5 * first(p["bending"]))
    reach = square * moves.drift * bend
    directed = np.sum((reach @ cosines) * reach, axis=-1, keepdims=True)
    heat = squared * exposure.temperature * (32 / exposure.batch_size) ** first(p["noise_batch"])
    heat = heat * (1 + exposure.time / first(p["healing_time"])) ** -first(p["healing"])
    rate, time = 2 * p["noise_rate"][..., None, :], exposure.time[..., None]  # turns: [..., M, experts, tasks]
    filled = 1 - 1 / (1 + rate * time)
    falls = exposure.falls.any(axis=1)
    if falls.any():
        filled[..., falls, :, :] *= np.where(exposure.falls[falls][..., None], cooling(rate * time[falls]), 1.0)
    filled = np.einsum("...e,...et->...t", heat, filled)
    beyond = edge_excess(p, exposure, scales) * np.where(exposure.falls, CALMED, 1.0)
    beyond = beyond * (1 + exposure.steps / (10 * (1 + beyond))) ** -first(p["collapse_healing"])
    rate = p["overfitting_rate"]
    sampled = scales.gradient_variance / exposure.num_samples * np.log1p(rate * exposure.time) / rate
    return {
        "interference": 0.5 * p["drift_curvature"] * directed,
        "noise": p["noise"] * filled + 0.5 * p["walk_curvature"] * np.sum(squared * moves.walk, axis=-1, keepdims=True),
        "collapse": p["collapse"] * np.sum(squared * beyond, axis=-1, keepdims=True),
        "generalisation": p["overfitting"] * np.where(mask, moves.linear, 0.0) * sampled,
    }


def cooling(turns: FloatArray) -> FloatArray:
    r"""Share of the noise that half a cosine leaves, against a constant rate over the same effective time.

    A direction of curvature s forgets its noise at the rate 2 s, so what is left at the end is int E 2 s e^(-2 s R) dT,
    R the time that remains.  Over exponentially distributed curvatures with mean s this is, x = 2 s T,

        int_0^1 cos^2(pi t/2) x / (1 + x r(t))^2 dr,    r(t) = 1 - t - sin(pi t)/pi,

    against 1 - 1/(1 + x) at a constant rate.  The ratio is 3/4 for x -> 0 and falls as x^-2/3; the fit used here, which
    takes square roots alone, is within 4 % of it up to x = 30 000.

    >>> cooling(np.array([0.0, 10.0, 1000.0])).round(2).tolist()
    [0.75, 0.38, 0.04]
    """
    return np.asarray(0.75 / np.sqrt(1 + turns * (0.2707 + 0.00497 * np.sqrt(turns))))


def first(values: FloatArray) -> FloatArray:
    """The first task's value, kept as an axis: for parameters that tasks share."""
    return values[..., :1]


def edge_excess(p: dict[str, FloatArray], exposure: Exposure, scales: TaskScales) -> FloatArray:
    """B_i: how far each expert is beyond the stability edge, squared, [M, N]."""
    curvature = scales.curvature * (1 + first(p["sample_edge"]) / exposure.batch_size)
    ratio = exposure.rate * curvature / 2 * first(p["edge"])
    return np.asarray((EDGE_SOFTNESS * np.logaddexp(0.0, (ratio - 1) / EDGE_SOFTNESS)) ** 2)


def family_index(optimizer: str) -> int:
    """Index of an optimizer's family in ``FAMILIES``."""
    return FAMILIES.index("adaptive" if optimizer == "adamw" else "gradient")
