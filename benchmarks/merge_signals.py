r"""Signals of mergeability that others publish, and two of weights alone, for one subset of experts.

All are means over the subset's pairs (i, j), ordered so that more means a worse merge:

    minus cosine        -<tau_i, tau_j> / (||tau_i|| ||tau_j||)
    kinship             minus Pearson correlation of task vectors              Model Kinship, arXiv 2410.12613
    distance            ||tau_i - tau_j||
    encoder gradient    ||g_i - g_j||,  g_i = d/dx mean loss of expert i on 10 of its samples, at x_i
    input gradient      ||u_i - u_j||,  u_i = mean d/d(image) of the same losses
                        Demystifying Mergeability, arXiv 2601.22285: their two strongest of 28 metrics, used one at a
                        time (their fitted mixture of all 28 needs measured merges of other tasks)
    gradient at x_0     the same distance with every gradient taken at the shared start: what zeta^2 is made of
    squared norms       sum of ||tau_i||^2
    prior risk          the quadratic of coefficients from weights (``advisor.coefficients_prior``) at 1/n each

Gradients need labels of 10 samples a task; the others need weights alone.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advisor.coefficients_prior import HELP, INTERFERENCE, quadratic
from advisor.coefficients_problem import TuningProblem
from estimators.objectives import ClassificationObjective

FloatArray = NDArray[np.float64]
CALIBRATION = 10  # samples of a data set, as published


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairSignals:
    """Everything that signals of subsets are made of.

    Attributes:
        gram: inner products of task vectors [N, N].
        correlation: Pearson's, between task vectors [N, N].
        base_norm: length of x_0.
        distances: signal -> distances between experts [N, N].
    """

    gram: FloatArray
    correlation: FloatArray
    base_norm: float
    distances: dict[str, FloatArray]

    def of(self, members: tuple[int, ...]) -> dict[str, float]:
        """Signals of a subset; more means a worse merge."""
        pairs = tuple(zip(*itertools.combinations(members, 2), strict=True))
        norms = np.sqrt(np.diag(self.gram))
        found = {
            "minus cosine": -float((self.gram / np.outer(norms, norms))[pairs].mean()),
            "kinship": -float(self.correlation[pairs].mean()),
            "squared norms": float((norms[list(members)] ** 2).sum()),
            "prior risk": self._prior(members),
        }
        return found | {name: float(matrix[pairs].mean()) for name, matrix in self.distances.items()}

    def _prior(self, members: tuple[int, ...]) -> float:
        part = self.gram[np.ix_(members, members)]
        matrix, pull = quadratic(part, self.base_norm, INTERFERENCE, HELP)
        row = np.full(len(members), 1 / len(members))
        return float(row @ matrix @ row / 2 - pull @ row) * float(np.sqrt(np.diag(part)).max()) / self.base_norm


def pair_signals(problem: TuningProblem, seed: int) -> PairSignals:
    """Measure gradients and compare task vectors; experts and tasks have the same names and order."""
    merges = problem.merges
    vectors = merges.vectors.double()
    count = len(merges.labels)
    own = [gradients(problem, name, np.eye(count)[i], seed) for i, name in enumerate(merges.labels)]
    shared = [gradients(problem, name, np.zeros(count), seed)[0] for name in merges.labels]
    return PairSignals(
        gram=merges.gram(),
        correlation=np.asarray(torch.corrcoef(vectors).numpy()),
        base_norm=float(merges.start.norm()),
        distances={
            "distance": _distances(list(vectors)),
            "encoder gradient": _distances([g for g, _ in own]),
            "input gradient": _distances([u for _, u in own]),
            "gradient at x_0": _distances(shared),
        },
    )


def gradients(problem: TuningProblem, task: str, row: FloatArray, seed: int) -> tuple[Tensor, Tensor]:
    """Gradients of a task's loss on ``CALIBRATION`` samples, by the weights [P] and by a mean image, at a merge."""
    split, objective = problem.samples[task], ClassificationObjective(problem.merges.backbone, problem.heads[task])
    chosen = torch.from_numpy(np.random.default_rng(seed).permutation(len(split))[:CALIBRATION])
    weights = problem.merges.weights(row).clone().requires_grad_(True)
    raw = split.inputs[chosen]
    images = (raw.float() / 255 if raw.dtype == torch.uint8 else raw.clone()).requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(objective.logits(weights, images), split.labels[chosen])
    by_weights, by_images = torch.autograd.grad(loss, (weights, images))
    return by_weights.double(), by_images.double().sum(dim=0).flatten()  # the loss is a mean, so their sum is one too


def _distances(points: list[Tensor]) -> FloatArray:
    stacked = torch.stack(points)
    return np.asarray(torch.cdist(stacked, stacked).numpy())
