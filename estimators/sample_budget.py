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

    @classmethod
    def plan(cls, units: float, *, num_tasks: int = 1) -> SampleBudget:
        """Spend ``units`` (at least 96) on one task of ``num_tasks``.

        >>> SampleBudget.plan(2048, num_tasks=4).gradients
        592
        """
        if not units >= LEAST_UNITS:
            raise ValueError(
                f"max_units leaves {units:.0f} units a task, fewer than {LEAST_UNITS:.0f}; "
                "raise the budget of the constants or the longest training length"
            )
        return cls._full(units, num_tasks) if units >= FULL_UNITS else cls._lean(units)

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
    def _full(cls, units: float, num_tasks: int) -> SampleBudget:
        gradients = int(0.29 * units) // 8 * 8
        directions = 12
        return cls(
            risk_samples=int(0.05 * units * 3),
            gradients=gradients,
            single_gradients=min(gradients, MOST_SINGLE),
            heldout_gradients=int(0.05 * units),
            direction_samples=int(0.19 * units / DIRECTION_UNITS),
            fresh_samples=int(0.15 * units - SHARPEST_UNITS),
            goal_direction_samples=max(1, int(0.04 * units / DIRECTION_UNITS)),
            goal_fresh_samples=max(2, int(0.03 * units)),
            noise_directions=directions,
            noise_samples=max(1, int(0.09 * units / directions) - 4 * NOISE_EXACT),
            noise_exact=NOISE_EXACT,
            drift_samples=max(2, int(0.01 * units)),
            drift_exact=max(1, int(0.02 * units / 8)),  # second derivatives and the product with the gradient
            relative_samples=max(2, int(0.04 * units / num_tasks) - 4),
            relative_exact=1,
            search_samples=max(4, int(0.05 * units / SEARCH_UNITS)),
        )
