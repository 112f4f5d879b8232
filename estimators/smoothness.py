r"""Smoothness: the largest eigenvalue of the Hessian and of the Gauss-Newton matrix of a risk F.

    top_curvature           lambda_max(H),  H = (1/n) sum_z grad^2 l(x; z)          loss/|x|^2
    gauss_newton_curvature  lambda_max(G),  G = (1/n) sum_z J_z^T (diag p - p p^T) J_z

Lanczos on m samples gives theta with a residual; both are facts about those m samples (``sample_estimate_``).  For the
risk of the whole split two errors remain, of opposite sign: the largest eigenvalue of a mean over m samples is too
large in expectation (lambda_max is convex), and the curvature along its vector on *fresh* samples is too small:

    E [v^T H_fresh v | v] = v^T H v <= lambda_max(H) <= E lambda_max(H_m)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast, get_args

import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from estimators.constants import Estimate
from estimators.cost import CostMeter
from estimators.curvature import LogitObjective, Product, gauss_newton_product, hessian_product
from estimators.gradient_rows import draw_samples
from estimators.heterogeneity import goal_weights
from estimators.lanczos import LanczosResult, random_direction, top_eigenvalue
from estimators.objectives import Objective
from estimators.outcomes import require_finite_losses
from estimators.tasks import Split

Kind = Literal["hessian", "gauss_newton"]


class TopCurvature(BaseEstimator):  # type: ignore[misc]
    """Largest eigenvalue of the Hessian or Gauss-Newton matrix by Lanczos.

    Args:
        kind: ``hessian`` or ``gauss_newton``.
        num_samples: samples that the matrix is averaged over; ``None`` for the whole split.
        max_products: matrix-vector products at most.
        tolerance: relative residual to stop at.
        random_state: seed of the draw and of the start vector.

    Attributes:
        lanczos_: value, residual, vector and products on the samples drawn.
        estimate_: lambda_max with [theta, theta + residual].
    """

    lanczos_: LanczosResult
    estimate_: Estimate

    def __init__(
        self,
        *,
        kind: Kind = "hessian",
        num_samples: int | None = None,
        max_products: int = 20,
        tolerance: float = 1e-3,
        random_state: int = 0,
    ) -> None:
        self.kind = kind
        self.num_samples = num_samples
        self.max_products = max_products
        self.tolerance = tolerance
        self.random_state = random_state

    def fit(
        self,
        objective: Objective,
        split: Split,
        weights: Tensor | None = None,
        *,
        start: Tensor | None = None,
        meter: CostMeter | None = None,
    ) -> TopCurvature:
        """Measure for one task at ``weights`` (default x_0), starting Lanczos from ``start`` (default random)."""
        return self.fit_goal({"task": objective}, {"task": split}, weights, start=start, meter=meter)

    def fit_goal(
        self,
        objectives: Mapping[str, Objective],
        splits: Mapping[str, Split],
        weights: Tensor | None = None,
        *,
        task_weights: Mapping[str, float] | None = None,
        start: Tensor | None = None,
        meter: CostMeter | None = None,
    ) -> TopCurvature:
        """Measure for F = sum_i p_i F_i; ``num_samples`` counts for each task."""
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind={self.kind!r} is not one of {', '.join(get_args(Kind))}; choose one of them")
        names = list(objectives)
        first = objectives[names[0]]
        point = first.initial if weights is None else weights
        samples = {
            name: draw_samples(
                splits[name], self.num_samples or len(splits[name]), self.random_state + i, device=point.device
            )
            for i, name in enumerate(names)
        }
        for name in names:
            with torch.no_grad():
                few = Split(inputs=samples[name].inputs[:32], labels=samples[name].labels[:32])
                require_finite_losses(objectives[name].losses(point, few.inputs, few.labels))
        shares = dict(zip(names, goal_weights(names, task_weights), strict=True))
        products = {name: self._product(objectives[name], point, samples[name], meter) for name in names}

        def weighted(vector: Tensor) -> Tensor:
            total = torch.zeros_like(vector)
            for name, product in products.items():
                total += float(shares[name]) * product(vector)
            return total

        begin = random_direction(point, self.random_state) if start is None else start
        self.lanczos_ = top_eigenvalue(weighted, begin, max_products=self.max_products, tolerance=self.tolerance)
        count = sum(len(item) for item in samples.values())
        found = self.lanczos_
        self.estimate_ = Estimate(
            value=found.value,
            low=found.value,
            high=found.value + found.residual,
            num_samples=count,
            cost=found.products * count * (4.0 if self.kind == "hessian" else 2.0),
            identifiable=found.value > 0 and found.residual <= 0.15 * abs(found.value),
            note=f"{found.products} products, residual {found.residual:.3g}",
        )
        return self

    def _product(self, objective: Objective, point: Tensor, samples: Split, meter: CostMeter | None) -> Product:
        if self.kind == "hessian":
            return lambda vector: hessian_product(objective, point, samples, vector, meter=meter)
        if not hasattr(objective, "logits"):
            raise TypeError("objective has no logits, which kind='gauss_newton' needs; use kind='hessian'")
        scored = cast(LogitObjective, objective)
        return lambda vector: gauss_newton_product(scored, point, samples, vector, meter=meter)
