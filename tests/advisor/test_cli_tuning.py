"""A tuning whose merge could not be written goes on where it was, and leaves nothing behind when it is done."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pytest

from advisor import merging
from advisor.cli_shell import Shell
from advisor.cli_tuning import TuningRequest, merge_tuned
from tests.advisor.test_coefficients import experts_of, files

__all__ = ["files"]


def request_of(files: Path, labels: str | None = None) -> TuningRequest:
    experts = {name: str(path) for name, path in experts_of(files).items()}
    return TuningRequest(base=files / "base.safetensors", experts=experts, data=files / "project.yaml", labels=labels)


def test_a_tuning_goes_on_after_its_merge_could_not_be_written(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell, out = Shell(is_quiet=True), tmp_path / "merged"

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "no space left")

    with monkeypatch.context() as patched:
        patched.setattr(merging, "merge", full)
        with pytest.raises(OSError, match="no space left"):
            merge_tuned(shell, request_of(files), out, {})
    assert not out.exists()
    kept = list((tmp_path / "merged.tuning" / "merges").iterdir())
    assert len(kept) > 5
    tuned, _ = merge_tuned(shell, request_of(files), out, {})
    assert tuned.units == 0
    assert tuned.merges == len(kept)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged"]
    assert json.loads((out / "coefficients.json").read_text()) == json.loads(json.dumps(tuned.to_json()))
    journal = optuna.storages.journal.JournalFileBackend(str(out / "coefficients-study.log"))
    study = optuna.load_study(study_name="task_arithmetic", storage=optuna.storages.JournalStorage(journal))
    np.testing.assert_allclose([trial.value for trial in study.trials], tuned.goals)


def test_measurements_left_by_other_settings_are_used_and_their_study_is_not(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell, out = Shell(is_quiet=True), tmp_path / "merged"
    with monkeypatch.context() as patched:
        patched.setattr(merging, "merge", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "no space left")))
        with pytest.raises(OSError, match="no space left"):
            merge_tuned(shell, request_of(files), out, {})
    tuned, _ = merge_tuned(shell, request_of(files, labels="2"), out, {})
    assert tuned.source == "few labels"
    assert any("taken from an earlier tuning" in note for note in tuned.notes)
    journal = optuna.storages.journal.JournalFileBackend(str(out / "coefficients-study.log"))
    study = optuna.load_study(study_name="task_arithmetic", storage=optuna.storages.JournalStorage(journal))
    assert len(study.trials) == len(tuned.goals)


@pytest.mark.slow
def test_a_killed_command_goes_on_and_ends_with_the_same_coefficients(files: Path, tmp_path: Path) -> None:
    experts = [f"{name}={path}" for name, path in experts_of(files).items()]
    command = [sys.executable, "-m", "advisor.cli", "merge", "--base", str(files / "base.safetensors"), "--experts"]
    command += [*experts, "--data", str(files / "project.yaml"), "--coefficients", "auto", "--json", "--out"]
    whole = json.loads(subprocess.run([*command, str(tmp_path / "whole")], capture_output=True, check=True).stdout)
    out = tmp_path / "merged"
    with subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        while killed.poll() is None and len(list((tmp_path / "merged.tuning").glob("merges/*.safetensors"))) < 4:
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
    assert not out.exists()
    kept = len(list((tmp_path / "merged.tuning" / "merges").glob("*.safetensors")))
    assert kept >= 4
    again = json.loads(subprocess.run([*command, str(out)], capture_output=True, check=True).stdout)
    assert again["coefficients"] == whole["coefficients"]
    assert again["tuning"]["merges"] == whole["tuning"]["merges"]
    assert again["tuning"]["units"] < whole["tuning"]["units"]
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged", "whole"]
