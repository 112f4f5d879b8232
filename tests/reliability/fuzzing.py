"""One command on bad input: a code of the list, a paragraph, no write elsewhere, no traceback.

Writes are watched by an audit hook, which cannot be taken off again; it looks only while ``ran`` runs.
"""

import contextlib
import gc
import io
import os
import resource
import sys
from pathlib import Path
from typing import Any

from advisor import cli
from advisor.cli_shell import BAD_INPUT, DONE, NO_ADVICE

CODES = (DONE, BAD_INPUT, NO_ADVICE)
LONGEST_MESSAGE = 4000
_watched: list[str] | None = None
_is_hooked = False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None:
        return
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        _watched.append(str(arguments[0]))
    elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link"):
        _watched.append(os.fsdecode(arguments[0]))
    elif event in ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen"):
        _watched.append(event)


def ran(folder: Path, *arguments: object) -> tuple[int, str]:
    """Exit code and standard error of one command, checked: its code, its message, and where it wrote."""
    global _watched, _is_hooked
    if not _is_hooked:
        sys.addaudithook(_watch)
        _is_hooked = True
    out, err = io.StringIO(), io.StringIO()
    gc.disable()  # what earlier tests of this process left must not be removed while we watch
    _watched = []
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(folder):
            code = cli.main([str(argument) for argument in arguments])
            wrote = [str(Path(path).resolve()) for path in _watched if not path.isdigit()]
    finally:
        _watched = None
        gc.enable()
    said = err.getvalue()
    assert code in CODES, said
    assert "Traceback" not in said
    assert len(said) < LONGEST_MESSAGE, said
    assert (code != BAD_INPUT) or said.strip(), "a refusal without a word"
    # made by Python and torch where a module is imported for the first time
    harmless = (os.devnull, "__pycache__", "torchinductor_")
    wrote = [path for path in wrote if not any(part in path for part in harmless)]
    outside = [path for path in wrote if not Path(path).is_relative_to(folder.resolve())]
    assert outside == [], outside
    return code, said


def peak_megabytes() -> float:
    """Most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
