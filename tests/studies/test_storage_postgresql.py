"""Studies in a real PostgreSQL server, which these tests start themselves, on a socket of their own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from studies.samplers import frozen_trial
from studies.storage import DatabaseUnreachable, ForeignStudyError, StudyNotWritten, StudyStorage, open_study
from tests.studies.test_storage import KNOBS, record, search

FOUND_IN = Path("/usr/lib/postgresql")  # where Debian keeps what is not on the path


def program(name: str) -> str | None:
    """The newest of PostgreSQL's programs of that name."""
    versions = sorted(FOUND_IN.glob(f"*/bin/{name}")) if FOUND_IN.exists() else []
    return shutil.which(name) or (str(versions[-1]) if versions else None)


class Server:
    """A server in a folder of its own; PostgreSQL does not run as root, so root borrows its user."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="advisor-pg-", dir="/tmp"))  # a socket's path must be short
        self.user: dict[str, Any] = {}
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            self.user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        self._do("initdb", "-A", "trust", "-U", "advisor", "--no-sync")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://advisor@/postgres?host={self.folder}"

    def start(self) -> None:
        where = f"-c listen_addresses='' -k {self.folder} -F"
        self._do("pg_ctl", "-w", "-o", where, "-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        self._do("pg_ctl", "-w", "-m", "immediate", "stop")

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _do(self, name: str, *arguments: str) -> None:
        command = [str(program(name)), "-D", str(self.folder / "data"), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, timeout=60, **self.user)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if program("initdb") is None or program("pg_ctl") is None:
        pytest.skip("no PostgreSQL server is installed (initdb, pg_ctl)")
    pytest.importorskip("psycopg", reason="the extra 'postgresql' is not installed")
    if os.geteuid() == 0 and not any(user.pw_name == "postgres" for user in pwd.getpwall()):
        pytest.skip("PostgreSQL does not run as root and there is no user postgres")
    made = Server()
    yield made
    made.close()


def test_a_study_in_postgresql_is_the_study_without_it_and_goes_on(server: Server) -> None:
    storage = StudyStorage(url=server.url, fingerprint="project-1", name="same")
    first, again = search(storage), search(storage)
    assert first.best == again.best == search().best
    assert first.trials == again.trials


def test_another_project_is_refused_without_showing_a_password(server: Server) -> None:
    open_study(StudyStorage(url=server.url, fingerprint="one", name="owned"), settings={})
    secret = server.url.replace("advisor@", "advisor:secret@")
    with pytest.raises(ForeignStudyError, match=r"advisor:\*\*\*@.* belongs to project 'one', not 'two'"):
        open_study(StudyStorage(url=secret, fingerprint="two", name="owned"), settings={})


WORKER = """
import sys
from studies.samplers import frozen_trial
from studies.storage import StudyStorage, open_study
from tests.studies.test_storage import KNOBS, record

opened = open_study(StudyStorage(url=sys.argv[1], fingerprint="p", name="shared"), settings={})
for number in range(8):
    one = record(f"trial-{sys.argv[2]}-{number}", goal=float(number))
    opened.add(frozen_trial(KNOBS, one, objectives=1, ceiling=0.0, meta=True))
"""


def test_several_workers_share_a_study_and_none_loses_a_trial(server: Server) -> None:
    script = textwrap.dedent(WORKER)
    command = [sys.executable, "-c", script, server.url]
    workers = [subprocess.Popen([*command, str(number)]) for number in range(3)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0, 0]
    opened = open_study(StudyStorage(url=server.url, fingerprint="p", name="shared"), settings={})
    records, notes = opened.records()
    assert sorted(records) == sorted(f"trial-{worker}-{number}" for worker in range(3) for number in range(8))
    assert notes == ()


OPTIMIZING = """
import sys, time
from studies.storage import StudyStorage, open_study

storage = StudyStorage(url=sys.argv[1], fingerprint="p", name="beating", heartbeat_seconds=1)
open_study(storage, settings={}).study.optimize(lambda trial: time.sleep(600), n_trials=1)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Optuna calls stale trials experimental
def test_a_trial_of_a_killed_worker_is_marked_by_its_heartbeat(server: Server) -> None:
    storage = StudyStorage(url=server.url, fingerprint="p", name="beating", heartbeat_seconds=1)
    study = open_study(storage, settings={}).study
    worker = subprocess.Popen([sys.executable, "-W", "ignore", "-c", textwrap.dedent(OPTIMIZING), server.url])
    try:
        while not study.get_trials(states=(TrialState.RUNNING,)):
            assert worker.poll() is None, "the worker ended before its first trial"
            time.sleep(0.2)
    finally:
        worker.kill()
        worker.wait()
    for _ in range(60):
        optuna.storages.fail_stale_trials(study)
        if not study.get_trials(states=(TrialState.RUNNING,)):
            break
        time.sleep(0.5)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL]


def test_a_trial_left_running_is_marked_when_its_study_is_opened_again(server: Server) -> None:
    storage = StudyStorage(url=server.url, fingerprint="p", name="left")
    study = open_study(storage, settings={}).study
    study._storage.create_new_trial(study._study_id)
    again = open_study(storage, settings={})
    assert any("marked failed" in note for note in again.notes)
    assert [trial.state for trial in again.study.trials] == [TrialState.FAIL]


def test_a_server_that_goes_away_is_named_and_nothing_is_lost(server: Server) -> None:
    storage = StudyStorage(url=server.url, fingerprint="p", name="outage")
    opened = open_study(storage, settings={})
    trials = [frozen_trial(KNOBS, record(f"trial-{k}"), objectives=1, ceiling=0.0, meta=True) for k in range(2)]
    opened.add(trials[0])
    server.stop()
    try:
        with pytest.raises(StudyNotWritten, match="cannot be written .* see that the database runs"):
            opened.add(trials[1])
        with pytest.raises(DatabaseUnreachable, match="cannot be opened .* see that the database runs"):
            open_study(storage, settings={})
    finally:
        server.start()
    opened.add(trials[1])
    assert set(open_study(storage, settings={}).records()[0]) == {"trial-0", "trial-1"}


def test_a_url_that_is_none_is_refused_with_the_next_step() -> None:
    with pytest.raises(DatabaseUnreachable, match="storage='nothing' cannot be opened"):
        open_study(StudyStorage(url="nothing", fingerprint="p"), settings={})
