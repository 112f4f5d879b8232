r"""How a budget of units for one task's constants is spent.

Shares of the units a task (``docs/estimators.md`` tells how they were chosen); a unit is a per-sample gradient, a
forward pass is 1/3 of one, a Hessian-vector product 4, a Gauss-Newton product 2 and v^T G_z v 1.
"""

from __future__ import annotations

from dataclasses import dataclass

LEAST_UNITS = 96.0
FULL_UNITS = 500.0  # from here on noise, drift, relative and critical curvature are affordable too
MOST_SINGLE = 128  # per-sample gradients are several times slower than batches of 8, which tell half as much a sample
GAUSS_NEWTON_PRODUCTS, HESSIAN_PRODUCTS = 4, 2
DIRECTION_UNITS = GAUSS_NEWTON_PRODUCTS * 2.0 + HESSIAN_PRODUCTS * 4.0 + 1.0  # a sample that finds the top direction
EXACT_UNITS = 5.0  # second derivative along a direction, by the whole Hessian and by the Gauss-Newton matrix
MOST_GRADIENTS = 2048  # of weighted draws: by then next to nothing is left to chance
OTHERS_UNITS = 1100.0  # further units go to gradients where samples are chosen, up to MOST_GRADIENTS
MOST_LEADING = 80  # gradients of so many samples make up the top direction next to wholly
NOISE_EXACT = 2
SHARPEST_UNITS = 12.0  # the sharpest sample's own Lanczos
SEARCH_UNITS = 1 + 11 / 3  # critical sharpness, a sample: a gradient and at most 11 forward passes


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleBudget:
    """Sample counts for one task; 0 leaves an estimator out.

    Attributes:
        risk_samples: forward passes for r_0.
        gradients: training gradients, a multiple of 8.
        single_gradients: how many of them sample by sample.
        heldout_gradients: held-out gradients.
        direction_samples: samples that find the top direction.
        fresh_samples: samples that measure the curvature along it.
        goal_direction_samples: the same for the goal, a task.
        goal_fresh_samples: the same for the goal, a task.
        noise_directions: draws of gradient noise whose curvature is taken.
        noise_samples: samples for each of them.
        noise_exact: how many of these take second derivatives.
        drift_samples: samples for the curvature along the mean gradient.
        drift_exact: how many of them take second derivatives.
        relative_samples: samples for each task's curvature along each other's gradient.
        relative_exact: how many of them take second derivatives.
        search_samples: samples of the critical sharpness search.
        leading_samples: gradients that make up the top direction, where samples are known beforehand.
        exact_samples: samples that measure what the Gauss-Newton matrix leaves out there.
        goal_leading_samples: gradients that make up the goal's, a task.
        goal_exact_samples: the same for the goal, a task.
    """

    risk_samples: int
    gradients: int
    single_gradients: int
    heldout_gradients: int
    direction_samples: int
    fresh_samples: int
    goal_direction_samples: int = 0
    goal_fresh_samples: int = 0
    noise_directions: int = 0
    noise_samples: int = 0
    noise_exact: int = 0
    drift_samples: int = 0
    drift_exact: int = 0
    relative_samples: int = 0
    relative_exact: int = 0
    search_samples: int = 0
    leading_samples: int = 0
    exact_samples: int = 0
    goal_leading_samples: int = 0
    goal_exact_samples: int = 0

    @classmethod
    def plan(cls, units: float, *, num_tasks: int = 1, known: bool = False) -> SampleBudget:
        """Spend ``units`` (at least 96) on one task of ``num_tasks``.

        ``known``: features of the training samples were kept, so that samples can be chosen
        (``estimators.sample_design``): gradients then tell far more and the top direction comes out of them.

        >>> SampleBudget.plan(2048, num_tasks=4).gradients
        592
        >>> [SampleBudget.plan(units, num_tasks=4, known=True).gradients for units in (1024, 2048, 4096)]
        [460, 1406, 2048]
        """
        if not units >= LEAST_UNITS:
            raise ValueError(
                f"max_units leaves {units:.0f} units a task, fewer than {LEAST_UNITS:.0f}; "
                "raise the budget of the constants or the longest training length"
            )
        if units >= FULL_UNITS:
            return cls._full(units, num_tasks, known=known)
        return cls._lean_known(units) if known else cls._lean(units)

    @classmethod
    def _lean(cls, units: float) -> SampleBudget:
        gradients = max(16, int(0.36 * units) // 8 * 8)
        rest = units - gradients - SHARPEST_UNITS
        return cls(
            risk_samples=int(0.12 * rest * 3),
            gradients=gradients,
            single_gradients=min(gradients, MOST_SINGLE),
            heldout_gradients=max(4, int(0.12 * rest)),
            direction_samples=max(1, int(0.45 * rest / DIRECTION_UNITS)),
            fresh_samples=max(4, int(0.30 * rest)),
        )

    @classmethod
    def _lean_known(cls, units: float) -> SampleBudget:
        gradients = min(MOST_GRADIENTS, int(0.48 * units), int(0.56 * units - 16))
        rest = units - gradients - SHARPEST_UNITS
        exact = max(2, int(0.15 * rest / EXACT_UNITS))
        return cls(
            risk_samples=int(0.20 * rest * 3),
            gradients=gradients,
            single_gradients=gradients,
            heldout_gradients=max(4, int(0.15 * rest)),
            direction_samples=0,
            fresh_samples=max(4, min(int(0.30 * rest), int(0.45 * rest - exact * EXACT_UNITS))),
            leading_samples=max(4, int(0.20 * rest)),
            exact_samples=exact,
        )

    @classmethod
    def _full(cls, units: float, num_tasks: int, *, known: bool) -> SampleBudget:
        directions = 12
        if known:
            total, units = units, min(units, OTHERS_UNITS)
            exact = max(2, int(0.04 * total / EXACT_UNITS))  # the one count that lambda_max cannot do without
            gradients = min(int(0.45 * units), int(0.53 * units - 70))  # few units: least counts
            gradients += int(total - units) - int(0.04 * (total - units))
            if gradients > MOST_GRADIENTS:
                gradients, units = MOST_GRADIENTS, (total - MOST_GRADIENTS) / 0.55
                exact = int(0.04 * units / EXACT_UNITS)
            top = {
                "direction_samples": 0,
                "fresh_samples": int(0.11 * units - SHARPEST_UNITS),
                "leading_samples": min(MOST_LEADING, int(0.05 * units)),
                "exact_samples": exact,
                "goal_fresh_samples": max(2, int(0.02 * units)),
                "goal_leading_samples": min(MOST_LEADING, max(2, int(0.03 * units))),
                "goal_exact_samples": 2,
            }
        else:
            gradients = int(0.29 * units) // 8 * 8
            top = {
                "direction_samples": int(0.19 * units / DIRECTION_UNITS),
                "fresh_samples": int(0.15 * units - SHARPEST_UNITS),
                "goal_direction_samples": max(1, int(0.04 * units / DIRECTION_UNITS)),
                "goal_fresh_samples": max(2, int(0.03 * units)),
            }
        return cls(
            **top,
            risk_samples=int(0.05 * units * 3),
            gradients=gradients,
            single_gradients=gradients if known else min(gradients, MOST_SINGLE),
            heldout_gradients=int(0.05 * units),
            noise_directions=directions,
            noise_samples=max(1, int(0.09 * units / directions) - 4 * NOISE_EXACT),
            noise_exact=NOISE_EXACT,
            drift_samples=max(2, int(0.01 * units)),
            drift_exact=max(1, int(0.02 * units / 8)),  # second derivatives and the product with the gradient
            relative_samples=max(2, int(0.04 * units / num_tasks) - 4),
            relative_exact=1,
            search_samples=max(4, int(0.05 * units / SEARCH_UNITS)),
        )
