"""``make bench`` calls the judge as it is, on every development suite and on no other."""

import json
import shlex
from pathlib import Path

import yaml

from benchmarks import judge

ROOT = Path(__file__).resolve().parents[2]


def test_make_bench_judges_the_development_suites_and_writes_their_figures(monkeypatch, tmp_path):
    lines = [line for line in (ROOT / "Makefile").read_text().splitlines() if "-m benchmarks.judge " in line]
    (words,) = [shlex.split(line.split("-m benchmarks.judge ")[1]) for line in lines]
    seen = []

    def note(suites, **options):
        seen.extend(suite.name for suite in suites)
        return {"suites": {}, "commit": "none", "pooled": float("nan")}

    monkeypatch.setattr(judge, "judge_suites", note)
    words[words.index("--out") + 1] = str(tmp_path / "figures.json")
    judge.main(words)
    roles = yaml.safe_load((ROOT / "benchmarks" / "suites.yaml").read_text())
    assert seen == roles["development"]
    assert not set(seen) & set(roles["held_out"])
    assert json.loads((tmp_path / "figures.json").read_text()) == {"suites": {}, "commit": "none", "pooled": None}
