"""Commands that do stages of the path on a run: run, probe, recommend, train, validate and report.

They share their options, so each is a row: its name, its help, the work it does on a workspace, and the options it
leaves out.  A work returns what ``--json`` prints and shows the same as text otherwise.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from advisor import cli_options as options
from advisor.cli_planning import show_planned_cost, show_planned_import
from advisor.cli_running import RunOptions, open_run, opened
from advisor.cli_shell import NO_ADVICE, Shell
from advisor.report_sections import (
    Section,
    constants_section,
    cost_section,
    recommendation_sections,
    validation_section,
)

if TYPE_CHECKING:
    from advisor.advice import Recommendation
    from advisor.workspace import Workspace

Given = dict[str, Any]
Work = Callable[[Shell, "Workspace", Given], dict[str, Any]]

ANYWAY = "The advice is refused, so nothing was trained; --anyway goes on with the best plan found."


class Refused(Exception):  # noqa: N818 - an outcome: the work ends early with what was found so far
    """The advice is refused and nobody asked to go on."""

    def __init__(self, found: dict[str, Any]) -> None:
        super().__init__()
        self.found = found


def stage_command(name: str, doc: str, work: Work, *, without: Collection[str] = ()) -> Callable[..., None]:
    """A command of the shared options, less those in ``without``."""
    chosen = {key: value for key, value in options.OF_A_RUN.items() if key not in without}

    def command(**given: Any) -> None:
        source: Path = given.pop("source")
        do_stage(name, source, given, work)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("source", kind, annotation=options.Source)]
    parameters += [
        inspect.Parameter(key, kind, annotation=annotation, default=default)
        for key, (annotation, default) in chosen.items()
    ]
    command.__name__, command.__doc__ = name, doc
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def do_stage(name: str, source: Path, given: Given, work: Work) -> None:
    """Do a command's work on its run, or only plan it; exit code 3 where advice is refused."""
    shell = Shell(as_json=given["as_json"], is_quiet=given["quiet"])
    wanted = RunOptions(
        **{key: given.get(key) for key in ("out", "max_cost", "time_limit", "device", "seed", "storage")},
        skip_unreadable=given.get("skip_unreadable", False),
        is_new=given.get("new", False),
        engine=options.engine_settings(given),
    )
    if given["dry_run"] and given.get("traces") is not None:
        show_planned_import(shell, given["traces"])
        return
    if given["dry_run"]:
        show_planned_cost(shell, name, source, wanted)
        return
    refused = False
    with opened(shell, name, source, wanted) as ws:
        path = ws.run.path
        try:
            found = work(shell, ws, given)
        except Refused as outcome:
            found, refused = outcome.found, True
    if shell.as_json:
        shell.result({"run": str(path), **found}, [])
    shell.say(f"Run: {path}")
    if refused:
        raise typer.Exit(NO_ADVICE)


def advise(shell: Shell, ws: Workspace, given: Given) -> Recommendation:
    """The advice, on which later stages build.

    Raises:
        Refused: if it is refused and ``--anyway`` was not given.
    """
    from advisor import pipeline

    advice = pipeline.recommend(ws)
    if advice.status == "refuse" and not given["anyway"]:
        show_advice(shell, advice)
        shell.say(ANYWAY)
        raise Refused({"recommendation": advice.to_json()})
    return advice


def _run(shell: Shell, ws: Workspace, given: Given) -> dict[str, Any]:
    from advisor import pipeline

    advice = pipeline.recommend(ws)
    show_advice(shell, advice)
    if advice.status == "refuse" and not given["anyway"]:
        shell.say(ANYWAY)
        raise Refused({"recommendation": advice.to_json(), "validation": None, "report": str(pipeline.report(ws))})
    validation = pipeline.run_all(ws)
    advice = _as_trained(shell, ws, advice)
    page = ws.run.path / "report.html"
    if not shell.as_json:
        shell.show([validation_section(validation, with_notes=False), costs_of(ws, advice)])
    shell.say(f"Report: {page}")
    return {"recommendation": advice.to_json(), "validation": validation.to_json(), "report": str(page)}


def _as_trained(shell: Shell, ws: Workspace, advice: Recommendation) -> Recommendation:
    """The advice that was followed in the end: another one than at first where an advised expert diverged."""
    from advisor.advice import Recommendation

    followed = Recommendation.from_json(ws.run.read_json("recommendation.json"))
    if followed.plan != advice.plan:
        shell.say("An advised expert diverged; with that known the advice was made again, and followed:")
        show_advice(shell, followed)
    return followed


def _probe(shell: Shell, ws: Workspace, given: Given) -> dict[str, Any]:
    from advisor import pipeline

    data = pipeline.import_traces(ws, given["traces"]) if given["traces"] is not None else pipeline.probe(ws)
    diverged = sum(merge.diverged for merge in data.merges)
    said = f"{len(data.traces)} probe runs, {len(data.merges)} measured merges, {diverged} of them diverged."
    if not shell.as_json:
        shell.show([constants_section(data.constants), Section(title="Probes", sentences=(said,))])
    counts = {"runs": len(data.traces), "merges": len(data.merges), "diverged": diverged}
    return {"constants": data.constants.to_json(), **counts, "cost": ws.costs()}


def _recommend(shell: Shell, ws: Workspace, given: Given) -> dict[str, Any]:
    from advisor import pipeline

    advice = pipeline.refit(ws) if given["refit"] else pipeline.recommend(ws)
    show_advice(shell, advice)
    if not shell.as_json:
        shell.show([costs_of(ws, advice)])
    found = {"recommendation": advice.to_json()}
    if advice.status == "refuse":
        raise Refused(found)
    return found


def _train(shell: Shell, ws: Workspace, given: Given) -> dict[str, Any]:
    from advisor import pipeline

    advise(shell, ws, given)
    paths = {name: str(path) for name, path in pipeline.train(ws).items()}
    if not shell.as_json:
        shell.show([Section(title="Experts", bullets=tuple(f"{name}: {path}" for name, path in paths.items()))])
    return {"experts": paths}


def _validate(shell: Shell, ws: Workspace, given: Given) -> dict[str, Any]:
    from advisor import pipeline

    advise(shell, ws, given)
    validation = pipeline.validate(ws)
    if not shell.as_json:
        shell.show([validation_section(validation, with_notes=False)])
    return {"validation": validation.to_json()}


run = stage_command(
    "run",
    "Do everything: probe, advise, train the experts, merge, validate, report.",
    _run,
    without=("refit", "traces"),
)
probe = stage_command(
    "probe",
    "Measure the constants and run the probes: short fine-tunes and their merges; or import such runs (--from).",
    _probe,
    without=("refit", "anyway"),
)
recommend = stage_command(
    "recommend",
    "Advise: recipes, coefficients, predicted risk, reasons, caveats; probe first if that is not done.",
    _recommend,
    without=("anyway", "traces"),
)
train = stage_command(
    "train", "Train the advised experts; advise first if that is not done.", _train, without=("refit", "traces")
)
validate = stage_command(
    "validate",
    "Compare predicted with measured on test data, beside default recipes at equal cost.",
    _validate,
    without=("refit", "traces"),
)


def report(
    run_path: options.Run,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Write report.json, report.md and report.html of what a run holds."""
    shell = Shell(as_json=as_json, is_quiet=quiet)
    path = open_run(run_path)
    path.require("recommendation.json")
    with opened(shell, "report", path.path, RunOptions()) as ws:
        from advisor import pipeline

        pipeline.report(ws)
    names = [str(path.path / f"report.{kind}") for kind in ("json", "md", "html")]
    shell.result({"run": str(path.path), "files": names}, [Section(title="Report", bullets=tuple(names))])


def show_advice(shell: Shell, advice: Recommendation) -> None:
    """The advice as text; the Pareto front and the theorem's conditions are left to the report."""
    if shell.as_json:
        return
    *parts, alternatives, theorem = recommendation_sections(advice)
    short = replace(
        theorem,
        sentences=(f"{len(theorem.bullets)} conditions are not met; the report lists them.",)
        if theorem.bullets
        else (),
        bullets=(),
    )
    shell.show([*parts, replace(alternatives, tables=alternatives.tables[:1]), short])


def costs_of(ws: Workspace, advice: Recommendation) -> Section:
    """What the run cost so far."""
    return cost_section(
        ws.costs(), ws.seconds(), full_fine_tune=advice.full_fine_tune, training_cost=advice.training_cost
    )
