r"""``merge-advisor``: parse, one call, print.

Every command is a shell around ``advisor.pipeline`` and its neighbours, which are imported inside the commands, so that
``--help`` loads neither torch nor Optuna.  Exit codes stand in ``advisor.cli_shell``.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from advisor import cli_looking, cli_merging, cli_predicting, cli_stages
from advisor.cli_shell import INTERRUPTED, Shell, explain

SUMMARY = "Predicts, before training, which recipes and coefficients make fine-tuned experts merge well."

app = typer.Typer(
    name="merge-advisor",
    help=SUMMARY,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    cli_stages.run,
    cli_looking.demo,
    cli_looking.init,
    cli_looking.check,
    cli_stages.probe,
    cli_stages.recommend,
    cli_predicting.predict,
    cli_stages.train,
    cli_merging.merge,
    cli_stages.validate,
    cli_stages.report,
    cli_looking.app,
    cli_looking.runs,
    cli_looking.stop,
):
    app.command()(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        from advisor.run_ids import program_version

        typer.echo(f"merge-advisor {program_version()}")
        raise typer.Exit


@app.callback(help=SUMMARY)
def _shared(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None: ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code and shows errors as one paragraph."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Several threads on busy cores are slower than one by far, and change the last digits; users may set more.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        with warnings.catch_warnings():
            if "--debug" not in given and not sys.warnoptions:
                # libraries' notes to programmers are no use to people at a terminal
                for category in (FutureWarning, DeprecationWarning):
                    warnings.simplefilter("ignore", category)
            app(args=given, prog_name="merge-advisor")
    except SystemExit as end:
        return _code(end)
    except BaseException as error:
        if "--debug" in given:
            traceback.print_exc()
        code, text = explain(error)
        Shell().err.print(f"Stopped: {text}" if code == INTERRUPTED else f"Error: {text}")
        return code
    return 0


def _code(end: SystemExit) -> int:
    if end.code is None:
        return 0
    return end.code if isinstance(end.code, int) else 1


if __name__ == "__main__":
    sys.exit(main())
