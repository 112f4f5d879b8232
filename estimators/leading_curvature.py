r"""lambda_max of a risk's Hessian from gradients that were taken anyway and derivatives along one direction.

    1. The top eigenvector v of the gradients' second moment (1/n) sum_z g_z g_z^T (the empirical Fisher matrix) is next
       to that of the Gauss-Newton matrix G: on four tasks v^T G v was 0.94-0.99 of lambda_max(G), with next to no
       scatter, where Lanczos on G of 40 samples gave 0.75-0.9.  It is found among the sketched rows; v itself is
       a weighted sum of the gradients of the few samples that make it up (1 unit each).
    2. v^T G_z v of a part of these samples (1 unit each), drawn with chances in proportion to what is to be expected:
       (g_z . v)^2 c_z/||s_z||^2, which is v^T G_z v where two classes compete, with s_z and c_z the slope and the trace
       of the second derivative of the loss by the features (``estimators.sample_design``).  It correlates with
       v^T G_z v by 0.8-0.95; a floor in proportion to c_z keeps every sample in play.
    3. v^T (H_z - G_z) v of a few (5 units each): the small rest that the Gauss-Newton matrix leaves out.

lambda_max >= v^T H v; the upper end of the interval allows for what a direction so found falls short.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from estimators.constants import Estimate
from estimators.cost import CostMeter
from estimators.curvature import LogitObjective, gauss_newton_curvatures, hessian_curvatures, summed_gradient
from estimators.gradient_rows import GradientRows
from estimators.heterogeneity import goal_weights
from estimators.intervals import weighted_mean
from estimators.lanczos import random_direction, top_eigenvalue
from estimators.outcomes import LostInNoise
from estimators.sample_design import FloatArray, SampleKnowledge, WeightedDraw, draw_weighted
from estimators.sampled_curvature import IDENTIFIABLE_RATIO, sharpest_sample
from estimators.tasks import Split

CURVED_FLOOR = 0.3  # of the expected curvature is spread in proportion to c_z
SKETCH_PRODUCTS = 40  # of Lanczos among the sketches, where they cost nothing
SHORTFALL = 0.08  # of lambda_max, by which v^T H v may stay below it


class LeadingCurvature(BaseEstimator):  # type: ignore[misc]
    """Largest Hessian eigenvalue of a task's or the goal's risk, from weighted gradient rows.

    Args:
        num_leading: samples whose gradients make up the direction.
        num_curved: samples that measure the curvature along it.
        num_exact: samples that measure what the Gauss-Newton matrix leaves out, at least 2.
        random_state: seed of the draws.

    Attributes:
        estimate_: lambda_max of the Hessian.
        gauss_newton_: lambda_max of the Gauss-Newton matrix.
        direction_: v [D], unit length.
        sample_curvatures_: v^T G_z v of the samples that measured it, one task after the other.
        sample_smoothness_: largest curvature of a single sample's loss that was met: a lower end of L.
    """

    estimate_: Estimate
    gauss_newton_: Estimate
    direction_: Tensor
    sample_curvatures_: FloatArray
    sample_smoothness_: Estimate

    def __init__(
        self, *, num_leading: int = 64, num_curved: int = 128, num_exact: int = 8, random_state: int = 0
    ) -> None:
        self.num_leading = num_leading
        self.num_curved = num_curved
        self.num_exact = num_exact
        self.random_state = random_state

    def fit(
        self,
        objective: LogitObjective,
        split: Split,
        rows: GradientRows,
        knowledge: SampleKnowledge,
        weights: Tensor | None = None,
        *,
        meter: CostMeter | None = None,
    ) -> LeadingCurvature:
        """Measure one task at ``weights`` (default x_0), where ``rows`` were taken with a design."""
        one = "task"
        return self.fit_goal({one: objective}, {one: split}, {one: rows}, {one: knowledge}, weights, meter=meter)

    def fit_goal(
        self,
        objectives: Mapping[str, LogitObjective],
        splits: Mapping[str, Split],
        rows: Mapping[str, GradientRows],
        knowledge: Mapping[str, SampleKnowledge],
        weights: Tensor | None = None,
        *,
        task_weights: Mapping[str, float] | None = None,
        meter: CostMeter | None = None,
    ) -> LeadingCurvature:
        """Measure F = sum_i p_i F_i; the sample counts are shared out among the tasks.

        Raises:
            LostInNoise: if every gradient is zero, so that there is no direction to look along.
        """
        names = list(objectives)
        shares = dict(zip(names, goal_weights(names, task_weights).tolist(), strict=True))
        point = objectives[names[0]].initial if weights is None else weights
        self.direction_ = torch.zeros_like(point)
        draws = {name: _drawn(name, rows[name]) for name in names}
        chosen, along = self._leading({name: rows[name] for name in names}, draws, shares)
        for name, (places, factors) in chosen.items():
            samples = splits[name].take(places).to(point.device)
            self.direction_ += summed_gradient(objectives[name], point, samples, factors, meter=meter)
        length = float(self.direction_.norm())
        if not length > 0:
            raise LostInNoise(
                "gradients are zero for every sample; there is no direction to take a curvature along: use "
                "SampledTopCurvature, or check that some of the backbone may move"
            )
        self.direction_ /= length
        phases = {name: _Phases.of(draws[name], along[name], knowledge[name]) for name in names}
        self._measure(objectives, splits, phases, shares, point, meter)
        return self

    def _leading(
        self, rows: Mapping[str, GradientRows], draws: Mapping[str, WeightedDraw], shares: Mapping[str, float]
    ) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, FloatArray]]:
        """Samples and factors [k] whose weighted sum of gradients is the top eigenvector; (g_z . v)^2 of all rows."""
        scaled, roots, owners, places, lengths = [], [], [], [], []
        for name, item in rows.items():
            root = torch.from_numpy(np.sqrt(shares[name] * draws[name].weights)).float()
            scaled.append(item.sketches.cpu().float() * root[:, None])
            roots.append(root)
            places.append(draws[name].places)
            lengths.append(torch.from_numpy(np.sqrt(item.squared_norms)).float())
            owners += [name] * item.num_rows
        matrix, root = torch.cat(scaled), torch.cat(roots)
        start = random_direction(matrix[0], self.random_state)
        found = top_eigenvalue(lambda v: matrix.T @ (matrix @ v), start, max_products=SKETCH_PRODUCTS)
        factors = root * (matrix @ found.vector)
        most = (factors.abs() * torch.cat(lengths)).argsort(descending=True)[: self.num_leading]
        chosen: dict[str, tuple[Tensor, Tensor]] = {}
        for name in rows:
            own = torch.tensor([int(i) for i in most if owners[int(i)] == name], dtype=torch.int64)
            if len(own):
                chosen[name] = torch.cat(places)[own], factors[own]
        along = {name: item.sketches.cpu().float() @ found.vector for name, item in rows.items()}
        return chosen, {name: value.square().cpu().double().numpy() for name, value in along.items()}

    def _measure(
        self,
        objectives: Mapping[str, LogitObjective],
        splits: Mapping[str, Split],
        phases: Mapping[str, _Phases],
        shares: Mapping[str, float],
        point: Tensor,
        meter: CostMeter | None,
    ) -> None:
        device, tasks = point.device, len(objectives)
        main, rest, main_square, rest_square = 0.0, 0.0, 0.0, 0.0
        every: list[FloatArray] = []
        sharpest: tuple[float, str, Split] | None = None
        for number, (name, objective) in enumerate(objectives.items()):
            drawn = phases[name]
            curved = drawn.second(max(2, -(-self.num_curved // tasks)), self.random_state + 2 * number)
            few = drawn.second(max(2, -(-self.num_exact // tasks)), self.random_state + 2 * number + 1)
            samples, exact = (splits[name].take(drawn.first.places[part.places]).to(device) for part in (curved, few))
            values = gauss_newton_curvatures(objective, point, samples, self.direction_, meter=meter)
            left = hessian_curvatures(objective, point, exact, self.direction_, meter=meter)
            left = left - gauss_newton_curvatures(objective, point, exact, self.direction_, meter=meter)
            value, half = drawn.mean(values, curved)
            main, main_square = main + shares[name] * value, main_square + (shares[name] * half) ** 2
            value, half = drawn.mean(left, few)
            rest, rest_square = rest + shares[name] * value, rest_square + (shares[name] * half) ** 2
            every.append(values)
            place = int(values.argmax())
            if sharpest is None or values[place] > sharpest[0]:
                sharpest = float(values[place]), name, samples.take(torch.tensor([place]))
        self.sample_curvatures_ = np.concatenate(every)
        self.gauss_newton_ = self._estimate(main, main_square**0.5)
        self.estimate_ = self._estimate(main + rest, (main_square + rest_square) ** 0.5)
        if sharpest is not None:
            self.sample_smoothness_ = sharpest_sample(
                objectives[sharpest[1]], point, sharpest[2], self.direction_, len(self.sample_curvatures_), meter
            )

    def _estimate(self, value: float, half: float) -> Estimate:
        count = len(self.sample_curvatures_)
        note = f"direction from {self.num_leading} gradients; curvature from {count} samples"
        if value > 0:  # single samples' curvatures are skewed: symmetric in the logarithm
            low, high = value * float(np.exp(-half / value)), value * float(np.exp(half / value)) / (1 - SHORTFALL)
        else:
            low, high, note = value - half, value + half, f"no positive curvature was found; {note}"
        return Estimate(
            value=value,
            low=min(low, value),
            high=max(high, value),
            num_samples=count,
            identifiable=low > 0 and high <= IDENTIFIABLE_RATIO * low,
            note=note,
        )


def _drawn(name: str, rows: GradientRows) -> WeightedDraw:
    if rows.draw is None:
        raise ValueError(f"rows of {name!r} were drawn with equal chances; use SampledTopCurvature for them")
    return rows.draw


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Phases:
    """A draw in two phases: gradients were taken of the first, curvatures of a part of it.

    Attributes:
        first: the samples with gradients [m].
        expected: what v^T G_z v of each is expected to be, up to a factor [m].
    """

    first: WeightedDraw
    expected: FloatArray

    @classmethod
    def of(cls, first: WeightedDraw, along: FloatArray, knowledge: SampleKnowledge) -> _Phases:
        """From (g_z . v)^2 [m] of the first phase's samples."""
        places, weights = first.places.numpy(), first.weights
        curvatures = knowledge.curvature_sizes[places]
        expected = along * curvatures / knowledge.slope_sizes[places] ** 2
        typical = float(weights @ expected) / float(weights @ curvatures)
        sizes = expected + CURVED_FLOOR * typical * curvatures
        return cls(first=first, expected=sizes if sizes.min() > 0 else np.ones_like(sizes))

    def second(self, count: int, seed: int) -> WeightedDraw:
        """Places among the first phase's samples."""
        return draw_weighted(self.first.weights * self.expected, count, seed)

    def mean(self, values: FloatArray, drawn: WeightedDraw) -> tuple[float, float]:
        """Mean over the split of ``values`` of the second phase's samples, and half its 90 % interval.

        The first phase's part of the error is that of the expected values, scaled to the mean.
        """
        weighted = values * self.first.weights[drawn.places.numpy()] * drawn.population
        mean, half = weighted_mean(weighted, drawn.chances, drawn.population)
        expected, first_half = weighted_mean(self.expected, self.first.chances, self.first.population)
        return mean, float(np.hypot(half, abs(mean) / expected * first_half))
