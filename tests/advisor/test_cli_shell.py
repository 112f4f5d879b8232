import errno
import io

import pytest
from rich.console import Console

from advisor import cli_shell
from advisor.cli_shell import explain, print_section
from advisor.interrupts import RunInterrupted
from advisor.probe_checks import ProbesDiverged
from advisor.report_sections import Section, Table, recommendation_sections
from advisor.run_lock import RunBusy
from advisor.workspace import CostLimitReached
from estimators.files import StorageFailed
from tests.advisor import advice_samples as samples


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("a=1 must\n be 2"), 2, "a=1 must be 2"),
        (TypeError("no"), 2, "no"),
        (RunBusy("busy"), 2, "busy"),
        (CostLimitReached("dear"), 2, "dear"),
        (ProbesDiverged("all diverged"), 3, "all diverged"),
        (RunInterrupted("stopped"), 130, "stopped"),
        (KeyboardInterrupt(), 130, "interrupted; everything that was finished is kept"),
        (StorageFailed(errno.ENOSPC, "path='x' cannot be written; free some"), 2, "path='x' cannot be written; free"),
        (FileNotFoundError(2, "No such file or directory", "x.csv"), 2, "path='x.csv': No such file or directory"),
        (ZeroDivisionError("division by zero"), 1, "unexpected ZeroDivisionError: division by zero"),
        (ValueError(), 2, "ValueError"),
    ],
)
def test_every_error_has_a_code_and_one_paragraph(error: BaseException, code: int, text: str) -> None:
    found = explain(error)
    assert found[0] == code
    assert found[1].startswith(text)
    assert "\n" not in found[1]


def test_the_outcomes_known_by_name_exist() -> None:
    from advisor.diverging import AdviceWithdrawn
    from advisor.experts import ExpertDiverged
    from advisor.merging.adamerging import MergeDiverged
    from advisor.probe_checks import ContradictoryProbes, TooFewProbes
    from advisor.training import OutOfMemory
    from estimators.outcomes import MeasurementFailed
    from studies.result import NoFeasiblePlanError

    kinds = {AdviceWithdrawn, ContradictoryProbes, CostLimitReached, ExpertDiverged, MeasurementFailed, MergeDiverged}
    kinds |= {NoFeasiblePlanError, OutOfMemory, ProbesDiverged, TooFewProbes}
    assert set(cli_shell.OUTCOMES) == {kind.__name__ for kind in kinds}


def printed(section: Section, width: int = 80) -> str:
    stream = io.StringIO()
    print_section(Console(file=stream, width=width, markup=False, highlight=False, emoji=False), section)
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 100])
def test_advice_fits_the_screen_and_nothing_is_cut(width: int) -> None:
    names = ("a-rather-long-task-name", "b", "c", "d")
    text = "\n".join(printed(section, width) for section in recommendation_sections(samples.recommendation(names)))
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for number in ("0.012", "0.338", "0.431", "10,240", "+0.800", "0.019"):
        assert number in text


def test_names_are_never_read_as_markup() -> None:
    section = Section(
        title="[bold]t", bullets=("[red]b[/red] :smile:",), tables=(Table(head=("[i]",), rows=(("[/]",),)),)
    )
    text = printed(section)
    for part in ("[bold]t", "[red]b[/red] :smile:", "[i]", "[/]"):
        assert part in text


def test_an_empty_section_prints_nothing() -> None:
    assert printed(Section(title="t", figures=("f",), tables=(Table(head=("a",), rows=()),))) == ""


def test_an_error_of_the_system_about_an_endless_path_is_cut_and_keeps_the_next_step() -> None:
    path = "x" * 50_000
    text = cli_shell._os_error(OSError(36, "File name too long", path))
    assert len(text) < 3000
    assert text.startswith("path='xxx")
    assert text.endswith("File name too long; check that it exists and that you may use it")
