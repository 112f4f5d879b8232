"""Options that commands share, each with its help, and how their texts become values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from advisor.engine import EngineSettings

COMMON = "Common options"
BUDGET = "Limits"
ENGINE = "Engine"


def parse_cost(text: str) -> float:
    """A number of per-sample gradients.

    >>> parse_cost("2e5")
    200000.0
    """
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise typer.BadParameter(f"{text!r} must be a number of per-sample gradients above 0, such as 200000")
    return value


def parse_limit(text: str) -> float:
    """A duration in seconds.

    >>> parse_limit("1h30m")
    5400.0
    """
    from advisor.project_search import parse_duration

    try:
        value = float(parse_duration(text))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} {error}") from None
    if not value > 0:
        raise typer.BadParameter(f"{text!r} must be longer than nothing; give 30m or 2h")
    return value


def engine_settings(given: Mapping[str, Any]) -> EngineSettings:
    """The engine that a command's options name.

    >>> engine_settings({"engine": "processes", "devices": "cuda:0,cuda:1"}).devices
    ('cuda:0', 'cuda:1')
    """
    from advisor.engine import EngineSettings

    devices = tuple(part.strip() for part in (given.get("devices") or "").split(",") if part.strip())
    return EngineSettings(
        kind=given.get("engine", "in-process"),
        workers=given.get("workers"),
        devices=devices,
        address=given.get("address"),
        gpus=given.get("gpus", 0.0),
    )


def parse_pairs(texts: list[str], what: str) -> dict[str, str]:
    """``a=x b=y`` and ``a=x,b=y`` as a mapping.

    >>> parse_pairs(["a=0.3,b=0.2"], "coefficients")
    {'a': '0.3', 'b': '0.2'}
    """
    found: dict[str, str] = {}
    for part in (part for text in texts for part in text.split(",") if part):
        name, equals, value = part.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{what}={part!r} must read name=value; write for example a=0.3,b=0.2")
        if name in found:
            raise ValueError(f"{what} names {name!r} twice; name each once")
        found[name] = value
    return found


Source = Annotated[
    Path, typer.Argument(help="A project file, or a run directory to go on with.", metavar="PROJECT|RUN")
]
Run = Annotated[Path, typer.Argument(help="A run directory, or the id of one below runs/.", metavar="RUN")]
Out = Annotated[
    Path | None,
    typer.Option(
        help="The run directory; a run that is there is continued.  Default: runs/<time>-<project>, or the newest "
        "unfinished run of the same project.",
        metavar="RUN",
        rich_help_panel=COMMON,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.", rich_help_panel=COMMON)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no remarks.", rich_help_panel=COMMON)]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.", rich_help_panel=COMMON)]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Say what would be done and what it would cost; do nothing.", rich_help_panel=COMMON
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        help="Most per-sample gradients to spend in all.", parser=parse_cost, metavar="UNITS", rich_help_panel=BUDGET
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        help="Longest wall time: 30m, 2h, 1h30m or seconds.",
        parser=parse_limit,
        metavar="TIME",
        rich_help_panel=BUDGET,
    ),
]
Device = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps; default: the project's.", rich_help_panel=COMMON)
]
Seed = Annotated[
    int | None, typer.Option(help="Overrides the project's seed.", min=0, max=2**32 - 1, rich_help_panel=COMMON)
]
New = Annotated[bool, typer.Option("--new", help="Start a new run even where an unfinished one could go on.")]
Anyway = Annotated[bool, typer.Option("--anyway", help="Go on even if the advice is refused.")]
Refit = Annotated[
    bool, typer.Option("--refit", help="Advise again, sharpened by the validation figures of the merge that was made.")
]
From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help="Import runs that were trained elsewhere (traces and checkpoints below this folder) instead of probing.",
        metavar="TRACES",
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        help="Where probes, experts and merged evaluations are computed: in-process, processes or ray.",
        rich_help_panel=ENGINE,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(help="Jobs at once; default: one a device, or one a core.", min=1, rich_help_panel=ENGINE),
]
Devices = Annotated[
    str | None,
    typer.Option(
        help="Devices that local processes take in turn, e.g. cuda:0,cuda:1; default: every CUDA device, or the CPU.",
        metavar="LIST",
        rich_help_panel=ENGINE,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(help="Of a Ray cluster; default: one on this machine.", metavar="HOST:PORT", rich_help_panel=ENGINE),
]
Gpus = Annotated[
    float,
    typer.Option(help="GPUs that a job takes on Ray; 0.5 lets two share one.", min=0.0, rich_help_panel=ENGINE),
]
Storage = Annotated[
    str | None,
    typer.Option(
        help="Database that keeps the study, e.g. postgresql://user@host/name; default: a journal in the run.",
        metavar="URL",
        rich_help_panel=ENGINE,
    ),
]
SkipUnreadable = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be read, and say how many.")
]

# Options of commands that work on a run: name -> (type with help, default).
OF_A_RUN: dict[str, tuple[Any, Any]] = {
    "out": (Out, None),
    "new": (New, False),
    "anyway": (Anyway, False),
    "refit": (Refit, False),
    "traces": (From, None),
    "skip_unreadable": (SkipUnreadable, False),
    "max_cost": (MaxCost, None),
    "time_limit": (TimeLimit, None),
    "device": (Device, None),
    "seed": (Seed, None),
    "engine": (Engine, "in-process"),
    "workers": (Workers, None),
    "devices": (Devices, None),
    "address": (Address, None),
    "gpus": (Gpus, 0.0),
    "storage": (Storage, None),
    "dry_run": (DryRun, False),
    "as_json": (Json, False),
    "quiet": (Quiet, False),
    "debug": (Debug, False),
}
