"""Where a study is kept, and how it is opened again.

By default a journal file (one JSON line for each operation, readable by optuna-dashboard); or a database URL.  A
finished trial is written by *one* operation, so that a process killed at any moment leaves a trial whole or absent.
Each trial carries its record (point, goal, interval, violation, cost) and the SHA-256 of it; a study carries the
fingerprint of the project it belongs to and the settings that it was started with.

What opening repairs, always said in ``OpenedStudy.notes``: a line cut short by a kill, a line that is no longer JSON or
whose trial does not match its checksum (dropped, a copy of the file is kept, the trial is redone), trials left RUNNING
by another program (marked FAIL).
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.journal import CorruptStudyError, checksum, journal_lock, mend_journal

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial


CONNECTION_ATTEMPTS = 5


class ForeignStudyError(ValueError):
    """A stored study belongs to another project or was started with other settings."""


class DatabaseUnreachable(ValueError):
    """A database does not answer, or refuses."""


class StudyNotWritten(OSError):
    """A trial could not be stored; what was stored before is untouched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyStorage:
    """Where a study is kept.

    Attributes:
        path: journal file; its folder must exist.
        url: database URL instead, e.g. ``postgresql://user@host/name`` (shared by many machines) or
            ``sqlite:///study.db``.
        fingerprint: identity of the project that owns the study.
        name: name of the study inside the storage.
        repair: whether damaged lines are dropped and redone; otherwise they raise ``CorruptStudyError``.
        heartbeat_seconds: heartbeat of a database storage.
    """

    path: Path | None = None
    url: str | None = None
    fingerprint: str
    name: str = "recipes"
    repair: bool = True
    heartbeat_seconds: int = 60

    def __post_init__(self) -> None:
        """Check that there is exactly one place."""
        if (self.path is None) == (self.url is None):
            raise ValueError(f"path={self.path}, url={self.url}: give exactly one of a journal file and a database URL")
        for name in ("fingerprint", "name"):
            if not getattr(self, name):
                raise ValueError(f"{name}='' must not be empty; a study belongs to one project and has a name")
        if not self.heartbeat_seconds >= 1:
            raise ValueError(f"heartbeat_seconds={self.heartbeat_seconds} must be at least 1; 60 suits most databases")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One evaluated trial, as it is stored.

    Attributes:
        key: unique inside its study, e.g. ``trial-000012``.
        kind: ``sweep``, ``sampler`` or ``polish``.
        unit: its point in the unit cube.
        goal: predicted or measured goal; infinite where an infeasible plan has none.
        low: lower end of its interval.
        high: upper end.
        violation: largest violated constraint, <= 0 where feasible.
        cost: cost in per-sample gradients.
    """

    key: str
    kind: str
    unit: tuple[float, ...]
    goal: float
    low: float
    high: float
    violation: float
    cost: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values; infinite numbers become ``None``, since JSON has none."""
        plain = asdict(self) | {"unit": list(self.unit)}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in plain.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """The inverse of :meth:`to_json`."""
        back = {"goal": math.inf, "low": -math.inf, "high": math.inf}
        filled = {k: back[k] if v is None and k in back else v for k, v in data.items()}
        return cls(**(filled | {"unit": tuple(data["unit"])}))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedStudy:
    """A study that was opened: Optuna's handle, what had to be repaired, in sentences, and where it is kept."""

    study: Study
    notes: tuple[str, ...] = ()
    place: str = ""

    def records(self) -> tuple[dict[str, Record], tuple[str, ...]]:
        """Stored records by key, and a note for each trial that does not match its checksum (it is left out)."""
        found: dict[str, Record] = {}
        notes = []
        for trial in self.study.get_trials(deepcopy=False):
            data = trial.user_attrs.get("record")
            if data is None:
                continue
            if trial.user_attrs.get("checksum") != checksum(data):
                notes.append(f"trial {trial.number} of study {self.study.study_name!r} was damaged and is redone")
                continue
            record = Record.from_json(data)
            found.setdefault(record.key, record)
        return found, tuple(notes)

    def add(self, trial: FrozenTrial) -> None:
        """Store one finished trial, whole or not at all.

        Raises:
            StudyNotWritten: if the disk is full, read-only or closed to us.
        """
        from optuna.exceptions import StorageInternalError

        try:
            self.study.add_trial(trial)
        except StorageInternalError as error:
            raise StudyNotWritten(
                f"study {self.place} cannot be written ({_first_line(error.__cause__ or error)}); see that the "
                "database runs, then run the command again: everything stored so far is kept"
            ) from error
        except OSError as error:
            raise StudyNotWritten(
                error.errno,
                f"study {self.place} cannot be written ({error.strerror or error}); free some space or choose another "
                "--out, then run the command again: everything stored so far is kept",
            ) from error


def open_study(storage: StudyStorage, *, settings: Mapping[str, Any], objectives: int = 1) -> OpenedStudy:
    """Open a study, or start it; refuse another project's or one started with other settings."""
    optuna = quiet_optuna()
    notes = list(mend_journal(storage.path, repair=storage.repair)) if storage.path is not None else []
    try:
        place = _connect(storage)
        if storage.name in optuna.get_all_study_names(place):  # asked first: creating twice would write a line twice
            study = optuna.load_study(study_name=storage.name, storage=place)
        else:
            study = optuna.create_study(
                storage=place,
                study_name=storage.name,
                directions=["minimize"] * objectives,
                load_if_exists=True,
            )
        stored = dict(study.user_attrs)
    except DatabaseUnreachable:
        raise
    except (KeyError, IndexError, TypeError, AssertionError, ValueError) as error:
        raise CorruptStudyError(
            f"study file {place_of(storage)} cannot be replayed ({type(error).__name__}: {error}); "
            "move it away and run again, the same seed finds the same plan"
        ) from error
    # Through JSON, so that a tuple compares equal to the list it was stored as.
    asked = json.loads(json.dumps(dict(settings) | {"objectives": objectives}))
    wanted = {"fingerprint": storage.fingerprint, "settings": asked}
    for name, value in wanted.items():
        if name not in stored:
            study.set_user_attr(name, value)
        elif stored[name] != value:
            raise ForeignStudyError(_foreign(storage, name, stored[name], value))
    stale = mark_stale(study)
    if stale:
        notes.append(
            f"trials {list(stale)} of study {storage.name!r} were left running by another program: marked failed"
        )
    return OpenedStudy(study=study, notes=tuple(notes), place=place_of(storage))


def mark_stale(study: Study) -> tuple[int, ...]:
    """Mark trials left RUNNING as failed and return their numbers.

    Searches of this package never leave a RUNNING trial, so whatever is found came from a killed foreign process.
    """
    from optuna.trial import TrialState

    stale = [trial.number for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]
    for number in stale:
        study.tell(number, state=TrialState.FAIL)
    return tuple(stale)


def quiet_optuna() -> Any:
    """Optuna, loaded on first use, with its announcements of every new study and trial silenced."""
    import optuna

    if optuna.logging.get_verbosity() < optuna.logging.WARNING:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _connect(storage: StudyStorage) -> BaseStorage:
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if storage.path is not None:
        return JournalStorage(JournalFileBackend(str(storage.path), lock_obj=journal_lock(storage.path)))
    assert storage.url is not None
    url = with_driver(storage.url)
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    with warnings.catch_warnings():
        # Optuna calls heartbeats experimental; all that is asked of them here is to exist for other programs' trials.
        warnings.simplefilter("ignore", ExperimentalWarning)
        opened: RDBStorage = _first_connection(
            storage,
            lambda: RDBStorage(url, engine_kwargs=options, heartbeat_interval=storage.heartbeat_seconds),
        )
    # Optuna leaves closing its connections to the garbage collector, of which Python 3.13 warns.
    weakref.finalize(opened, opened.engine.dispose)
    return opened


def _first_connection(storage: StudyStorage, connect: Callable[[], Any]) -> Any:
    """A connection, with its tables; workers that meet in an empty database make them in each other's way."""
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, SQLAlchemyError

    for attempt in range(CONNECTION_ATTEMPTS):
        try:
            return connect()
        except (ArgumentError, NoSuchModuleError, ImportError, OperationalError) as error:
            raise DatabaseUnreachable(
                f"storage={place_of(storage)!r} cannot be opened ({_first_line(error)}); see that the database runs "
                "and lets you in, and that its driver is installed (pip install 'merge-advisor[postgresql]')"
            ) from error
        except SQLAlchemyError:
            if attempt == CONNECTION_ATTEMPTS - 1:
                raise
            time.sleep(0.2 * (attempt + 1))
    raise AssertionError("unreachable")


def with_driver(url: str) -> str:
    """The URL with the driver that is installed: ``postgresql://`` alone means psycopg 2 to SQLAlchemy.

    >>> with_driver("sqlite:///study.db")
    'sqlite:///study.db'
    """
    scheme, separator, rest = url.partition("://")
    if scheme in ("postgresql", "postgres") and importlib.util.find_spec("psycopg2") is None:
        return f"postgresql+psycopg{separator}{rest}"
    return url


def place_of(storage: StudyStorage) -> str:
    """Where a study is kept, in words; a URL without its password.

    >>> place_of(StudyStorage(url="postgresql://me:secret@db.lab/studies", fingerprint="f"))
    'postgresql://me:***@db.lab/studies'
    """
    return (
        str(storage.path) if storage.path is not None else re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", storage.url or "")
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _foreign(storage: StudyStorage, name: str, stored: Any, wanted: Any) -> str:
    where = f"study {storage.name!r} in {place_of(storage)}"
    if name == "fingerprint":
        return f"{where} belongs to project {stored!r}, not {wanted!r}; choose another run directory"
    changed = sorted(k for k in {*stored, *wanted} if stored.get(k) != wanted.get(k))
    return f"{where} was started with other settings ({', '.join(changed)} differ); choose another study name or run"
