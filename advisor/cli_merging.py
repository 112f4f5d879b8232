"""``merge``: the experts of a run as advised, or any experts by file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advisor import cli_options as options
from advisor.cli_shell import Shell
from advisor.cli_stages import advise, do_stage
from advisor.report_sections import Section, Table
from advisor.runs import is_run

if TYPE_CHECKING:
    from advisor.merging import MergeResult
    from advisor.workspace import Workspace

FILES = "Merging experts by file"


def merge(
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            help="A run directory (or project file); or, with --base, more experts.", metavar="[RUN|NAME=FILE]…"
        ),
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="Pretrained checkpoint.", metavar="FILE|DIR", rich_help_panel=FILES)
    ] = None,
    experts: Annotated[
        list[str] | None,
        typer.Option(
            help="Experts as name=file, several allowed: checkpoints, folders of shards or of PEFT's LoRA adapters.",
            metavar="NAME=FILE…",
            rich_help_panel=FILES,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Project file whose data tune the coefficients.", metavar="PROJECT", rich_help_panel=FILES),
    ] = None,
    method: Annotated[
        str, typer.Option(help="Merge operator; auto compares some (with auto and --data).", rich_help_panel=FILES)
    ] = "task_arithmetic",
    coefficients: Annotated[
        str | None,
        typer.Option(
            help="a=0.3,b=0.2, one number for all, or auto; default: the method's.  auto alone goes by the weights, "
            "auto with --data by measured merges.",
            rich_help_panel=FILES,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="With auto and --data: validation labels a class that may be looked at: all, a number, or 0 for "
            "unlabelled samples.  Default: all.",
            metavar="all|K",
            rich_help_panel=FILES,
        ),
    ] = None,
    per_layer_group: Annotated[
        bool,
        typer.Option(
            "--per-layer-group", help="With auto and --data: coefficients for groups of layers.", rich_help_panel=FILES
        ),
    ] = False,
    simplex: Annotated[
        bool,
        typer.Option(
            "--simplex", help="With auto: coefficients add up to 1; else each is free in [0, 2].", rich_help_panel=FILES
        ),
    ] = False,
    option: Annotated[
        list[str] | None,
        typer.Option(help="Option of the method as name=value, e.g. density=0.2.", rich_help_panel=FILES),
    ] = None,
    keys: Annotated[
        str,
        typer.Option(help="strict: the same tensors everywhere; common: merge what all share.", rich_help_panel=FILES),
    ] = "strict",
    keep_base: Annotated[
        list[str] | None,
        typer.Option(
            help="Tensors that stay the base's, by shell pattern, e.g. 'head.*'.",
            metavar="PATTERN",
            rich_help_panel=FILES,
        ),
    ] = None,
    mixed_dtypes: Annotated[
        bool,
        typer.Option(
            "--mixed-dtypes", help="Experts may have another floating dtype than the base.", rich_help_panel=FILES
        ),
    ] = False,
    trust_base: Annotated[
        bool,
        typer.Option(
            "--trust-base", help="Merge though an expert equals the base or is far from it.", rich_help_panel=FILES
        ),
    ] = False,
    max_shard_size: Annotated[str, typer.Option(help="Largest file written.", rich_help_panel=FILES)] = "5GB",
    workers: Annotated[int, typer.Option(help="Threads.", min=1, rich_help_panel=FILES)] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier merge.", rich_help_panel=FILES)
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Run directory; with --base, the folder of the merged model.", metavar="DIR")
    ] = None,
    anyway: options.Anyway = False,
    max_cost: options.MaxCost = None,
    time_limit: options.TimeLimit = None,
    device: options.Device = None,
    seed: options.Seed = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Merge the advised experts of a run, or with --base and --experts any experts by file.

    merge-advisor merge runs/20261122-060000-digits

    merge-advisor merge --base base.safetensors --experts a=a.safetensors b=b.safetensors --out merged

    merge-advisor merge --base base.safetensors --experts a=a.safetensors b=b.safetensors --data project.yaml
    --coefficients auto --labels 5 --out merged
    """
    given = list(parts or [])
    if base is None and not experts:
        if len(given) != 1:
            raise ValueError(f"run={given} must be one run directory or project file; or give --base and --experts")
        named = {"out": out, "max_cost": max_cost, "time_limit": time_limit, "device": device, "seed": seed}
        named |= {"anyway": anyway, "dry_run": dry_run, "as_json": as_json, "quiet": quiet}
        do_stage("merge", Path(given[0]), named, _merge_run)
        return
    if base is None or out is None:
        missing = "--base" if base is None else "--out"
        raise ValueError(f"{missing} is missing; merging experts by file takes --base, --experts and --out")
    files = options.parse_pairs([*(experts or []), *_only_pairs(given)], "experts")
    if len(files) < 1:
        raise ValueError("experts=[] must name at least one; write --experts name=file")
    tuned = coefficients == "auto"
    values = None if tuned else parse_coefficients(coefficients)
    if not tuned:
        _refuse_tuning_options(data, labels, per_layer_group=per_layer_group, simplex=simplex, method=method)
    chosen = {name: _scalar(text) for name, text in options.parse_pairs(option or [], "option").items()}
    fitting: dict[str, Any] = {
        "keys": keys,
        "keep_base": keep_base or [],
        "mixed_dtypes": mixed_dtypes,
        "trust_base": trust_base,
    }
    _refuse_other_options(chosen, fitting, tuned=tuned)
    shell = Shell(as_json=as_json, is_quiet=quiet)
    if dry_run:
        _say_plan(shell, base, files, method, out)
        return
    if tuned:
        from advisor.cli_tuning import TuningRequest, merge_tuned
        from advisor.coefficients_sections import tuned_sections

        request = TuningRequest(
            base=base,
            experts=files,
            data=data,
            labels=labels,
            method=method,
            layers=per_layer_group,
            simplex=simplex,
            device=device,
            seed=seed or 0,
        )
        given_on = {"max_shard_size": max_shard_size, "workers": workers, "overwrite": overwrite}
        found, result = merge_tuned(shell, request, out, given_on)
        value = _plain(result, out) | {"tuning": found.to_json()}
        shell.result(value, [*tuned_sections(found), result_section(result, out)])
        return
    from advisor.merging import merge as merge_files

    opened, adapted = _with_adapters(base, files)
    result = merge_files(
        base,
        opened,
        method=method,
        coefficients=values,
        out=out,
        seed=seed or 0,
        max_shard_size=max_shard_size,
        workers=workers,
        overwrite=overwrite,
        **(fitting | adapted),
        **chosen,
    )
    shell.result(_plain(result, out), [result_section(result, out)])


def _merge_run(shell: Shell, ws: Workspace, given: dict[str, Any]) -> dict[str, Any]:
    from advisor import pipeline

    advice = advise(shell, ws, given)
    path = pipeline.merge(ws)
    if not shell.as_json:
        shell.show([Section(title="Merged", sentences=(f"{path}, by {advice.plan.method.replace('_', ' ')}.",))])
    return {"merged": str(path)}


def _only_pairs(parts: list[str]) -> list[str]:
    for part in parts:
        if "=" not in part or is_run(part):
            raise ValueError(f"expert={part!r} must read name=file; a run directory does not go with --base")
    return parts


def parse_coefficients(text: str | None) -> dict[str, float] | float | None:
    """``a=0.3,b=0.2`` or one number.

    >>> parse_coefficients("a=0.3,b=0.2"), parse_coefficients("0.4"), parse_coefficients(None)
    ({'a': 0.3, 'b': 0.2}, 0.4, None)
    """
    if text is None:
        return None
    try:
        if "=" not in text:
            return float(text)
        return {name: float(value) for name, value in options.parse_pairs([text], "coefficients").items()}
    except ValueError as error:
        if "coefficients" in str(error):
            raise
        raise ValueError(f"coefficients={text!r} must hold numbers; write a=0.3,b=0.2, or 0.4 for all") from None


def _refuse_tuning_options(
    data: Path | None, labels: str | None, *, per_layer_group: bool, simplex: bool, method: str
) -> None:
    """Refuse options of a tuning where coefficients are given."""
    if data is not None:
        raise ValueError(f"data={str(data)!r} is used by --coefficients auto alone; leave it out or add that")
    if labels is not None or per_layer_group or simplex or method == "auto":
        raise ValueError(
            f"labels={labels}, per-layer-group={per_layer_group}, simplex={simplex}, method={method!r}: --labels, "
            "--per-layer-group, --simplex and --method auto go with --coefficients auto alone; add that"
        )


def _refuse_other_options(chosen: Mapping[str, Any], fitting: Mapping[str, Any], *, tuned: bool) -> None:
    """Refuse options under another name, and those that tuned coefficients do not go with."""
    for name in fitting:
        if name in chosen:
            raise ValueError(f"option={name!r} is none of the method's; write --{name.replace('_', '-')}")
    if tuned and chosen:
        raise ValueError(
            f"option={dict(chosen)}: tuned coefficients go with the method's own options; leave --option out"
        )
    if tuned and (fitting["keys"] != "strict" or any(fitting[name] for name in fitting if name != "keys")):
        raise ValueError(
            f"{dict(fitting)}: coefficients are tuned on checkpoints that fit as they are; leave these options out, or "
            "give the coefficients"
        )


def _with_adapters(base: Path, experts: Mapping[str, str]) -> tuple[Mapping[str, Any], dict[str, bool]]:
    """Experts by file; PEFT's adapter folders as base plus adapter, and the option that they need."""
    adapters = {name: file for name, file in experts.items() if (Path(file) / "adapter_config.json").is_file()}
    if not adapters:
        return experts, {}
    from advisor.merging import open_adapters

    return {**experts, **open_adapters(base, adapters)}, {"mixed_dtypes": True}


def _scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _say_plan(shell: Shell, base: Path, experts: Mapping[str, str], method: str, out: Path) -> None:
    said = f"Would merge {', '.join(experts)} into {base} by {method} and write {out}; no gradients are taken."
    value = {"base": str(base), "experts": dict(experts), "method": method, "out": str(out), "units": 0}
    shell.result(value, [Section(title="What merge would do", sentences=(said,))])


def result_section(result: MergeResult, out: Path) -> Section:
    """What was merged: coefficients, norms and cosines of the task vectors."""
    labels = list(result.labels)
    rows = tuple(
        (
            label,
            f"{result.coefficients[label]:.3g}",
            f"{float(result.norms[i]):.4g}",
            *(f"{float(result.cosines[i, j]):+.3f}" for j in range(len(labels))),
        )
        for i, label in enumerate(labels)
    )
    return Section(
        title=f"Merged by {result.method.replace('_', ' ')} into {out}",
        bullets=result.notes,
        tables=(
            Table(
                title="Task vectors: norm and cosines",
                head=("expert", "coefficient", "norm", *labels),
                rows=rows,
            ),
        ),
    )


def _plain(result: MergeResult, out: Path) -> dict[str, Any]:
    return {
        "out": str(out),
        "method": result.method,
        "coefficients": dict(result.coefficients),
        "norms": dict(zip(result.labels, result.norms.tolist(), strict=True)),
        "cosines": result.cosines.tolist(),
        "files": [str(path) for path in result.files],
        "notes": list(result.notes),
    }
