r"""The report: everything a run found, derived from its artefacts as JSON, Markdown and one HTML page.

``report.json`` has the top-level keys schema, recommendation, constants, validation and cost, and nothing else; its
form is ``advisor/report.schema.json``.  ``validation`` is null until the run is validated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from advisor.advice import Recommendation, Validation
from advisor.curves import Curve
from advisor.observations import ProbeData
from advisor.report_html import render_html
from advisor.report_markdown import render_markdown
from advisor.report_sections import (
    Section,
    constants_section,
    cost_section,
    recommendation_sections,
    validation_section,
)
from advisor.run_schemas import schema_of
from advisor.runs import RunDirectory
from estimators.constants import Constants

REPORT_NAMES = ("report.json", "report.md", "report.html")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """What a report is made of.

    Attributes:
        title: name of the project.
        run_id: id of the run.
        recommendation: the advice.
        constants: measured constants.
        validation: predicted against measured, once there is one.
        cost: purpose -> units, everything so far.
        seconds: purpose -> wall seconds.
        curves: predicted risk along knobs around the advised plan.
        probes: what probes left behind, for their figures.
        made_by: name and version of the program.
        remark: what the reader must know first; empty for nothing.
    """

    title: str
    run_id: str
    recommendation: Recommendation
    constants: Constants
    validation: Validation | None
    cost: Mapping[str, float]
    seconds: Mapping[str, float] = field(default_factory=dict)
    curves: tuple[Curve, ...] = ()
    probes: ProbeData | None = None
    made_by: str = "merge-advisor"
    remark: str = ""

    def sections(self) -> tuple[Section, ...]:
        """The report's parts, in reading order."""
        r = self.recommendation
        *parts, theorem = recommendation_sections(r)
        if self.validation is not None:
            parts.insert(1, validation_section(self.validation))
        parts.append(constants_section(self.constants))
        parts.append(theorem)
        if self.probes is not None:
            parts.append(Section(title="Probes", figures=("probe_traces", "measured_merges")))
        parts.append(
            cost_section(self.cost, self.seconds, full_fine_tune=r.full_fine_tune, training_cost=r.training_cost)
        )
        return tuple(parts)

    def to_json(self) -> dict[str, Any]:
        """The content of ``report.json``."""
        total = float(sum(self.cost.values()))
        return {
            "schema": schema_of("report.json"),
            "recommendation": self.recommendation.to_json(),
            "constants": self.constants.to_json(),
            "validation": None if self.validation is None else self.validation.to_json(),
            "cost": {
                "unit": "per-sample gradient",
                "total": total,
                "purposes": {name: float(units) for name, units in self.cost.items()},
                "seconds": {name: float(value) for name, value in self.seconds.items()},
                "full_fine_tune": float(self.recommendation.full_fine_tune),
                "full_fine_tunes": total / self.recommendation.full_fine_tune,
                "training": float(self.recommendation.training_cost),
            },
        }

    def to_markdown(self) -> str:
        """The content of ``report.md``."""
        return render_markdown(self.title, self._byline(), self.sections())

    def to_html(self) -> str:
        """The content of ``report.html``: one page that loads nothing from anywhere."""
        from advisor.report_figures import report_figures

        figures = report_figures(
            self.recommendation,
            self.constants,
            self.validation,
            cost=self.cost,
            curves=self.curves,
            probes=self.probes,
        )
        return render_html(self.title, self._byline(), self.sections(), figures)

    def _byline(self) -> str:
        return " ".join(filter(None, [f"Run {self.run_id}, made by {self.made_by}.", self.remark]))


def write_report(run: RunDirectory, report: Report) -> Path:
    """Write ``report.json``, ``report.md`` and ``report.html`` into a run; returns the page's path."""
    content = report.to_json()
    check_report(content)
    content.pop("schema")
    run.write_json("report.json", content)
    run.write_text("report.md", report.to_markdown())
    return run.write_text("report.html", report.to_html())


@cache
def report_schema() -> dict[str, Any]:
    """The JSON Schema of ``report.json``."""
    text = files("advisor").joinpath("report.schema.json").read_text(encoding="utf-8")
    return json.loads(text)  # type: ignore[no-any-return]


def check_report(content: Mapping[str, Any]) -> None:
    """Check the content of a ``report.json`` against its schema.

    Raises:
        ValueError: naming the first place that breaks it.
    """
    from jsonschema import Draft202012Validator

    error = next(iter(Draft202012Validator(report_schema()).iter_errors(content)), None)
    if error is not None:
        place = ".".join(map(str, error.absolute_path)) or "the top level"
        raise ValueError(f"report.json breaks its schema at {place}: {error.message}; make the report again")
