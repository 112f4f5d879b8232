"""Figures: values of advice as plotly figures, each with a text that says in words what it shows.

Used by the report and by the pages of the app.  Every function returns a :class:`Drawn`, which unpacks as
``figure, alt``.  Colours are Okabe and Ito's, which colour-blind people can tell apart, and no meaning rests on colour
alone: series differ in marker, dash or pattern too.  Backgrounds are transparent, for light and dark pages.
"""

from advisor.figures.constants import constants_with_intervals
from advisor.figures.contours import risk_contour
from advisor.figures.costs import cost_by_purpose, risk_against_cost
from advisor.figures.matrices import gradient_cosines, heat_map, relative_sharpness, task_vector_cosines
from advisor.figures.probes import measured_merges, probe_traces
from advisor.figures.risk_curves import risk_curve
from advisor.figures.style import Drawn
from advisor.figures.terms import term_shares
from advisor.figures.validation import compared_models, predicted_and_measured

__all__ = [
    "Drawn",
    "compared_models",
    "constants_with_intervals",
    "cost_by_purpose",
    "gradient_cosines",
    "heat_map",
    "measured_merges",
    "predicted_and_measured",
    "probe_traces",
    "relative_sharpness",
    "risk_against_cost",
    "risk_contour",
    "risk_curve",
    "task_vector_cosines",
    "term_shares",
]
