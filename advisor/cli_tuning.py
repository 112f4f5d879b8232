"""``merge --coefficients auto``: tune, merge, and keep what was found beside the merged model.

<out>/coefficients.json         what was found, every measured merge included
<out>/coefficients-study.log    the Optuna study (a journal); not written from weights alone
<out>.tuning/                   measured merges and the study of a tuning that goes on; removed once the merge is there

A tuning that was stopped goes on when the same command is given again: merges in ``<out>.tuning`` are not measured
twice.  The study is written anew from them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.cli_shell import Shell
from advisor.coefficients import LINEAR, tune
from advisor.coefficients_result import TunedCoefficients
from advisor.merging.target import STUDY_NAME, TUNING_NAME, is_single
from advisor.progress import shown_progress
from estimators.files import write_bytes_atomic

if TYPE_CHECKING:
    from advisor.merging import MergeResult

ALL_LABELS = "all"
TUNING_ENDING = ".tuning"
MEASURED_NAME = "merges"


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningRequest:
    """What the command line asks of a tuning.

    Attributes:
        base: pretrained checkpoint.
        experts: name -> file.
        data: project file or run directory, or ``None``.
        labels: ``all``, or labels a class as text.
        method: merge operator or ``auto``.
        layers: coefficients for each layer group.
        simplex: coefficients that add up to 1.
        device: overrides the project's.
        seed: decides which labels are looked at.
    """

    base: Path
    experts: Mapping[str, str]
    data: Path | None
    labels: str | None = None
    method: str = LINEAR
    layers: bool = False
    simplex: bool = False
    device: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse options that need data."""
        if self.data is None and (self.labels is not None or self.layers or self.method not in (LINEAR, "auto")):
            raise ValueError(
                f"labels={self.labels}, per-layer-group={self.layers}, method={self.method!r}: these coefficients are "
                "chosen on data; add --data PROJECT"
            )


def run_tuning(shell: Shell, request: TuningRequest, folder: Path) -> TunedCoefficients:
    """Tune with progress shown; what is measured is kept in the folder."""
    study = folder / STUDY_NAME
    if request.data is not None:
        folder.mkdir(parents=True, exist_ok=True)
        study.unlink(missing_ok=True)
    with shown_progress(shell.err, quiet=shell.is_quiet or shell.as_json) as shown:
        return tune(
            request.base,
            request.experts,
            data=request.data,
            labels=parse_labels(request.labels),
            granularity="group" if request.layers else "task",
            simplex=request.simplex,
            method=request.method,
            seed=request.seed,
            study=study,
            measured=folder / MEASURED_NAME,
            device=request.device,
            progress=shown,
        )


def parse_labels(text: str | None) -> Any:
    """``all``, or a number a class.

    >>> parse_labels("5"), parse_labels(None)
    (5, 'all')
    """
    if text is None or text == ALL_LABELS:
        return ALL_LABELS
    if not text.isdigit():
        raise ValueError(f"labels={text!r} must be 'all' or a whole number a class; give --labels 0 for none")
    return int(text)


def merge_tuned(
    shell: Shell, request: TuningRequest, out: Path, options: Mapping[str, Any]
) -> tuple[TunedCoefficients, MergeResult]:
    """Tune, merge, and store what was found.

    Raises:
        ValueError: the output, or what is asked, cannot be; said before anything is measured.
    """
    from advisor.merging import merge
    from advisor.merging.streaming import check_output

    check_output(request.base, request.experts, out, overwrite=bool(options.get("overwrite")))
    folder = out.with_name(f"{out.name}{TUNING_ENDING}")
    tuned = run_tuning(shell, request, folder)
    result = merge(
        request.base,
        request.experts,
        method=tuned.method,
        coefficients=dict(tuned.coefficients),
        tensor_coefficients=tuned.tensor_coefficients or None,
        out=out,
        seed=request.seed,
        figures=tuned.figures(),
        **options,
    )
    text = json.dumps(tuned.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes_atomic(place_of(out, TUNING_NAME), text.encode())
    if (folder / STUDY_NAME).exists():
        shutil.copyfile(folder / STUDY_NAME, place_of(out, STUDY_NAME))
    if folder.is_dir():
        shutil.rmtree(folder)
    return tuned, result


def place_of(out: Path, name: str) -> Path:
    """Where a file about a merge lies: in its folder, or beside its single file.

    >>> place_of(Path("merged"), "a.json").as_posix(), place_of(Path("m.safetensors"), "a.json").as_posix()
    ('merged/a.json', 'm.a.json')
    """
    return out.with_name(f"{out.stem}.{name}") if is_single(out) else out / name
