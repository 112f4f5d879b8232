r"""Heads: a linear probe of each task on the features of x_0.

logits = W phi(z; x_0) + b minimises the multinomial logistic risk on the training samples plus ||W||^2 / (2 C n) on
standardised features; C is chosen by stratified cross-validation on the risk (scikit-learn's ``LogisticRegression``).
The standardisation is folded back, W <- W / s and b <- b - W (m / s), so a head reads raw features.

Costs: one forward pass a training sample, booked under ``heads``; the convex fit on stored features counts nothing.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from estimators.backbone import Backbone
from estimators.cost import FORWARD_UNITS, CostMeter
from estimators.tasks import LinearHead, Task

STRENGTHS = tuple(10.0**exponent for exponent in range(-4, 4))  # C, inverse regularisation on standardised features
FOLDS = 5
MAX_ITERATIONS = 1000
DEAD = 1e-6  # of its own mean or of the liveliest feature's deviation: a feature that varies less is constant
CHUNK = 256  # samples a forward pass
MOST_KEPT = 32_000_000  # entries of features that are kept (64 MB)

FloatArray = NDArray[np.float64]


class ConstantFeatures(ValueError):
    """Features that are the same for every sample: no head can tell the classes apart."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadFit:
    """A fitted head and how the fit went.

    Attributes:
        head: the head on raw features.
        strength: the chosen C.
        cross_validated_risk: risk at C on held-out folds, nats; NaN where cross-validation was not possible.
        held_out_losses: loss of each training sample under the head of the folds without it, at C, float32 [n] in the
            order of the samples: as many fresh draws of x_0's risk, at no further cost; ``None`` where
            cross-validation was not possible.
        features: of the training samples, bfloat16 [n, F], for choosing samples; ``None`` where they are too many.
        train_accuracy: share of the training samples classified correctly.
        units: cost of the features, per-sample gradients.
        caveats: named outcomes: separable classes, C on the edge of its grid, too few samples, no convergence.
    """

    head: LinearHead
    strength: float
    cross_validated_risk: float
    train_accuracy: float
    units: float
    held_out_losses: Tensor | None = None
    features: Tensor | None = None
    caveats: tuple[str, ...] = ()


def fit_heads(backbone: Backbone, tasks: Sequence[Task], *, seed: int, meter: CostMeter) -> tuple[Task, ...]:
    """The tasks, each with a head fitted on its training samples at x_0."""
    return tuple(with_head(task, fit_head(backbone, task, seed=seed, meter=meter)) for task in tasks)


def with_head(task: Task, fit: HeadFit) -> Task:
    """The task with a fitted head, the losses on its held-out folds and the features it was fitted on."""
    return dataclasses.replace(task, head=fit.head, held_out_losses=fit.held_out_losses, features=fit.features)


def fit_head(backbone: Backbone, task: Task, *, seed: int, meter: CostMeter) -> HeadFit:
    """Fit one head.

    Raises:
        ConstantFeatures: if the features do not vary between the training samples.
        ValueError: if they are not finite.
    """
    with meter.purpose("heads"):
        features = initial_features(backbone, task.train.inputs, meter=meter).cpu().double().numpy()
    if not np.isfinite(features).all():
        raise ValueError(
            f"features of task {task.name!r} are not finite at x_0; check backbone.normalisation and the checkpoint"
        )
    mean, std = features.mean(axis=0), features.std(axis=0)
    # a unit that pre-training switched off is noise of 1e-9: standardised, its weight would be 1e9 and so the curvature
    varies = std > DEAD * np.maximum(np.abs(mean), max(float(std.max()), DEAD**2))
    if not varies.any():
        raise ConstantFeatures(
            f"features of task {task.name!r} are the same for all {len(features)} training samples; a head cannot "
            "learn from them: check the samples, the normalisation and the checkpoint"
        )
    scale = np.where(varies, std, np.inf)  # such a feature gets weight 0
    labels = task.train.labels.cpu().numpy()
    fit = _cross_validated((features - mean) / scale, labels, task, seed)
    weight = fit.weight / scale
    bias = fit.bias - weight @ mean
    predicted = (features @ weight.T + bias).argmax(axis=1)
    accuracy = float((predicted == labels).mean())
    caveats = list(fit.caveats)
    if accuracy == 1.0:
        caveats.append(
            f"task {task.name!r}: the head classifies all {len(labels)} training samples correctly; fine-tuning has "
            "little left to gain on them"
        )
    # row by row, as a stored head is read back: a product's last bits depend on the layout
    rows = torch.tensor(np.ascontiguousarray(weight), dtype=torch.float32)
    head = LinearHead(weight=rows, bias=torch.tensor(bias, dtype=torch.float32))
    return HeadFit(
        head=head.to(backbone.initial.device),
        strength=fit.strength,
        cross_validated_risk=fit.risk,
        train_accuracy=accuracy,
        units=FORWARD_UNITS * len(labels),
        held_out_losses=None if fit.losses is None else torch.tensor(fit.losses, dtype=torch.float32),
        features=torch.tensor(features, dtype=torch.bfloat16) if features.size <= MOST_KEPT else None,
        caveats=tuple(caveats),
    )


@torch.no_grad()
def initial_features(backbone: Backbone, inputs: Tensor, *, meter: CostMeter | None = None) -> Tensor:
    """Features float32 [n, F] at x_0, on the CPU, computed in chunks."""
    start = backbone.initial
    parts = [
        backbone.features(start, inputs[i : i + CHUNK].to(start.device)).float().cpu()
        for i in range(0, len(inputs), CHUNK)
    ]
    if meter is not None:
        meter.add(forwards=len(inputs))
    return torch.cat(parts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fit:
    weight: FloatArray
    bias: FloatArray
    strength: float
    risk: float
    losses: FloatArray | None
    caveats: tuple[str, ...]


def _cross_validated(features: FloatArray, labels: NDArray[Any], task: Task, seed: int) -> _Fit:
    """Logistic regression on standardised features, C by stratified cross-validation."""
    from sklearn.model_selection import StratifiedKFold

    caveats: list[str] = []
    counts = np.bincount(labels, minlength=task.num_classes)
    if counts.min() == 0:
        absent = task.class_names[int(counts.argmin())]
        raise ValueError(f"task {task.name!r}: class {absent!r} has no training sample; add some or leave it out")
    folds = min(FOLDS, int(counts.min()))
    strength, risk, losses = 1.0, math.nan, None
    if folds < 2:
        caveats.append(
            f"task {task.name!r}: class {task.class_names[int(counts.argmin())]!r} has 1 training sample, so the "
            "head's regularisation could not be cross-validated and is C=1"
        )
    else:
        splitter = StratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
        each = np.zeros((len(STRENGTHS), len(labels)))
        for train, held_out in splitter.split(features, labels):
            each[:, held_out] = _path_losses(features[train], labels[train], features[held_out], labels[held_out])
        best = int(each.sum(axis=1).argmin())
        strength, losses = STRENGTHS[best], each[best]
        risk = float(losses.mean())
        if best in (0, len(STRENGTHS) - 1):
            side = "weakest" if best else "strongest"
            caveats.append(f"task {task.name!r}: the head's regularisation is the {side} of its grid (C={strength:g})")
    weight, bias, converged = _logistic(features, labels, strength, start=None)
    if not converged:
        caveats.append(f"task {task.name!r}: the head's fit stopped after {MAX_ITERATIONS} steps without converging")
    return _Fit(weight=weight, bias=bias, strength=strength, risk=risk, losses=losses, caveats=tuple(caveats))


def _path_losses(x: FloatArray, y: NDArray[Any], x_held: FloatArray, y_held: NDArray[Any]) -> FloatArray:
    """Loss of each held-out sample for each C [S, m], each fit warm-started at the one before."""
    losses, start = [], None
    for strength in STRENGTHS:
        weight, bias, _ = _logistic(x, y, strength, start=start)
        start = (weight, bias)
        logits = x_held @ weight.T + bias
        top = logits.max(axis=1)
        log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        losses.append(log_sum - logits[np.arange(len(y_held)), y_held])
    return np.array(losses)


def _logistic(
    x: FloatArray, y: NDArray[Any], strength: float, *, start: tuple[FloatArray, FloatArray] | None
) -> tuple[FloatArray, FloatArray, bool]:
    """Weight [C, F], bias [C] and whether the fit converged; two classes become two opposite rows."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS, warm_start=start is not None)
    binary = int(y.max()) == 1
    if start is not None:
        rows = slice(1, 2) if binary else slice(None)
        factor = 2.0 if binary else 1.0
        model.coef_, model.intercept_ = factor * start[0][rows], factor * start[1][rows]
        model.classes_ = np.arange(int(y.max()) + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it becomes a caveat of the fit
        model.fit(x, y)
    converged = int(np.max(model.n_iter_)) < MAX_ITERATIONS
    weight, bias = np.asarray(model.coef_, dtype=np.float64), np.asarray(model.intercept_, dtype=np.float64)
    if binary:  # softmax over two opposite halves is the sigmoid of the difference
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias, converged
