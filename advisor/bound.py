r"""The worst-case bound on the excess risk of the merge, E[f(x_avg) - f*]; derivation in ``docs/theory.md`` section 2.

    total         = generalisation + optimization
    optimization  = min{progress + heterogeneity + drift + noise, trust region}
    progress      = e^{-mu T} Delta_0
    heterogeneity + drift = (1 - e^{-mu T})/mu * (sqrt(H) + D)^2/2
    generalisation = sqrt(2 L E F(x_avg) S) + (L/2) S,   S = sum p_i lambda_i^2 s_i

M plans of N tasks at once; T = sum lambda_i eta_i ||a_i||_1.  It is for understanding: its number on networks is far
above what happens, and ``advisor.validity`` names what a real training breaks.  Every term is kept as a natural
logarithm, since (1 + eta L)^{2K} leaves the range of a float long before it stops being comparable.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from advisor import bound_terms as terms
from advisor.bound_constants import BoundConstants, from_constants
from advisor.bound_growth import StepVectors
from advisor.plan import PlanTable

__all__ = ["BoundConstants", "Form", "Growth", "RiskTerms", "from_constants", "worst_case"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Form = Literal["refined", "paper"]
Growth = Literal["general", "convex"]

CHUNK = 8192  # experts at a time, so that the intermediate arrays stay in the cache
LOG_SAFE = 150.0  # a root-mean-square length above e^150 gets its own unit: squares stay below 1e308
STEEPEST = 1e50  # eta L beyond which eta^2 and the like would overflow
LEAST_COEFFICIENT = 1e-30  # below it, but above 0, the square of lambda d could vanish beside a d without bound
LN10 = math.log(10.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RiskTerms:
    """The bound's terms for M plans, as natural logarithms; the properties give the values, in loss.

    A value above 1.8e308 reads as infinity, its logarithm stays finite; a term that is exactly 0 has the logarithm
    -infinity.  None is ever NaN.

    Attributes:
        log_progress: [M] what of the initial gap is left.
        log_heterogeneity: [M] cost of following shares w instead of the goal weights p.
        log_drift: [M] cost of gradients taken at the experts instead of at the merge.
        log_noise: [M] cost of gradient noise.
        log_trust_region: [M] the other bound of the optimisation part, from the length of the way alone.
        log_merged_risk: [M] bound on E F(x_avg), the empirical risk of the merge.
        log_generalisation: [M] E[f(x_avg) - F(x_avg)].
        log_displacement: [M, N] d_i, |x|.
        log_stability: [M, N] s_i, |x|^2.
        shares: [M, N] w_i.
        chi_square: [M] divergence of the shares from the goal weights.
        contracting: [M, N] where g = 1 was used; elsewhere g = 1 + eta L a_k.
        initial_risk: F(x_0), the loss above which the bound says nothing.
    """

    log_progress: FloatArray
    log_heterogeneity: FloatArray
    log_drift: FloatArray
    log_noise: FloatArray
    log_trust_region: FloatArray
    log_merged_risk: FloatArray
    log_generalisation: FloatArray
    log_displacement: FloatArray
    log_stability: FloatArray
    shares: FloatArray
    chi_square: FloatArray
    contracting: BoolArray
    initial_risk: float

    def __len__(self) -> int:
        return len(self.log_progress)

    @property
    def log_descent(self) -> FloatArray:
        """Logarithm of progress + heterogeneity + drift + noise, shape [M]."""
        left = np.logaddexp(self.log_progress, self.log_noise)
        return np.logaddexp(left, np.logaddexp(self.log_heterogeneity, self.log_drift))

    @property
    def log_optimization(self) -> FloatArray:
        """Logarithm of the bound on E[F(x_avg) - F*], shape [M]."""
        return np.minimum(self.log_descent, self.log_trust_region)

    @property
    def log_total(self) -> FloatArray:
        """Logarithm of the bound on E[f(x_avg) - f*], shape [M]."""
        return np.logaddexp(self.log_generalisation, self.log_optimization)

    @property
    def optimization(self) -> FloatArray:
        """Bound on E[F(x_avg) - F*], shape [M]."""
        return self.value("optimization")

    @property
    def total(self) -> FloatArray:
        """Bound on the excess risk E[f(x_avg) - f*], shape [M]."""
        return self.value("total")

    @property
    def vacuous(self) -> BoolArray:
        """Where the bound is no lower than F(x_0), which x_0 itself guarantees, shape [M]."""
        return np.asarray(self.log_total >= _log(self.initial_risk))

    def value(self, name: str) -> FloatArray:
        """A term or sum by name, e.g. ``progress``, ``drift``, ``displacement``, ``total``."""
        with np.errstate(over="ignore"):
            return np.exp(self._log_of(name))

    def log10(self, name: str) -> FloatArray:
        """Its decimal logarithm, finite also where the value is not."""
        return self._log_of(name) / LN10

    def _log_of(self, name: str) -> FloatArray:
        known = [field.name[4:] for field in dataclasses.fields(self) if field.name.startswith("log_")]
        known += ["descent", "optimization", "total"]
        if name not in known:
            raise ValueError(f"name={name!r} is no term of the bound; the terms are {', '.join(known)}")
        log: FloatArray = getattr(self, f"log_{name}")
        return log


def worst_case(
    constants: BoundConstants, plans: PlanTable, form: Form = "refined", growth: Growth = "general"
) -> RiskTerms:
    """The bound's terms for every plan of a table.

    Args:
        constants: what is known of the tasks, in the table's order.
        plans: M plans; AdamW is taken as SGD with the same step vector, which no theorem covers (``validity`` says so).
        form: stability ``refined`` (this project's derivation, capped by 2 d_i) or the ``paper``'s, linear in b.
        growth: ``convex`` says that every sample's loss is convex; g = 1 is then used where momentum is 0 and
            eta a_k <= 2/L, and ``contracting`` tells where that was.
    """
    if form not in ("refined", "paper"):
        raise ValueError(f"form={form!r} must be 'refined' or 'paper'; choose one of them")
    if growth not in ("general", "convex"):
        raise ValueError(f"growth={growth!r} must be 'general' or 'convex'; choose one of them")
    _check_table(constants, plans)
    rows = max(1, CHUNK // len(plans.names))
    parts = [_terms(constants, _cut(plans, begin, begin + rows), form, growth) for begin in range(0, len(plans), rows)]
    if len(parts) == 1:
        return parts[0]
    arrays = [field.name for field in dataclasses.fields(RiskTerms) if field.name != "initial_risk"]
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
    return RiskTerms(**joined, initial_risk=constants.goal_risk)


def _check_table(constants: BoundConstants, plans: PlanTable) -> None:
    if plans.names != constants.names:
        raise ValueError(f"plans name the tasks {plans.names}, constants {constants.names}; use the same in one order")
    steepest = float(np.max(plans.learning_rate)) * constants.smoothness
    if not steepest <= STEEPEST:
        raise ValueError(
            f"learning_rate * smoothness={steepest:.3g} must not exceed {STEEPEST:g}; no step of that length is meant"
        )
    least = float(np.min(plans.coefficients, where=plans.coefficients != 0, initial=math.inf))
    if not least >= LEAST_COEFFICIENT:
        raise ValueError(
            f"coefficient={least:.3g} must be 0 or at least {LEAST_COEFFICIENT:g}; the bound is proved for none "
            "below 0, and 0 leaves a task out"
        )


def _cut(plans: PlanTable, begin: int, end: int) -> PlanTable:
    if begin == 0 and end >= len(plans):
        return plans
    columns = {
        name: getattr(plans, name)[begin:end]
        for name in (field.name for field in dataclasses.fields(PlanTable))
        if name != "names"
    }
    return PlanTable(names=plans.names, **columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Experts:
    """What the terms need of the single experts, lengths in each plan's own unit."""

    vectors: StepVectors
    momentum: BoolArray | None
    displacement: FloatArray  # d_i/u, [M, N], 0 where the coefficient is
    stability: FloatArray  # s_i/u^2, [M, N], likewise
    log_displacement: FloatArray
    log_stability: FloatArray
    gradient_norm: FloatArray  # G_i/u
    gradient_variance: FloatArray  # sigma_i^2/u^2
    unit: FloatArray  # 1/u, [M]
    log_unit: FloatArray  # log u, [M]
    contracting: BoolArray
    fewer: FloatArray  # [M, N] (1/n_i - 1/n_i of the constants) sigma_i^2 where positive, in loss^2/|x|^2


def _experts(c: BoundConstants, plans: PlanTable, form: Form, growth: Growth) -> _Experts:
    rate, batch, samples, variance = plans.learning_rate, plans.batch_size, plans.num_samples, c.gradient_variance
    vectors = StepVectors.of(plans)
    momentum = None if len(vectors.groups) == 0 else plans.momentum > 0
    bare = np.ones_like(vectors.plain) if momentum is None else ~momentum
    # Fewer samples than the constants rest on make grad F_i(x_0) noisier: E||grad F_i||^2 = ||grad f_i||^2 + Var/n.
    fewer = variance * np.maximum(1 / samples - 1 / c.num_samples, 0.0)
    gradient = np.sqrt(c.initial_gradient_norm**2 + fewer)

    steepness = rate * c.smoothness
    contracting = bare & (steepness * vectors.peak <= 2) if growth == "convex" else np.zeros_like(vectors.plain)
    log_q1, log_q2 = vectors.log_growth(steepness, plans.steps, contracting if growth == "convex" else None)
    log_d = terms.log_displacement_by_growth(rate, batch, gradient, variance, log_q1, log_q2)
    descent = terms.displacement_by_descent(
        rate, batch, vectors.mass, vectors.energy, c.task_smoothness, c.gap_of_tasks, variance
    )
    usable = bare & (rate * vectors.peak * c.task_smoothness <= 1)
    log_d = np.where(usable, np.minimum(log_d, np.log(descent)), log_d)
    if form == "paper":
        log_s = terms.log_paper_stability(rate, batch, samples, variance, log_q2)
    else:
        log_s = terms.log_refined_stability(rate, batch, samples, variance, log_q1, log_q2)
        log_s = np.minimum(log_s, 2 * (math.log(2) + log_d))

    # An expert with coefficient 0 moves nothing, however far it went: it must not set the unit.
    absent = np.where(plans.coefficients > 0, 0.0, -np.inf)
    longest = (np.maximum(log_d, 0.5 * log_s) + absent).max(axis=1)
    log_unit = np.where(longest > LOG_SAFE, longest, 0.0)
    unit, shift = np.exp(-log_unit), absent - log_unit[:, None]
    return _Experts(
        vectors=vectors,
        momentum=momentum,
        displacement=np.exp(log_d + shift),
        stability=np.exp(log_s + 2 * shift),
        log_displacement=log_d,
        log_stability=log_s,
        gradient_norm=gradient * unit[:, None],
        gradient_variance=variance * unit[:, None] ** 2,
        unit=unit,
        log_unit=log_unit,
        contracting=contracting,
        fewer=fewer,
    )


def _terms(c: BoundConstants, plans: PlanTable, form: Form, growth: Growth) -> RiskTerms:
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        e = _experts(c, plans, form, growth)
        travelled = plans.coefficients * plans.learning_rate * e.vectors.mass
        travel = travelled.sum(axis=1)
        decay = c.pl_constant * travel
        share = terms.shares(travelled, c.task_weights)
        heterogeneity, drift = _interference(c, plans, e, share, terms.memory(travel, c.pl_constant))
        sums = e.vectors.noise_sum(decay[:, None], plans.steps)
        noise = terms.noise(
            c.smoothness, plans.learning_rate, plans.batch_size, c.gradient_variance, plans.coefficients, sums
        )

        far = terms.reach(plans.coefficients, e.displacement)
        norm = e.unit * terms.mismatch_norm(c.task_weights, c.gradient_gram, e.fewer)  # ||grad F(x_0)||
        square, back = e.unit**2, 2 * e.log_unit
        # F* <= F(x_0) - floor, so that E F(x_avg) <= F* + descent stays on the safe side
        forgotten = -np.expm1(-decay) * c.initial_gap_floor
        by_descent = (c.goal_risk - forgotten + noise) * square + heterogeneity + drift
        by_trust = terms.trust_region(c.goal_risk * square, norm, c.smoothness, far)
        merged = np.minimum(by_descent, by_trust)
        stability = terms.stability_sum(c.task_weights, plans.coefficients, e.stability)
        return RiskTerms(
            log_progress=terms.log_progress(c.initial_gap, decay),
            log_heterogeneity=np.log(heterogeneity) + back,
            log_drift=np.log(drift) + back,
            log_noise=np.log(noise),
            log_trust_region=np.log(terms.trust_region(c.initial_gap * square, norm, c.smoothness, far)) + back,
            log_merged_risk=np.log(merged) + back,
            log_generalisation=np.log(terms.generalisation(c.smoothness, merged, stability)) + back,
            log_displacement=e.log_displacement,
            log_stability=e.log_stability,
            shares=share,
            chi_square=terms.chi_square(c.task_weights, share),
            contracting=e.contracting,
            initial_risk=c.goal_risk,
        )


def _interference(
    c: BoundConstants, plans: PlanTable, e: _Experts, share: FloatArray, memory: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The heterogeneity and the drift term in each plan's unit, [M] each."""
    length = terms.last_step_length(
        plans.learning_rate,
        plans.batch_size,
        e.vectors.peak,
        e.gradient_norm,
        c.task_smoothness,
        e.gradient_variance,
        e.displacement,
    )
    if e.momentum is not None:  # one step of a heavy ball carries older gradients too
        length = np.where(e.momentum, np.inf, length)
    far = terms.reach(plans.coefficients, e.displacement)
    mismatch = e.unit * terms.mismatch_norm(c.task_weights - share, c.gradient_gram, e.fewer)
    root_h = terms.heterogeneity_norm(mismatch, share, c.task_weights, c.task_smoothness, far)
    root_d = terms.drift_norm(share, c.task_smoothness, plans.coefficients, e.displacement, length)
    return terms.interference(memory, root_h, root_d), terms.interference(memory, root_d, root_h)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf
