"""Whatever stands in a project file, recipe table, run directory or safetensors header: a clear answer, nothing else.

A few hundred cases in ``make test``, more than ten thousand in ``make test-long``.
"""

import csv
import io
import json
import math
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from advisor.fitted_model import load_fitted
from advisor.project import load_project
from advisor.run_manifest import accept_checksum, file_checksum
from advisor.runs import RunDirectory
from tests.reliability.figures import note
from tests.reliability.fuzzing import peak_megabytes, ran
from tests.reliability.tiny_project import PROJECT

GOLDEN = Path(__file__).parent / "golden_run"
FEW, MANY = 75, 2600
MORE_MEMORY = 400.0  # MiB that a batch of cases may add to this process
MOST_SECONDS = 60.0  # of a processor, not of the wall: a case takes a few, the first imports included
JUNK_NUMBERS = (0, -1, 1e308, -1e308, math.inf, math.nan, 10**400, 2**63, 1e-320, True)
JUNK_TEXTS = (
    "",
    " ",
    "../../etc/passwd",
    "/etc/passwd",
    "a\x00b",
    "é" * 50,
    "<script>",
    "=1+1",
    "1_0",
    "nan",
    "x" * 5000,
)
JUNK = st.one_of(
    st.sampled_from([*JUNK_NUMBERS, *JUNK_TEXTS, None, [], {}, [[]], {"": None}]),
    st.text(max_size=20),
    st.integers(),
    st.floats(),
    st.lists(st.integers(), max_size=3),
)
Body = Callable[[Path, Any], None]


def fuzz(body: Body, folder: Path, cases: st.SearchStrategy[Any], count: int, name: str) -> None:
    """Run ``body`` on ``count`` drawn cases, within bounded memory."""
    done, slowest = 0, 0.0
    before = peak_megabytes()

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # making a failure smaller takes longer than all cases
    )
    @given(case=cases)
    def each(case: Any) -> None:
        nonlocal done, slowest
        done, began = done + 1, time.process_time()
        body(folder, case)
        slowest = max(slowest, time.process_time() - began)

    each()
    more = peak_megabytes() - before
    assert more < MORE_MEMORY
    assert slowest < MOST_SECONDS
    note(f"cases of {name}", done)
    note(f"slowest case of {name}, seconds of a processor", round(slowest, 2))
    note(f"memory added by {name}, MiB", round(more))


def changed(value: Any, place: list[int], junk: Any) -> Any:
    """A copy of a nested value with one entry replaced, renamed or removed, at the place that ``place`` leads to."""
    if not place or not isinstance(value, dict | list) or not value:
        return junk
    step, *rest = place
    if isinstance(value, list):
        at = step % len(value)
        return [changed(item, rest, junk) if k == at else item for k, item in enumerate(value)]
    keys = list(value)
    key = keys[step % len(keys)]
    if step % 11 == 0:
        return {k: v for k, v in value.items() if k != key}
    if step % 13 == 0:
        return {(str(junk) if k == key else k): v for k, v in value.items()}
    return {k: changed(v, rest, junk) if k == key else v for k, v in value.items()}


PLACES = st.lists(st.integers(0, 200), max_size=6)
MUTATED_TEXT = st.tuples(st.sampled_from(["cut", "insert", "swap"]), st.integers(0, 10_000), st.text(max_size=12))


def damaged_text(text: str, how: tuple[str, int, str]) -> str:
    kind, at, piece = how
    at %= len(text) + 1
    if kind == "cut":
        return text[:at]
    return text[:at] + piece + text[at + (len(piece) if kind == "swap" else 0) :]


# -- project files ----------------------------------------------------------------------------------------------------

PROJECT_CASES = st.one_of(
    st.tuples(PLACES, JUNK).map(lambda case: yaml.safe_dump(changed(yaml.safe_load(PROJECT), *case))),
    MUTATED_TEXT.map(lambda how: damaged_text(PROJECT, how)),
    st.text(max_size=200),
)


def check_project(folder: Path, text: str) -> None:
    path = folder / "project.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    before = {item.name for item in folder.iterdir()}
    ran(folder, "run", "project.yaml", "--dry-run")
    assert {item.name for item in folder.iterdir()} == before


# -- recipe tables ----------------------------------------------------------------------------------------------------

HEAD = ["learning_rate", "batch_size", "steps", "optimizer", "momentum", "schedule", "coefficient", "num_samples"]
HEAD += ["learning_rate_low", "coefficient_high", "method", "label", "nonsense"]
CELLS = st.one_of(
    st.sampled_from(["1e-4", "8", "16", "sgd", "adamw", "constant", "0.5", "task_arithmetic", "ties", ""]),
    JUNK.map(str),
)


def table(case: tuple[list[str], list[list[str]]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, escapechar="\\").writerows([case[0], *case[1]])
    return stream.getvalue()


VALID = "learning_rate,batch_size,steps,coefficient\n1e-4,8,16,0.5\n2e-4,8,20,1.0\n"
TABLE_CASES = st.one_of(
    st.tuples(st.lists(st.sampled_from(HEAD), max_size=8), st.lists(st.lists(CELLS, max_size=8), max_size=4)).map(
        table
    ),
    MUTATED_TEXT.map(lambda how: damaged_text(VALID, how)),
    st.text(max_size=120),
)


def check_table(folder: Path, text: str) -> None:
    (folder / "plans.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
    ran(folder, "predict", "run", "plans.csv", "--csv")


# -- run directories --------------------------------------------------------------------------------------------------

FILES = sorted(path.relative_to(GOLDEN).as_posix() for path in GOLDEN.rglob("*") if path.is_file())
RUN_CASES = st.tuples(
    st.sampled_from(FILES),
    st.sampled_from(["cut", "flip", "bytes", "value", "value", "value, recorded", "value, recorded"]),
    st.integers(0, 2**32),
    PLACES,
    JUNK,
    st.binary(max_size=40),
)


def check_run(folder: Path, case: tuple[str, str, int, list[int], Any, bytes]) -> None:
    name, how, number, place, junk, data = case
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(GOLDEN, run)
    path = run / name
    content = path.read_bytes()
    if how.startswith("value") and path.suffix == ".json":
        path.write_text(json.dumps(changed(json.loads(content), place, junk), default=str))
        if how.endswith("recorded") and name not in ("manifest.json",):
            accept_checksum(run, name, file_checksum(path))  # as if by hand, or written by another program
    elif how == "cut":
        path.write_bytes(content[: number % (len(content) + 1)])
    elif how == "bytes":
        path.write_bytes(data)
    else:
        at = number % len(content)
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << number % 8)]) + content[at + 1 :])
    before = {item.relative_to(run): item.stat().st_mtime_ns for item in run.rglob("*")}
    ran(folder, "runs", folder)
    ran(folder, "predict", "run")
    assert {item.relative_to(run): item.stat().st_mtime_ns for item in run.rglob("*")} == before  # only looked at


# -- safetensors headers ----------------------------------------------------------------------------------------------

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, dtype=np.float32)}
WHOLE = safetensors.numpy.save(TENSORS)
HEADER_LENGTH = struct.unpack("<Q", WHOLE[:8])[0]
HEADER = json.loads(WHOLE[8 : 8 + HEADER_LENGTH])
HEADER_CASES = st.one_of(
    st.tuples(PLACES, JUNK).map(lambda case: rebuilt(changed(HEADER, *case), None)),
    st.tuples(PLACES, JUNK, st.integers(0, 2**64 - 1)).map(lambda case: rebuilt(changed(HEADER, *case[:2]), case[2])),
    st.integers(0, len(WHOLE)).map(lambda at: WHOLE[:at]),
    st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(1, 255)).map(
        lambda case: WHOLE[: case[0]] + bytes([WHOLE[case[0]] ^ case[1]]) + WHOLE[case[0] + 1 :]
    ),
    st.binary(max_size=60),
)


def rebuilt(header: Any, length: int | None) -> bytes:
    text = json.dumps(header, default=str).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + WHOLE[8 + HEADER_LENGTH :]


def check_header(folder: Path, data: bytes) -> None:
    (folder / "expert.safetensors").write_bytes(data)
    shutil.rmtree(folder / "merged", ignore_errors=True)
    arguments = ["merge", "--base", "base.safetensors", "--experts", "one=expert.safetensors", "--out", "merged"]
    code, _ = ran(folder, *arguments, "--coefficients", "0.5")
    assert (folder / "merged" / "model.safetensors").exists() == (code == 0)


KINDS: dict[str, tuple[Body, st.SearchStrategy[Any]]] = {
    "project files": (check_project, PROJECT_CASES),
    "recipe tables": (check_table, TABLE_CASES),
    "run directories": (check_run, RUN_CASES),
    "safetensors headers": (check_header, HEADER_CASES),
}


@pytest.fixture(scope="module")
def fitted() -> Any:
    """The golden run's model, fitted once: what is fuzzed is the way to it."""
    return load_fitted(RunDirectory.open(GOLDEN), load_project(GOLDEN / "project.yaml"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted: Any) -> Path:
    monkeypatch.setattr("advisor.planned_cost.seconds_per_unit", lambda project, device=None: 0.06)
    monkeypatch.setattr("advisor.fitted_model.fit_model", lambda probes, weights, seed: fitted.model)
    shutil.copytree(GOLDEN, tmp_path / "run")
    (tmp_path / "base.safetensors").write_bytes(WHOLE)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_gets_a_clear_answer_and_nothing_else(kind: str, folder: Path) -> None:
    fuzz(KINDS[kind][0], folder, KINDS[kind][1], FEW, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_bad_inputs_get_a_clear_answer_and_nothing_else(kind: str, folder: Path) -> None:
    fuzz(KINDS[kind][0], folder, KINDS[kind][1], MANY, kind)
