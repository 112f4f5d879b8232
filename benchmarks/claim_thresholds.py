"""The ten claims with their thresholds; written and committed before the pool of experts was trained.

What the rules mean, and ``ALPHA``, stand in ``benchmarks.claim_parts``.  A threshold is never moved after data were
seen; a part that proves ill-posed is reported as such.  Networks, tasks and the range of rates were chosen in a small
exploration with a seed that the pool does not hold.
"""

from __future__ import annotations

import math

from benchmarks.claim_parts import TURN, Claim, Part, Role

KAPPA = (
    "log(κ/π²): training risk beyond first order over squared first-order progress, as a ratio to the simple average's"
)


def _above(key: str, statement: str, statistic: str, low: float, role: Role = "claim") -> Part:
    return Part(key=key, statement=statement, statistic=statistic, rule="above", low=low, role=role)


def _below(key: str, statement: str, statistic: str, low: float, role: Role = "claim") -> Part:
    return Part(key=key, statement=statement, statistic=statistic, rule="below", low=low, role=role)


def _within(key: str, statement: str, statistic: str, band: tuple[float, float], role: Role = "claim") -> Part:
    return Part(key=key, statement=statement, statistic=statistic, rule="within", low=band[0], high=band[1], role=role)


def _twofold(key: str, what: str) -> Part:
    statement = f"{what} is predicted within a factor of 2"
    return _within(key, statement, "log2(predicted / measured)", (-1.0, 1.0), "prediction")


CLAIMS = (
    Claim(
        number=1,
        title="Learning rate",
        statement="Stability grows as η² below the edge 2/L; beyond it the merge collapses.",
        parts=(
            _within(
                "stability_exponent",
                "stability s of twin runs grows as η² below the edge",
                "slope of log s in log η over rates from 1/16 to 1/2 of 2/L",
                (1.5, 2.5),
            ),
            _below(
                "safe_below",
                "an eighth of 2/L does not hurt",
                "log(r(η = (2/L)/8) / r(x₀)), simple average, longest run of the sweep",
                math.log(1.1),
            ),
            _above(
                "collapse",
                "four times 2/L collapses",
                "log(r(η = 4·2/L) / r(x₀)), simple average, longest run of the sweep",
                math.log(1.5),
            ),
            _twofold("edge", "the rate where the simple average becomes 10 % worse than x₀"),
        ),
    ),
    Claim(
        number=2,
        title="Batch size",
        statement="Larger batches improve optimisation; stability grows linearly in b (the paper's form of the bound).",
        parts=(
            _above(
                "optimisation",
                "at equal η and K a larger batch leaves less training risk",
                "log(training risk of the simple average at the smallest b / at the largest b)",
                0.0,
            ),
            _within("stability_linear", "stability grows linearly in b", "slope of log s in log b", (0.5, 1.5)),
            _within(
                "refined_slope",
                "the refined form has the right slope in b",
                "slope of log s in log b less that of the refined bound",
                (-0.5, 0.5),
                "prediction",
            ),
            _above(
                "refined_above",
                "the refined form lies above every measured stability",
                "smallest log10(refined bound / measured s)",
                0.0,
                "side",
            ),
        ),
    ),
    Claim(
        number=3,
        title="Steps",
        statement="Experts keep improving while their merge turns: a minimum in K.",
        parts=(
            _above(
                "turns_average",
                "the simple average turns",
                "log(r(K_max) / r(K*)) on test samples, K* chosen on validation samples",
                TURN,
            ),
            _above(
                "experts_improve",
                "the experts go on improving after that",
                "log(mean own test risk of the experts at K* / at K_max)",
                0.0,
            ),
            _above("turns_sum", "the plain sum, λ = 1, turns", "as the first, at λ = 1", TURN, "side"),
            _above(
                "turns_tuned",
                "the merge with λ tuned anew at every K turns",
                "as the first, λ tuned on validation samples",
                TURN,
                "side",
            ),
            _twofold("turning_point", "the turning point K* of the simple average"),
            _twofold("turning_point_sum", "the turning point K* of the plain sum"),
            _twofold("turning_point_tuned", "the turning point K* at re-tuned λ"),
        ),
    ),
    Claim(
        number=4,
        title="Samples",
        statement="More data never hurts, and the experts' generalisation gap falls as 1/n.",
        parts=(
            _above(
                "doubling_1",
                "1/8 → 1/4 of the samples does not hurt",
                "log(r(1/8 n) / r(1/4 n)), simple average, equal K",
                -0.05,
            ),
            _above(
                "doubling_2",
                "1/4 → 1/2 of the samples does not hurt",
                "log(r(1/4 n) / r(1/2 n)), simple average, equal K",
                -0.05,
            ),
            _above(
                "doubling_3",
                "1/2 → 1 of the samples does not hurt",
                "log(r(1/2 n) / r(1 n)), simple average, equal K",
                -0.05,
            ),
            _within(
                "gap_exponent",
                "the gap falls as 1/n (not as 1/n²)",
                "slope of log(mean test risk − training risk of the experts) in log n",
                (-1.5, -0.5),
            ),
            _within(
                "exponent",
                "the exponent of the merged risk in n is predicted",
                "slope of log r in log n, predicted − measured",
                (-0.1, 0.1),
                "prediction",
            ),
        ),
    ),
    Claim(
        number=5,
        title="Number of tasks",
        statement="More experts bring a small optimisation gain and a growing heterogeneity penalty.",
        parts=(
            _above(
                "gain",
                "averaging more experts lowers the risk over all eight tasks",
                "log(r of all eight tasks at N = 2 / at N = 8), simple averages, mean over subsets",
                0.0,
            ),
            _above(
                "penalty",
                "at a fixed λ every further expert hurts the others' tasks",
                "slope in N of mean log(r of a merged task / r with its own expert alone at that λ)",
                0.0,
            ),
            _within(
                "best_number",
                "the N that is best for the merged tasks, simple averages, is predicted within 2",
                "N* predicted − N* measured",
                (-2.0, 2.0),
                "prediction",
            ),
        ),
    ),
    Claim(
        number=6,
        title="Why methods work",
        statement="TIES, DARE, AdaMerging and experts aligned in training each lower a term of the bound.",
        parts=(
            _within(
                "average_chi",
                "the simple average of equal recipes has χ² = 0",
                "χ² of the shares λ_i η_i ‖a_i‖₁",
                (-1e-09, 1e-09),
            ),
            _below(
                "ties",
                "TIES has less interference for its progress than the simple average",
                KAPPA,
                0.0,
            ),
            _below(
                "dare",
                "DARE has less interference for its progress than the simple average",
                KAPPA,
                0.0,
            ),
            _below(
                "tangent",
                "Tangent-trained experts have less interference for its progress than the simple average",
                KAPPA,
                0.0,
            ),
            _below(
                "sam",
                "Sharpness-aware experts have less interference for its progress than the simple average",
                KAPPA,
                0.0,
            ),
            _below(
                "adamerging",
                "AdaMerging's coefficients beat the simple average",
                "log(r(AdaMerging) / r(simple average))",
                0.0,
            ),
            _above("adamerging_chi", "AdaMerging pays in χ²", "χ² of the shares λ_i η_i ‖a_i‖₁", 0.01, "side"),
        ),
    ),
    Claim(
        number=7,
        title="Heterogeneous experts",
        statement="With unequal recipes the simple average fails where weighted merging succeeds.",
        parts=(
            _above(
                "average_fails",
                "with one over-trained expert the simple average is worse than weights tuned on validation samples",
                "log(r(simple average) / r(tuned λ)) of that mix, test samples",
                TURN,
            ),
            _above(
                "advisor_recovers",
                "the advisor's λ, from probes alone, beat the simple average over all mixes",
                "mean over mixes of log(r(simple average) / r(advisor's λ)), test samples",
                0.0,
            ),
            _within(
                "predicted_gain",
                "how much they recover is predicted",
                "mean over mixes of predicted − measured log(r(simple average) / r(advisor's λ))",
                (-0.1, 0.1),
                "prediction",
            ),
        ),
    ),
    Claim(
        number=8,
        title="Excess risk decomposed",
        statement="Both halves of the effective bound follow what they stand for, and the worst case holds.",
        parts=(
            _above(
                "generalisation",
                "the generalisation half orders the merges by their gap",
                "Spearman of predicted and measured test − training risk, merges of the long base run",
                0.5,
            ),
            _above(
                "optimisation",
                "the optimisation half orders the merges by their training risk",
                "Spearman of predicted and measured training risk, same merges",
                0.5,
            ),
            _above(
                "worst_case",
                "the worst-case bound is never below the measured excess risk",
                "smallest log10(worst case / measured excess risk over the same merges)",
                0.0,
            ),
        ),
    ),
    Claim(
        number=9,
        title="Scaling laws",
        statement="The fitted bound predicts the local exponents of the risk; "
        "over the number of experts the risk follows floor + A/k.",
        parts=(
            _within(
                "learning_rate", "the exponent in η is predicted", "local exponent, predicted − measured", (-0.1, 0.1)
            ),
            _within(
                "batch_size", "the exponent in b is predicted", "local exponent, predicted − measured", (-0.1, 0.1)
            ),
            _within("steps", "the exponent in K is predicted", "local exponent, predicted − measured", (-0.1, 0.1)),
            _within(
                "num_samples", "the exponent in n is predicted", "local exponent, predicted − measured", (-0.1, 0.1)
            ),
            _within(
                "coefficients", "the exponent in λ is predicted", "local exponent, predicted − measured", (-0.1, 0.1)
            ),
            _within("num_tasks", "the exponent in N is predicted", "local exponent, predicted − measured", (-0.1, 0.1)),
            _above(
                "harmonic",
                "floor + A/k explains the mean risk of all eight tasks over k experts",
                "share of variance over k = 1..8 that the fit explains",
                0.8,
            ),
            _above("harmonic_amplitude", "A is positive", "fitted A / r(x₀)", 0.0, "side"),
        ),
    ),
    Claim(
        number=10,
        title="Steps and method together",
        statement="Over-training hurts the average while TIES and DARE peak later.",
        parts=(
            _above(
                "average_turns",
                "task arithmetic turns at the λ that was best after 40 steps",
                "log(r(K_max) / r(K*)) on test samples, K* and λ chosen on validation samples",
                TURN,
            ),
            _above(
                "ties_later",
                "TIES peaks later, at its own λ that was best after 40 steps",
                "log2(K* of the method / K* of task arithmetic)",
                0.0,
            ),
            _above(
                "dare_later",
                "DARE peaks later, at its own λ that was best after 40 steps",
                "log2(K* of the method / K* of task arithmetic)",
                0.0,
            ),
            _twofold("turning_point_average", "the turning point of task arithmetic at that λ"),
            _twofold("turning_point_ties", "the turning point of TIES at that λ"),
            _twofold("turning_point_dare", "the turning point of DARE at that λ"),
        ),
    ),
)


def claim_of(number: int) -> Claim:
    """The claim with a number."""
    for claim in CLAIMS:
        if claim.number == number:
            return claim
    raise ValueError(f"claim={number} is not one of {[claim.number for claim in CLAIMS]}; choose one of them")
