"""Merged risks of quadratic tasks in closed form: SGD's mean and variance in the eigenbasis, no simulation.

Task j has excess 1/2 sum_k h_k (x_k - m_jk)^2 over a floor, gradient noise of variance s_k^2 in direction k; an expert
starts at 0 and after K steps of SGD at rate eta and batch b has

    mean_k = m_k (1 - (1 - eta h_k)^K),   variance_k = eta^2 s_k^2 / b (1 - r^(2K)) / (1 - r^2),   r = 1 - eta h_k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advisor.observations import DisplacementTrace, MergeObservation, ProbeData
from advisor.plan import Plan
from estimators.constants import Constants, Estimate, TaskConstants
from estimators.recipe import Recipe

Array = NDArray[np.float64]


def exact(value: float) -> Estimate:
    return Estimate(value=value, low=value, high=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuadraticWorld:
    """Tasks that share their Hessian's eigenbasis; x_0 is 0."""

    names: tuple[str, ...]
    curvature: Array  # [P]
    minima: Array  # [N, P]
    noise: Array  # [P] variance of one sample's gradient
    floor: float = 0.3

    @classmethod
    def drawn(cls, names: tuple[str, ...] = ("a", "b", "c"), size: int = 60, seed: int = 0) -> QuadraticWorld:
        """A spectrum over three decades; tasks share half of their minimum; noise follows curvature."""
        generator = np.random.default_rng(seed)
        curvature = np.geomspace(40.0, 0.04, size)
        shared = generator.standard_normal(size)
        own = generator.standard_normal((len(names), size))
        minima = (0.5 * shared + own) * np.sqrt(0.06 / size / curvature)
        return cls(names=names, curvature=curvature, minima=minima * np.sqrt(10.0), noise=curvature / size * 4.0)

    def risk(self, j: int, mean: Array, variance: Array) -> float:
        return self.floor + 0.5 * float(np.sum(self.curvature * ((mean - self.minima[j]) ** 2 + variance)))

    def expert(self, j: int, recipe: Recipe) -> tuple[Array, Array]:
        """Mean and variance of the weights [P]."""
        r = 1 - recipe.learning_rate * self.curvature
        mean = self.minima[j] * (1 - r**recipe.steps)
        growth = (1 - r ** (2 * recipe.steps)) / (1 - r**2)
        return mean, recipe.learning_rate**2 * self.noise / recipe.batch_size * growth

    def observe(self, plan: Plan, seed: int = 0, noise: float = 0.001) -> MergeObservation:
        """The exact expected risk of a merge, as a measurement."""
        experts = {name: self.expert(self.names.index(name), plan.recipes[name]) for name in plan.names}
        mean = sum((plan.coefficients[n] * m for n, (m, _) in experts.items()), np.zeros(len(self.curvature)))
        variance = sum((plan.coefficients[n] ** 2 * v for n, (_, v) in experts.items()), np.zeros(len(self.curvature)))
        zero = np.zeros(len(self.curvature))
        return MergeObservation(
            plan=plan,
            risks={name: self.risk(j, mean, variance) for j, name in enumerate(self.names)},
            initial_risks={name: self.risk(j, zero, zero) for j, name in enumerate(self.names)},
            num_samples=1000,
            noise=dict.fromkeys(self.names, noise),
            squared_displacements={name: float(np.sum(m**2 + v)) for name, (m, v) in experts.items()},
            seed=seed,
        )

    def constants(self) -> Constants:
        gradients = -self.curvature * self.minima
        tasks = {
            name: TaskConstants(
                initial_risk=exact(self.risk(j, np.zeros(len(self.curvature)), np.zeros(len(self.curvature)))),
                initial_gradient_norm=exact(float(np.linalg.norm(gradients[j]))),
                gradient_variance=exact(float(self.noise.sum())),
                top_curvature=exact(float(self.curvature.max())),
            )
            for j, name in enumerate(self.names)
        }
        gram = gradients @ gradients.T
        return Constants(
            tasks=tasks,
            num_samples=dict.fromkeys(self.names, 10_000),
            num_classes=dict.fromkeys(self.names, 2),
            num_parameters=len(self.curvature),
            gradient_gram=tuple(tuple(exact(float(cell)) for cell in row) for row in gram),
        )

    def probes(self, rates: tuple[float, ...] = (0.003, 0.01, 0.03), steps: int = 40) -> ProbeData:
        """Probes at some rates, two batch sizes, merged at five coefficients, with a trace each."""
        merges, traces = [], []
        for rate in rates:
            for batch in (8, 32):
                for length in (steps // 4, steps):
                    recipe = Recipe(learning_rate=rate, batch_size=batch, steps=length)
                    for coefficient in (0.25, 0.5, 1.0, 2.0, 4.0):
                        merges.append(self.observe(Plan.uniform(self.names, recipe, coefficient)))
                looks = np.array([1, 2, 4, 8, 16, steps])
                for j, name in enumerate(self.names):
                    parts = [self.expert(j, recipe.replace(steps=int(k))) for k in looks]
                    traces.append(
                        DisplacementTrace(
                            task=name,
                            recipe=recipe,
                            seed=0,
                            steps=looks,
                            squared_displacements=np.array([np.sum(m**2 + v) for m, v in parts]),
                            losses=np.ones(len(looks)),
                        )
                    )
        return ProbeData(constants=self.constants(), merges=tuple(merges), traces=tuple(traces))
