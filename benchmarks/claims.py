"""The theory's claims against real fine-tunes: build the pool, judge, re-measure small.

    python -m benchmarks.claims build [--seeds 0 1 2] [--networks resnet vit] [--device cuda] [--pool FOLDER]
    python -m benchmarks.claims predict      fit the bound on each unit's short merges, predict the rest
    python -m benchmarks.claims verdicts     docs/claims.md, its plots and every verdict, from the stored tables
    python -m benchmarks.claims small        train and measure claims 1, 3 and 5 afresh, small, and compare

``build`` can be killed and started again; it ends with ``predict`` for the units that it built.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import torch

from benchmarks.claim_building import build
from benchmarks.claim_design import FULL, NETWORKS, SMALL
from benchmarks.claim_page import judge_all, write_page
from benchmarks.claim_predictions import predict_unit
from benchmarks.claim_tables import TABLES, read_tables, write_unit_table
from benchmarks.claim_verdicts import ClaimVerdict, PartVerdict

ROOT = Path(__file__).parents[1]
WORK = Path(__file__).parent / "work" / "claims"


def predict(folder: Path, *, only_missing: bool = False) -> None:
    """Write what the fitted bound predicts beside every table."""
    for table in read_tables(folder):
        path = folder / f"{table.name}.predictions.json"
        if only_missing and path.exists():
            continue
        write_unit_table(path, predict_unit(table))
        print(f"{table.name}: predicted", flush=True)


def describe(verdict: ClaimVerdict) -> str:
    """One line a claim."""
    prediction = f"; prediction {verdict.prediction}" if verdict.prediction else ""
    return f"{verdict.claim.number:2d}. {verdict.claim.title}: {verdict.outcome}{prediction}"


def small(stored: Path, work: Path, *, device: str | None) -> None:
    """Train afresh at small size and say whether the verdicts of the stored tables come out again."""
    out = work / "tables"
    build(SMALL, work, out, command="python -m benchmarks.claims small", device=device, say=_say)
    before = {verdict.claim.number: verdict for verdict in judge_all(read_tables(stored), SMALL.claims)}
    for verdict in judge_all(read_tables(out), SMALL.claims):
        kept = {part.part.key: part for part in before[verdict.claim.number].parts}
        print(
            f"claim {verdict.claim.number}, {verdict.claim.title}: small {verdict.outcome}, "
            f"stored {before[verdict.claim.number].outcome}"
        )
        for part in verdict.parts:
            if part.part.role == "prediction":
                continue
            stored_part = kept[part.part.key]
            pair = {part.outcome, stored_part.outcome}
            word = "agrees" if len(pair) == 1 else "open" if "not decidable" in pair else "CONTRADICTS"
            print(f"   {word:11s} {part.part.statement}: small {_figure(part)}, stored {_figure(stored_part)}")


def _figure(part: PartVerdict) -> str:
    interval, outcome = part.interval, part.outcome
    return outcome if interval is None else f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}] {outcome}"


def _say(line: str) -> None:
    print(line, flush=True)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("build", "predict", "verdicts", "small"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[])
    parser.add_argument("--networks", nargs="*", choices=tuple(NETWORKS), default=[])
    parser.add_argument("--device", default=None)
    parser.add_argument("--pool", type=Path, default=WORK, help="folder of checkpoints and unfinished pieces")
    parser.add_argument("--tables", type=Path, default=TABLES, help="folder of the stored tables")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.command == "build":
        given = sys.argv[1:] if arguments is None else arguments
        build(
            FULL,
            options.pool / FULL.name,
            options.tables,
            command=shlex.join(["python", "-m", "benchmarks.claims", *given]),
            device=options.device,
            networks=options.networks,
            seeds=options.seeds,
            say=_say,
        )
        predict(options.tables, only_missing=True)
    elif options.command == "predict":
        predict(options.tables)
    elif options.command == "verdicts":
        for verdict in write_page(options.tables, ROOT / "docs" / "claims.md", ROOT / "docs" / "images" / "claims"):
            print(describe(verdict))
    else:
        small(options.tables, options.pool / SMALL.name, device=options.device)


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # of this process alone: whoever calls main() keeps its own arithmetic
    main()
