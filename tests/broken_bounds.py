"""Deliberately broken variants of the bound, each one wrong constant or one missing piece.

A check is worth what it catches: every variant here must make ``tests.bound_check`` find a violation of its
``promise``.  A variant replaces one function of ``advisor.bound_terms`` or ``advisor.bound_growth`` by a wrong twin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from advisor import bound_growth, bound_terms

LOG2 = np.log(2.0)
NOTHING = 1e-300  # in place of 0 where a logarithm follows


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenBound:
    """``wrong(original, *arguments)`` stands in for ``module.function`` and must break ``promise``."""

    module: Any
    function: str
    wrong: Callable[..., Any]
    promise: str

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The bound with this fault."""
        original = getattr(self.module, self.function)

        def faulty(*arguments: Any) -> Any:
            return self.wrong(original, *arguments)

        with mock.patch.object(self.module, self.function, faulty):
            yield


def _term(function: str, promise: str, wrong: Callable[..., Any]) -> BrokenBound:
    return BrokenBound(module=bound_terms, function=function, wrong=wrong, promise=promise)


def _growth(function: str, promise: str, wrong: Callable[..., Any]) -> BrokenBound:
    return BrokenBound(module=bound_growth, function=function, wrong=wrong, promise=promise)


def _drift_of_others_only(original: Any, share: Any, smoothness: Any, coefficients: Any, d: Any, step: Any) -> Any:
    moved = coefficients * d
    others = moved.sum(axis=-1, keepdims=True) - moved
    return np.sqrt((share * (smoothness * others) ** 2).sum(axis=-1))


BROKEN: dict[str, BrokenBound] = {
    "stability with half the variance": _term(
        "log_refined_stability", "stability", lambda f, eta, b, n, v, q1, q2: f(eta, b, n, v / 2, q1, q2)
    ),
    "stability without sqrt(Q2/(n b))": _term(
        "log_refined_stability", "stability", lambda f, eta, b, n, v, q1, q2: f(eta, b, n, v, q1, q2 - 700)
    ),
    "stability without Q1/n": _term(
        "log_refined_stability", "stability", lambda f, eta, b, n, v, q1, q2: f(eta, b, n, v, q1 - 700, q2)
    ),
    "stability with 1/n^2 for 1/(n b)": _term(
        "log_refined_stability", "stability", lambda f, eta, b, n, v, q1, q2: f(eta, n, n, v, q1, q2)
    ),
    "paper's stability with C = 2": _term("log_paper_stability", "paper stability", lambda f, *a: f(*a) - 2 * LOG2),
    "paper's stability free of b": _term(
        "log_paper_stability", "paper stability", lambda f, eta, b, n, v, q2: f(eta, np.ones_like(b), n, v, q2)
    ),
    "displacement without noise": _term(
        "log_displacement_by_growth", "displacement", lambda f, eta, b, g, v, q1, q2: f(eta, b, g, v * NOTHING, q1, q2)
    ),
    "displacement with sigma/b": _term(
        "log_displacement_by_growth", "displacement", lambda f, eta, b, g, v, q1, q2: f(eta, b * b, g, v, q1, q2)
    ),
    "displacement without drift": _term(
        "log_displacement_by_growth", "displacement", lambda f, eta, b, g, v, q1, q2: f(eta, b, g * NOTHING, v, q1, q2)
    ),
    "displacement by descent without noise": _term(
        "displacement_by_descent", "displacement", lambda f, eta, b, m, e, s, gap, v: f(eta, b, m, e, s, gap, 0 * v)
    ),
    "Q2 growing as g^t": _growth("log_growth", "stability", lambda f, h, k: (f(h, k)[0], f(h, k)[0])),
    "no growth where losses are not convex": _growth(
        "log_growth", "displacement", lambda f, h, k: (np.log(k + 0 * h), np.log(k + 0 * h))
    ),
    "growth with half of L": _growth("log_growth", "stability", lambda f, h, k: f(h / 2, k)),
    "growth over one step less": _growth(
        "log_growth", "displacement", lambda f, h, k: (f(h, k)[0] - np.log1p(h), f(h, k)[1] - 2 * np.log1p(h))
    ),
    "momentum and schedules taken for plain steps": _growth(
        "log_growth_of", "displacement", lambda f, h, a: bound_growth.log_growth(h, np.full(len(h), float(len(a))))
    ),
    "no drift": _term("drift_norm", "optimization", lambda f, *a: 0 * f(*a)),
    "drift of the other experts only": _term("drift_norm", "optimization", _drift_of_others_only),
    "no heterogeneity": _term("heterogeneity_norm", "optimization", lambda f, *a: 0 * f(*a)),
    "heterogeneity without the gradients at the start": _term(
        "heterogeneity_norm", "optimization", lambda f, mismatch, *a: f(0 * mismatch, *a)
    ),
    "swapped shares": _term("shares", "optimization", lambda f, *a: f(*a)[..., ::-1]),
    "shares taken for the goal weights": _term("shares", "optimization", lambda f, t, p: np.broadcast_to(p, t.shape)),
    "no noise": _term("noise", "optimization", lambda f, *a: 0 * f(*a)),
    "half the noise": _term("noise", "optimization", lambda f, *a: f(*a) / 2),
    "progress at twice mu": _term("log_progress", "optimization", lambda f, gap, decay: f(gap, 2 * decay)),
    "half the initial gap": _term("log_progress", "optimization", lambda f, gap, decay: f(gap / 2, decay)),
    "trust region without its square": _term(
        "trust_region", "optimization", lambda f, s, g, smooth, x: f(s, g, 0.0, x)
    ),
    "trust region without its slope": _term("trust_region", "optimization", lambda f, s, g, *a: f(s, 0 * g, *a)),
    "reach as a mean over experts": _term("reach", "optimization", lambda f, c, d: f(c, d) / c.shape[-1]),
    "no generalisation gap": _term("generalisation", "generalisation", lambda f, *a: 0 * f(*a)),
    "half the generalisation gap": _term("generalisation", "generalisation", lambda f, *a: f(*a) / 2),
    "generalisation without the square root": _term(
        "generalisation", "generalisation", lambda f, smooth, risk, s: f(smooth, 0 * risk, s)
    ),
    "stability weighted with lambda^4": _term(
        "stability_sum", "generalisation", lambda f, p, c, s: f(p, c * np.minimum(c, 1.0), s)
    ),
    "total without the gap": _term("generalisation", "total", lambda f, *a: 0 * f(*a)),
}
