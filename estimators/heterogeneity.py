r"""Heterogeneity zeta_i^2 and the Gram matrix of task gradients, sampling part subtracted.

    Gram_ij = <grad F_i, grad F_j>                     off the diagonal <g_i, g_j> is unbiased (independent samples)
    Gram_ii = ||g_i||^2 - tr S_i                       S_i = (f_i/m_i) Sigma_i is the noise of the mean g_i of m_i rows
    zeta_i^2 = ||grad F_i - grad F||^2 = || sum_j c_j g_j ||^2 - sum_j c_j^2 tr S_j,    c = e_i - p, F = sum_j p_j F_j

Unit loss^2/|x|^2.  ||g||^2 - tr S is the U-statistic over pairs of different samples.  Intervals: see
``estimators.intervals``; the nuisances come from the rows' Gram matrices, so they cost no further gradient:

    tr Sigma^2 without bias: Himeno & Yamada 2014 (J. Multivariate Anal. 130);  tr Sigma_i Sigma_j = plug-in for i != j
    v^T S v = u^T S u ||G||^2 + tr S^2 in expectation for v = G + noise
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.base import BaseEstimator
from torch import Tensor

from estimators.constants import Estimate, Matrix
from estimators.gradient_rows import GradientRows
from estimators.intervals import CONFIDENCE, NoiseOfMean, squared_length_interval
from estimators.outcomes import require_samples

IDENTIFIABLE_RATIO = 3.0


class MeanGradients:
    """Mean gradients of several tasks with their noise: everything about sum_j c_j G_j for any c [N].

    Args:
        rows: gradient rows of each task, made with one sketch.
    """

    def __init__(self, rows: Sequence[GradientRows]) -> None:
        if len({item.sketches.shape[1] for item in rows}) != 1:
            raise ValueError("rows were sketched differently; measure all tasks with one memory budget")
        for item in rows:
            require_samples(item.num_rows, 2, "the sampling part of a gradient")
        self.rows = list(rows)
        count = len(rows)
        means = torch.stack([item.mean.cpu().double() for item in rows])
        self.raw_gram: NDArray[np.float64] = (means @ means.T).numpy()
        noise = [item.noise_rows() for item in rows]
        sketched_means = [item.sketched_mean() for item in rows]
        self.traces = np.array([item.noise_trace() for item in rows])  # tr S_j
        self.cross = np.empty((count, count))  # tr S_i S_j
        self.along = np.empty((count, count, count))  # [j, k, l] = g_k^T S_j g_l
        for j, block in enumerate(noise):
            projected = np.stack([(block @ mean).numpy() for mean in sketched_means])
            self.along[j] = projected @ projected.T
            for i in range(j):
                self.cross[i, j] = self.cross[j, i] = float((block @ noise[i].T).square().sum())
            self.cross[j, j] = _trace_square(block, equal_chances=rows[j].deviations is None)

    def squared_length(self, c: NDArray[np.float64]) -> float:
        """Unbiased ||sum_j c_j G_j||^2."""
        return float(c @ self.raw_gram @ c - (c**2) @ self.traces)

    def unbiased_gram(self) -> NDArray[np.float64]:
        """Unbiased Gram matrix [N, N]; its diagonal may be negative."""
        return np.asarray(self.raw_gram - np.diag(self.traces))

    def noise(self, c: NDArray[np.float64]) -> NoiseOfMean:
        """The noise S = sum_j c_j^2 S_j of sum_j c_j g_j."""
        share = c**2
        trace = float(share @ self.traces)
        trace_square = max(0.0, float(share @ self.cross @ share))
        total = float(np.einsum("j,jkl,k,l->", share, self.along, c, c))
        squared = max(0.0, self.squared_length(c))
        # u^T S u: unbiased numerator over ||G||^2, drawn towards tr S^2/tr S where ||G||^2 is lost in the noise
        spread = np.sqrt(2 * trace_square)
        typical = trace_square / trace if trace > 0 else 0.0
        along = (max(0.0, total - trace_square) + typical * spread) / (squared + spread) if spread > 0 else 0.0
        return NoiseOfMean(trace=trace, trace_square=trace_square, along=along)

    def inner_product(self, i: int, j: int) -> tuple[float, float]:
        """Unbiased <G_i, G_j> of two tasks and its standard error."""
        first, second, both = self.along[j, i, i], self.along[i, j, j], self.cross[i, j]
        variance = max(first + second - both, both / 2, 0.0)
        return float(self.raw_gram[i, j]), float(np.sqrt(variance))

    def directional(self, j: int, shares: NDArray[np.float64]) -> tuple[float, float]:
        """Unbiased <G_j, sum_i w_i G_i> and its standard error.

        With a = sum_{i != j} w_i G_i + 2 w_j G_j:  Var = a^T S_j a + sum_{i != j} w_i^2 (G_j^T S_i G_j + tr S_i S_j)
        + 2 w_j^2 tr S_j^2; each plug-in quadratic form is too large by a trace that is subtracted.
        """
        value = float(shares @ self.raw_gram[j]) - float(shares[j] * self.traces[j])
        lever = shares * (1 + np.eye(len(self.rows))[j])
        own = float(lever @ self.along[j] @ lever)
        second_order = 2 * shares[j] ** 2 * self.cross[j, j]
        excess = second_order
        for i in range(len(self.rows)):
            if i != j:
                own += shares[i] ** 2 * float(self.along[i, j, j])
                both = shares[i] ** 2 * self.cross[i, j]
                second_order, excess = second_order + both, excess + both
        return value, float(np.sqrt(max(own - excess, second_order / 2, 0.0)))

    def squared_length_estimate(self, c: NDArray[np.float64]) -> Estimate:
        """||sum_j c_j G_j||^2 with interval; a negative unbiased value is reported as 0 and noted."""
        value = self.squared_length(c)
        low, high = squared_length_interval(value, self.noise(c))
        used = [item for item, weight in zip(self.rows, c, strict=True) if weight != 0]
        notes = list(dict.fromkeys(item.note for item in used if item.note))
        if value < 0:
            notes.append(f"the unbiased estimate is {value:.3g}: not to be told from 0 with these samples")
        elif low <= 0 < high:
            notes.append("not to be told from 0 with these samples")
        value = max(value, 0.0)
        return Estimate(
            value=value,
            low=min(low, value),
            high=max(high, value),
            num_samples=sum(item.num_samples for item in used),
            cost=float(sum(item.num_samples for item in used)),
            identifiable=low > 0 and high <= IDENTIFIABLE_RATIO * low,
            note="; ".join(notes),
        )


class Heterogeneity(BaseEstimator):  # type: ignore[misc]
    """Heterogeneity of every task and the Gram matrix of task gradients at one point.

    Args:
        task_weights: goal weights p_j by task name; ``None`` for equal ones.

    Attributes:
        gram_: [N][N] estimates of <grad F_i, grad F_j>.
        estimates_: zeta_i^2 by task name.
        estimate_: sum_i p_i zeta_i^2.
        unbiased_gram_: the Gram matrix as numbers [N, N]; the diagonal may be negative.
    """

    gram_: Matrix
    estimates_: dict[str, Estimate]
    estimate_: Estimate
    unbiased_gram_: NDArray[np.float64]

    def __init__(self, *, task_weights: Mapping[str, float] | None = None) -> None:
        self.task_weights = task_weights

    def fit(self, rows: Mapping[str, GradientRows]) -> Heterogeneity:
        """Estimate from the tasks' gradient rows (``estimators.gradient_rows``)."""
        names = list(rows)
        weights = goal_weights(names, self.task_weights)
        means = MeanGradients([rows[name] for name in names])
        count = len(names)
        cells = [[_cell(means, i, j) for j in range(count)] for i in range(count)]
        self.gram_ = tuple(tuple(row) for row in cells)
        self.unbiased_gram_ = means.unbiased_gram()
        self.estimates_ = {
            name: means.squared_length_estimate(np.eye(count)[i] - weights) for i, name in enumerate(names)
        }
        values = list(self.estimates_.values())
        self.estimate_ = Estimate(
            value=sum(p * e.value for p, e in zip(weights, values, strict=True)),
            low=sum(p * e.low for p, e in zip(weights, values, strict=True)),
            high=sum(p * e.high for p, e in zip(weights, values, strict=True)),
            num_samples=sum(item.num_samples for item in rows.values()),
            identifiable=all(e.identifiable for e in values),
            note="the interval adds the tasks' intervals (at least 90 %)",
        )
        return self


class TaskVectorCosines(BaseEstimator):  # type: ignore[misc]
    """Cosines between task vectors tau_i = x_i - x_0, with the undirected part of their lengths taken out.

    cos_ij = <tau_i, tau_j> / ((||tau_i||^2 - diffusion_i)(||tau_j||^2 - diffusion_j))^(1/2)

    Independent mini-batch noise lengthens task vectors without turning them towards each other, so plain cosines are
    too small; ``diffusion`` (E of the squared noise part, |x|^2) corrects it.

    Attributes:
        cosines_: [N, N] plain cosines.
        corrected_cosines_: [N, N] with the diffusion taken out, NaN-free: 0 where nothing directed is left.
        norms_: ||tau_i|| [N].
        estimate_: mean off-diagonal plain cosine.
    """

    cosines_: NDArray[np.float64]
    corrected_cosines_: NDArray[np.float64]
    norms_: NDArray[np.float64]
    estimate_: Estimate

    def __init__(self, *, diffusion: Mapping[str, float] | None = None) -> None:
        self.diffusion = diffusion

    def fit(self, vectors: Mapping[str, Tensor]) -> TaskVectorCosines:
        """Compute from one task vector [P] a task."""
        stacked = torch.stack([vector.detach().cpu().double() for vector in vectors.values()])
        gram = (stacked @ stacked.T).numpy()
        squares = np.diag(gram)
        if (squares <= 0).any():
            still = [name for name, square in zip(vectors, squares, strict=True) if square <= 0]
            raise ValueError(f"vectors of {still} are zero, without a direction; train these experts or leave them out")
        noise = np.array([(self.diffusion or {}).get(name, 0.0) for name in vectors])
        self.norms_ = np.sqrt(squares)
        self.cosines_ = gram / np.outer(self.norms_, self.norms_)
        directed = np.maximum(squares - noise, 0.0)
        scale = np.sqrt(np.outer(directed, directed))
        corrected = np.divide(gram, scale, out=np.zeros_like(gram), where=scale > 0)
        np.fill_diagonal(corrected, (directed > 0).astype(float))
        self.corrected_cosines_ = np.clip(corrected, -1.0, 1.0)
        off = self.cosines_[~np.eye(len(gram), dtype=bool)]
        value = float(off.mean()) if len(off) else 1.0
        self.estimate_ = Estimate(value=value, low=value, high=value, note="exact for these experts; not over seeds")
        return self


def goal_weights(names: Sequence[str], given: Mapping[str, float] | None) -> NDArray[np.float64]:
    """Goal weights in the order of ``names``; they must be non-negative and sum to 1."""
    if given is None:
        return np.full(len(names), 1 / len(names))
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(f"task_weights={dict(given)} lacks {missing}; give every task a weight")
    weights = np.array([given[name] for name in names], dtype=np.float64)
    if not ((weights >= 0).all() and abs(weights.sum() - 1) < 1e-6):
        raise ValueError(f"task_weights={dict(given)} must be at least 0 and sum to 1; divide by their sum")
    return weights


def _cell(means: MeanGradients, i: int, j: int) -> Estimate:
    if i == j:
        return means.squared_length_estimate(np.eye(len(means.rows))[i])
    value, error = means.inner_product(i, j)
    half = float(stats.norm.ppf(0.5 + CONFIDENCE / 2)) * error
    samples = means.rows[i].num_samples + means.rows[j].num_samples
    identifiable = abs(value) > half
    note = "" if identifiable else "the sign is not to be told with these samples"
    return Estimate(
        value=value, low=value - half, high=value + half, num_samples=samples, identifiable=identifiable, note=note
    )


def _trace_square(noise: Tensor, *, equal_chances: bool) -> float:
    """Unbiased tr S^2 from U [m, q] with S = U^T U; the plug-in below 4 rows."""
    count = len(noise)
    gram = (noise @ noise.T).numpy()
    plug_in = float((gram**2).sum())
    if count < 4:
        return plug_in
    fourth = float((np.diag(gram) ** 2).sum())
    if not equal_chances:  # pairs of different draws are next to independent
        return (plug_in - fourth) * count / (count - 1)
    trace = float(np.trace(gram))
    fourth *= count - 1
    value = (count - 1) / (count * (count - 2) * (count - 3))
    value *= (count - 1) * (count - 2) * plug_in + trace**2 - count * fourth
    return float(min(max(value, 0.0), plug_in))
