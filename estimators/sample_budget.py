r"""How a budget of units for one task's constants is spent.

Shares of the units a task (``docs/estimators.md`` tells how they were chosen); a unit is a per-sample gradient, a
forward pass is 1/3 of one and a Hessian-vector product 4.
"""

from __future__ import annotations

from dataclasses import dataclass

from estimators.cost import FORWARD_UNITS, HESSIAN_PRODUCT_UNITS

LEAST_UNITS = 200.0
RISK_SHARE = 0.06
GRADIENT_SHARE = 0.36
HELDOUT_SHARE = 0.05
CURVATURE_SHARE = 0.48
PRODUCTS = 8
MOST_SINGLE = 128  # per-sample gradients are several times slower than batches of 8, which tell half as much a sample


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleBudget:
    """Sample counts for one task.

    Attributes:
        risk_samples: forward passes for r_0.
        gradients: training gradients.
        single_gradients: how many of them sample by sample.
        heldout_gradients: held-out gradients.
        curvature_samples: samples of a curvature product.
        curvature_products: products.
    """

    risk_samples: int
    gradients: int
    single_gradients: int
    heldout_gradients: int
    curvature_samples: int
    curvature_products: int

    @classmethod
    def plan(cls, units: float) -> SampleBudget:
        """Spend ``units`` (at least 200) on one task.

        >>> SampleBudget.plan(2048).gradients
        736
        """
        if not units >= LEAST_UNITS:
            raise ValueError(
                f"max_units leaves {units:.0f} units a task, below {LEAST_UNITS:.0f}; raise the budget of constants"
            )
        gradients = int(GRADIENT_SHARE * units) // 8 * 8
        return cls(
            risk_samples=int(RISK_SHARE * units / FORWARD_UNITS),
            gradients=gradients,
            single_gradients=min(gradients, MOST_SINGLE),
            heldout_gradients=max(8, int(HELDOUT_SHARE * units)),
            curvature_samples=max(4, int(CURVATURE_SHARE * units / (HESSIAN_PRODUCT_UNITS * PRODUCTS))),
            curvature_products=PRODUCTS,
        )
