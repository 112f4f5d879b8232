r"""What is known of each task's samples, as a loss of a merge's logits: labels, the expert's own opinion, or neither.

Every sample s of task j asks for the cross-entropy of a target distribution t_s, which is linear in t:

    loss_j(z) = sum_s w_s lse(z_s) - <t_s, z_s>,       dloss_j/dz_s = w_s softmax(z_s) - t_s

    labels       w_s = 1/n,  t_s = onehot(y_s)/n                        the empirical risk
    agreement    w_s = 1/n,  t_s = softmax(expert j's logits)/n         no label: be what each expert is on its own task
    few labels   (1 - omega) labels + omega agreement, over the samples that each is known for
    entropy      loss_j = mean_s H(softmax z_s)                         no label and no expert's opinion (AdaMerging)

An expert is better on its own task than anything else that is there, so on unlabelled samples agreement with it is a
nearly labelled risk, biased by its errors; entropy has no notion of right and wrong and is lowest, too, for a merge
that is surely wrong.  ``few labels`` weighs the two by their errors (see ``label_share``).

Losses in nats; logits of task j are [n_j, C_j], all tasks' logits one after another a vector [S].
Sources: entropy, Yang et al. 2023 (arXiv 2310.02575); learning from a teacher's probabilities, Hinton et al. 2015
(arXiv 1503.02531).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from advisor.goal import Goal

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Kind = Literal["labels", "agreement", "few labels", "entropy"]
WORST_SHARPNESS = 50.0  # 1/nats: how sharply the smooth maximum follows the worst task
LIMIT_PRICE = 5.0  # goal nats for each nat beyond a task's limit
EXPERT_ERROR_SHARE = 0.5  # of the samples that an expert gets wrong count as misleading, see ``label_share``


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskEvidence:
    """What the samples of one task ask of a merge.

    Attributes:
        kind: what is known.
        weights: w [n].
        targets: t [n, C]; not used by entropy.
    """

    kind: Kind
    weights: FloatArray
    targets: FloatArray

    def __post_init__(self) -> None:
        """Check shapes and numbers."""
        if self.targets.ndim != 2 or self.weights.shape != self.targets.shape[:1] or not len(self.weights):
            raise ValueError(
                f"weights {self.weights.shape} and targets {self.targets.shape} must be [n] and [n, C] with n of at "
                "least 1; give samples"
            )
        if not (np.isfinite(self.weights).all() and np.isfinite(self.targets).all()):
            raise ValueError("weights and targets must be finite; look for NaN in the experts' logits")

    def losses(self, logits: FloatArray) -> FloatArray:
        """Each sample's part [n] of the loss, times n (so that the loss is their mean)."""
        if self.kind == "entropy":
            return entropies(logits)
        pulled = (self.targets * logits).sum(axis=1)
        return np.asarray(len(logits) * (self.weights * log_sum_exp(logits) - pulled))

    def slope(self, logits: FloatArray) -> FloatArray:
        """Gradient [n, C] of the loss with respect to the logits."""
        p = softmax(logits)
        if self.kind == "entropy":
            log_p = logits - log_sum_exp(logits)[:, None]
            return -p * (log_p + entropies(logits)[:, None]) / len(logits)
        return self.weights[:, None] * p - self.targets


def labelled(labels: IntArray, classes: int) -> TaskEvidence:
    """Evidence of labels [n]."""
    n = len(labels)
    return TaskEvidence(kind="labels", weights=np.full(n, 1 / n), targets=np.eye(classes)[labels] / n)


def agreeing(teacher: FloatArray) -> TaskEvidence:
    """Evidence of the task's own expert, by its logits [n, C]."""
    n = len(teacher)
    return TaskEvidence(kind="agreement", weights=np.full(n, 1 / n), targets=softmax(teacher) / n)


def unsure(count: int, classes: int) -> TaskEvidence:
    """Entropy of ``count`` samples."""
    return TaskEvidence(kind="entropy", weights=np.full(count, 1 / count), targets=np.zeros((count, classes)))


def partly_labelled(labels: IntArray, known: NDArray[np.bool_], teacher: FloatArray) -> TaskEvidence:
    """Evidence of labels [n] where ``known`` and of the expert everywhere else.

    Args:
        labels: classes; not looked at where not known.
        known: which labels are given [n].
        teacher: the expert's logits [n, C].
    """
    n, classes = teacher.shape
    count = int(known.sum())
    if count == 0:
        return agreeing(teacher)
    target = softmax(teacher)
    if count == n:
        return labelled(labels, classes)
    share = label_share(teacher[known].argmax(axis=1) == labels[known], n - count)
    onehot = np.eye(classes)[np.where(known, labels, 0)]
    weights = np.where(known, share / count, (1 - share) / (n - count))
    return TaskEvidence(
        kind="few labels", weights=weights, targets=weights[:, None] * np.where(known[:, None], onehot, target)
    )


def label_share(right: NDArray[np.bool_], others: int) -> float:
    r"""Weight of the labelled part of a mixed loss.

    The labelled mean over m samples has a variance of about v/m, the mean over M other samples v/M and a bias
    b = e c, e the expert's error rate on the labelled samples ((wrong + 1/2)/(m + 1), so never 0), c =
    ``EXPERT_ERROR_SHARE``.  With v of one (in units of the loss squared) the mean squared error of the mixture is least
    at

        share = (1/M + b^2) / (1/m + 1/M + b^2)

    >>> label_share(np.array([True] * 50), 50) > 0.5, label_share(np.array([True] * 20), 200) < 0.2
    (True, True)
    """
    m = len(right)
    error = (float((~right).sum()) + 0.5) / (m + 1)
    wrong = 1 / others + (EXPERT_ERROR_SHARE * error) ** 2
    return wrong / (1 / m + wrong)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Criterion:
    """The goal as a function of all logits.

    Attributes:
        evidence: task -> what its samples ask for; sets the order of the logits.
        goal: weights and kind of the goal.
        limits: task -> risk that it should not exceed (``max_drop``); a nat beyond costs ``LIMIT_PRICE``.
    """

    evidence: Mapping[str, TaskEvidence]
    goal: Goal
    limits: Mapping[str, float] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of logits S."""
        return sum(e.targets.size for e in self.evidence.values())

    def split(self, values: FloatArray) -> dict[str, FloatArray]:
        """All logits [S] as one matrix [n, C] a task."""
        ends = np.cumsum([e.targets.size for e in self.evidence.values()])[:-1]
        parts = np.split(values, ends)
        return {
            name: part.reshape(e.targets.shape) for (name, e), part in zip(self.evidence.items(), parts, strict=True)
        }

    def risks(self, values: FloatArray) -> dict[str, float]:
        """Loss of every task."""
        return {name: float(self.evidence[name].losses(z).mean()) for name, z in self.split(values).items()}

    def value(self, values: FloatArray) -> float:
        """The goal, smooth where it is the worst task's."""
        return self._mixed(np.array(list(self.risks(values).values())))[0]

    def value_and_slope(self, values: FloatArray) -> tuple[float, FloatArray]:
        """The goal and its gradient [S]."""
        parts = self.split(values)
        risks = np.array([float(self.evidence[name].losses(z).mean()) for name, z in parts.items()])
        value, shares = self._mixed(risks)
        slopes = [p * self.evidence[name].slope(z).ravel() for p, (name, z) in zip(shares, parts.items(), strict=True)]
        return value, np.concatenate(slopes)

    def error(self, left: FloatArray, right: FloatArray) -> float:
        """Standard error of the difference of the goal's mean form between two merges, samples paired."""
        shares = self.goal.shares
        total = 0.0
        for name, z in self.split(left).items():
            d = self.evidence[name].losses(z) - self.evidence[name].losses(self.split(right)[name])
            total += (shares[name] ** 2) * float(d.var(ddof=1)) / len(d) if len(d) > 1 else 0.0
        return float(np.sqrt(total))

    def _mixed(self, risks: FloatArray) -> tuple[float, FloatArray]:
        """Goal and its derivative by the tasks' risks."""
        shares = np.array([self.goal.shares[name] for name in self.evidence])
        ceilings = np.array([self.limits.get(name, np.inf) for name in self.evidence])
        beyond = np.maximum(risks - ceilings, 0.0)
        price, push = LIMIT_PRICE * float(beyond.sum()), LIMIT_PRICE * (beyond > 0)
        if self.goal.kind == "mean":
            return float(shares @ risks) + price, shares + push
        scaled = np.where(shares > 0, WORST_SHARPNESS * risks, -np.inf)
        top = scaled.max()
        exps = np.exp(scaled - top)
        return float((top + np.log(exps.sum())) / WORST_SHARPNESS) + price, exps / exps.sum() + push


def softmax(logits: FloatArray) -> FloatArray:
    """Probabilities [n, C]."""
    return np.asarray(np.exp(logits - log_sum_exp(logits)[:, None]))


def log_sum_exp(logits: FloatArray) -> FloatArray:
    """Log sum_c e^z_c, [n]."""
    top = logits.max(axis=1)
    return np.asarray(top + np.log(np.exp(logits - top[:, None]).sum(axis=1)))


def entropies(logits: FloatArray) -> FloatArray:
    """H(softmax z) [n], nats."""
    p = softmax(logits)
    return np.asarray(log_sum_exp(logits) - (p * logits).sum(axis=1))


def concatenated(parts: Sequence[FloatArray]) -> FloatArray:
    """Logits of all tasks as one vector [S]."""
    return np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in parts])
