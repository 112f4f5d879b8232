"""Which tensors are merged, and whether base and experts belong together.

Every tensor of the base gets one role:

| role | tensors | what the output holds |
|---|---|---|
| `parameter` | floating | the operator's result |
| `statistic` | `running_mean`, `running_var` of BatchNorm | the operator's linear rule (`Operator.rest`) |
| `integer` | integers, booleans (with `num_batches_tracked`) | the experts' value if all agree, else the base's |
| `kept` | asked for by `keep_base`, or not common to all inputs under `keys="common"` | the base's value |

Statistics are left out of norms and Gram matrices: they are data, not weights. A counter like
`num_batches_tracked` differs whenever step counts differ; it only matters for BatchNorm with `momentum=None`.
"""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from advisor.merging.sources import Location, Source, open_source

Role = Literal["parameter", "statistic", "integer", "kept"]
STATISTICS = ("running_mean", "running_var")


class IncompatibleCheckpoints(ValueError):
    """Base and experts do not belong together: other keys, shapes or dtypes, a wrong base, or values not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeInputs:
    """A base, its experts, and the role of every tensor of the base."""

    base: Source
    experts: tuple[Source, ...]
    labels: tuple[str, ...]
    roles: Mapping[str, Role]
    notes: tuple[str, ...] = ()

    def names(self, *roles: Role) -> list[str]:
        """The tensors of these roles, in the base's order."""
        return [name for name, role in self.roles.items() if role in roles]

    def key(self, name: str) -> str:
        """The name that stands for this tensor: its first tied name where base and experts all tie it, else itself."""
        first = self.base.ties[name]
        same = all(expert.ties[name] == expert.ties.get(first) for expert in self.experts if name in expert.ties)
        return first if same else name


def open_inputs(
    base: Location,
    experts: Mapping[str, Location] | Sequence[Location],
    *,
    keys: Literal["strict", "common"] = "strict",
    keep_base: Sequence[str] = (),
    mixed_dtypes: bool = False,
) -> MergeInputs:
    """Open base and experts and refuse what does not fit together.

    Args:
        base: state dict, file, index or folder.
        experts: the same, by label or in a list (labels `expert0`, `expert1`, ...).
        keys: "strict" wants the same tensors everywhere; "common" merges what all share and keeps the base's rest.
        keep_base: shell patterns of tensors that are copied from the base.
        mixed_dtypes: allow experts stored in another floating dtype than the base.

    Returns:
        The opened inputs.

    Raises:
        ValueError: no experts, or an unknown `keys`.
        IncompatibleCheckpoints: keys, shapes or dtypes differ.
    """
    labelled = dict(experts) if isinstance(experts, Mapping) else {f"expert{i}": e for i, e in enumerate(experts)}
    if not labelled:
        raise ValueError("experts={}: give at least one expert")
    if keys not in ("strict", "common"):
        raise ValueError(f"keys={keys!r} must be 'strict' or 'common'")
    base_source = open_source(base, place="base")
    sources = {label: open_source(location, place=f"expert {label!r}") for label, location in labelled.items()}
    roles: dict[str, Role] = {}
    notes: list[str] = []
    if keys == "strict":
        for source in sources.values():
            _check_keys(base_source, source, keep_base)
    else:
        notes += _extra_notes(base_source, sources)
    for name in base_source.tensors:
        roles[name], note = _find_role(base_source, sources, name, keys, keep_base, mixed_dtypes)
        notes += note
    if not any(role == "parameter" for role in roles.values()):
        raise IncompatibleCheckpoints(f"{base_source.place}: no floating tensor to merge among {len(roles)} tensors")
    return MergeInputs(
        base=base_source,
        experts=tuple(sources.values()),
        labels=tuple(sources),
        roles=roles,
        notes=tuple(notes),
    )


def check_base(labels: Sequence[str], norms: Sequence[float], base_norm: float) -> None:
    """Refuse a wrong base: ‖τ_t‖ > ‖x₀‖, or an expert equal to the base (‖τ_t‖ = 0).

    Raises:
        IncompatibleCheckpoints: naming the expert, its norms and the way out.
    """
    for label, norm in zip(labels, norms, strict=True):
        if norm == 0:
            raise IncompatibleCheckpoints(
                f"expert {label!r} equals the base (task vector norm 0): it was never fine-tuned; "
                "leave it out or pass trust_base=True (--trust-base)"
            )
        if not norm <= base_norm:
            raise IncompatibleCheckpoints(
                f"expert {label!r}: task vector norm {norm:.4g} is above the base's own norm {base_norm:.4g}: "
                "this is not the base it was fine-tuned from; give the right one or pass trust_base=True (--trust-base)"
            )


def _check_keys(base: Source, expert: Source, keep_base: Sequence[str]) -> None:
    kept = {name for name in {*base.tensors, *expert.tensors} if _matches(name, keep_base)}
    missing = [name for name in base.tensors if name not in expert.tensors and name not in kept]
    extra = [name for name in expert.tensors if name not in base.tensors and name not in kept]
    if missing or extra:
        raise IncompatibleCheckpoints(
            f"{expert.place}: missing {_some(missing)}, extra {_some(extra)} against {base.place}; "
            'pass keys="common" (--keys common) to merge what all share, keep_base=[patterns] (--keep-base) for heads'
        )


def _find_role(
    base: Source, experts: Mapping[str, Source], name: str, keys: str, keep_base: Sequence[str], mixed_dtypes: bool
) -> tuple[Role, list[str]]:
    if _matches(name, keep_base):
        return "kept", []
    info = base.tensors[name]
    for label, expert in experts.items():
        other = expert.tensors.get(name)
        if other is None:
            return "kept", [f"{name}: kept from the base, expert {label!r} has none"]
        if other.shape != info.shape:
            if keys == "common":
                return "kept", [f"{name}: kept from the base, expert {label!r} has shape {other.shape}"]
            raise IncompatibleCheckpoints(
                f"{expert.place}: tensor {name!r} has shape {other.shape}, the base {info.shape}; "
                'for another head pass keep_base=[patterns] (--keep-base) or keys="common" (--keys common)'
            )
        if other.dtype != info.dtype and not (mixed_dtypes and other.floating and info.floating):
            raise IncompatibleCheckpoints(
                f"{expert.place}: tensor {name!r} has dtype {other.dtype}, the base {info.dtype}; "
                "convert one of them, or pass mixed_dtypes=True (--mixed-dtypes): the output has the base's"
            )
    if not info.floating:
        return "integer", []
    return ("statistic" if name.rpartition(".")[2] in STATISTICS else "parameter"), []


def _extra_notes(base: Source, experts: Mapping[str, Source]) -> list[str]:
    notes = []
    for label, expert in experts.items():
        extra = [name for name in expert.tensors if name not in base.tensors]
        if extra:
            notes.append(f"expert {label!r}: left out {_some(extra)}, which the base has not")
    return notes


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5]) or "none"
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
