"""The place of the output: checked first, filled in hiding, published by one rename.

A folder that exists is only replaced with `overwrite=True`, and only when all it holds could be from an earlier merge.
"""

import errno
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from advisor.merging.compatibility import MergeInputs
from advisor.merging.safetensors_writing import INDEX_NAME, SINGLE_NAME, hidden_folder, sync_folder, write_text

CARD_NAME = "README.md"
RECIPE_NAME = "mergekit.yml"
TUNING_NAME = "coefficients.json"  # written beside a merge whose coefficients were tuned
STUDY_NAME = "coefficients-study.log"
_OURS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the output will be (`out`) and where it is made (`folder`, hidden, on the same disk)."""

    out: Path
    folder: Path

    @property
    def single(self) -> bool:
        """Whether `out` is one file, without shards, card and recipe."""
        return is_single(self.out)

    def publish(self, names: Sequence[str], texts: Mapping[str, str]) -> tuple[Path, ...]:
        """Move what was made into place, with text files beside it; the files, model files first."""
        if self.single:
            (self.folder / SINGLE_NAME).replace(self.out)
            sync_folder(self.out.parent)
            return (self.out,)
        for name, text in texts.items():
            write_text(self.folder / name, text)
        index = [INDEX_NAME] if (self.folder / INDEX_NAME).exists() else []
        new, old = self.folder / "new", self.folder / "old"
        new.mkdir()
        for name in [*names, *index, *texts]:
            (self.folder / name).replace(new / name)
        sync_folder(new)
        if self.out.exists():
            self.out.replace(old)
        try:
            new.replace(self.out)
        except OSError:
            if old.exists():
                old.replace(self.out)
            raise
        sync_folder(self.out.parent)
        return tuple(self.out / name for name in [*names, *index, *texts])


def is_single(out: Path) -> bool:
    """Whether `out` names one file."""
    return out.suffix == ".safetensors"


@contextmanager
def open_target(out: Path, *, inputs: MergeInputs, overwrite: bool) -> Iterator[Target]:
    """Check `out` and make its hidden folder; both it and parents made for it go away on failure."""
    _check_out(out, inputs, overwrite)
    made = _make_parents(out.parent)
    try:
        with hidden_folder(out.parent) as folder:
            yield Target(out=out, folder=folder)
    except BaseException:
        for parent in made:
            shutil.rmtree(parent, ignore_errors=True)
        raise


def _check_out(out: Path, inputs: MergeInputs, overwrite: bool) -> None:
    files = [file for source in (inputs.base, *inputs.experts) for file in source.files]
    resolved = out.resolve()
    for file in files:
        actual = file.resolve()
        same = out.exists() and out.samefile(file)
        if same or actual == resolved or resolved in actual.parents or resolved in file.absolute().parents:
            raise ValueError(f"out={str(out)!r} would overwrite the input {str(file)!r}; choose another place")
    if not out.exists():
        return
    if is_single(out):
        if not out.is_file():
            raise ValueError(f"out={str(out)!r} is a folder; choose another name")
    else:
        if not out.is_dir():
            raise ValueError(f"out={str(out)!r} is a file; give a folder or a path ending in .safetensors")
        held = sorted(path.name for path in out.iterdir())
        if not held:
            return
        foreign = [name for name in held if not _is_ours(name)]
        if foreign:
            raise ValueError(f"out={str(out)!r} holds {foreign[0]!r}, which no merge wrote; choose another folder")
    if not overwrite:
        raise FileExistsError(errno.EEXIST, f"out={str(out)!r} exists; choose another place or pass overwrite=True")


def _is_ours(name: str) -> bool:
    return name in (INDEX_NAME, CARD_NAME, RECIPE_NAME, TUNING_NAME, STUDY_NAME) or _OURS.fullmatch(name) is not None


def _make_parents(folder: Path) -> list[Path]:
    """Create missing parents; the ones made, outermost first."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()][::-1]
    folder.mkdir(parents=True, exist_ok=True)
    return missing
