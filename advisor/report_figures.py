"""The figures of the report by name, as far as a run has what they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from advisor import figures
from advisor.advice import Recommendation, Validation
from advisor.curves import Curve
from advisor.figures import Drawn
from advisor.observations import ProbeData
from estimators.constants import Constants

CURVE_FIGURES = {
    "learning_rate": "risk_against_learning_rate",
    "coefficient": "risk_against_coefficient",
    "steps": "risk_against_steps",
    "batch_size": "risk_against_batch_size",
}


def report_figures(
    recommendation: Recommendation,
    constants: Constants,
    validation: Validation | None,
    *,
    cost: Mapping[str, float],
    curves: Sequence[Curve] = (),
    probes: ProbeData | None = None,
) -> dict[str, Drawn]:
    """Name -> figure."""
    r = recommendation
    drawn: dict[str, Drawn | None] = {
        "term_shares": figures.term_shares(r.terms) if r.terms else None,
        "risk_against_cost": figures.risk_against_cost(r),
        "constants": figures.constants_with_intervals(constants),
        "gradient_cosines": figures.gradient_cosines(constants),
        "relative_sharpness": figures.relative_sharpness(constants),
        "cost_by_purpose": figures.cost_by_purpose(cost, r.full_fine_tune) if cost else None,
    }
    drawn |= {CURVE_FIGURES[curve.knob]: _curve(curve, r) for curve in curves}
    if validation is not None:
        drawn["predicted_and_measured"] = figures.predicted_and_measured(validation)
        drawn["compared_models"] = figures.compared_models(validation)
        drawn["compared_accuracies"] = figures.compared_models(validation, "accuracy")
    if probes is not None:
        drawn["probe_traces"] = figures.probe_traces(probes.traces) if probes.traces else None
        some = any(not merge.diverged for merge in probes.merges)
        drawn["measured_merges"] = figures.measured_merges(probes.merges) if some else None
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _curve(curve: Curve, recommendation: Recommendation) -> Drawn:
    optimizers = {recipe.optimizer for recipe in recommendation.plan.recipes.values()}
    edge = recommendation.edges.get(optimizers.pop()) if len(optimizers) == 1 else None
    return figures.risk_curve(
        curve,
        initial_goal=recommendation.initial_goal,
        edge=edge if curve.knob == "learning_rate" else None,
        turning_point=recommendation.turning_point if curve.knob == "steps" else None,
    )
