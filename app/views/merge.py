"""Merge: the run's experts or experts by file, coefficients by hand, how tasks disturb each other, and the download."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import weakref
from pathlib import Path

import streamlit as st

from advisor import figures
from advisor.advice import Recommendation
from advisor.exploring import Explorer
from advisor.hand_merging import expert_files, measure_by_hand
from advisor.merging import OPERATORS, MergeResult, TaskVectorGram, merge, metagpt_coefficients, task_vector_gram
from advisor.plan import Plan
from advisor.report_sections import Table
from advisor.run_ids import slug
from advisor.runs import ArtefactMissing, RunDirectory
from advisor.wording import risk_text
from app import session
from app.frame import live, opened, way
from app.showing import bullets, columns_of, figure, guarded, md, predicted_cell, table

MEGABYTE = 1 << 20
MOST_BYTES = 64 * MEGABYTE  # of one upload; larger files are named by their path
ENDING = ".safetensors"


class Scratch:
    """A folder that is removed with the session it belongs to, or when the server ends."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="merge-advisor-"))
        self._end = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def page() -> None:
    """The whole page."""
    source = st.session_state.get("merge_source", "The run's experts")
    run = opened(
        "Merge", "x_avg = x₀ + Σ λᵢ (xᵢ − x₀): choose the coefficients, see what they do, take the weights along."
    )
    sources = ("The run's experts", "Experts by file")
    source = st.radio("Which experts?", sources, horizontal=True, key="merge_source")
    if source == sources[1]:
        by_file()
    elif run is not None:
        from_run(run)


def from_run(run: RunDirectory) -> None:
    """Merge what the run trained."""
    advice, explorer = session.recommendation_of(run), session.explorer_of(run)
    try:
        base, experts = expert_files(run)
    except ArtefactMissing:
        live(run)
        st.info("This run has no experts yet: they are trained after the advice.", icon=":material/info:")
        way("probe", "Go on with the run")
        return
    if advice is not None and explorer is None:
        st.info(f"Nothing can be predicted for other coefficients.  {md(advice.sentence)}", icon=":material/info:")
        downloads(run)
        return
    if advice is None or explorer is None:
        live(run)
        return
    experts = {name: experts[name] for name in advice.plan.names if name in experts}
    downloads(run)
    st.fragment(guarded(lambda: by_hand(run, advice, explorer, experts)))()
    st.subheader("How tasks disturb each other", anchor=False)
    gram = _gram(str(base), tuple((name, str(path)) for name, path in experts.items()), _stamp(experts))
    left, right = st.columns(2)
    with left:
        figure(figures.task_vector_cosines(gram.labels, gram.cosines.tolist()), "cosines")
    with right:
        setting = explorer.at(advice.plan)
        figure(
            figures.heat_map(
                explorer.names,
                explorer.interference(setting),
                title="Predicted interference",
                unit="change of risk (nats)",
                x="expert merged in beside it",
                y="risk of task",
            ),
            "interference",
        )
    st.caption("Predicted interference: above 0 the other expert harms the task, below 0 it helps.")
    norms = ", ".join(f"{name} {norm:.3g}" for name, norm in zip(gram.labels, gram.norms, strict=True))
    st.caption(md(f"Norms of the task vectors: {norms}; norm of the pretrained weights: {gram.base_norm:.4g}."))
    way("validate", "See predicted against measured")


def downloads(run: RunDirectory) -> None:
    """The advised merge and its card."""
    if not run.has("merged/model.safetensors"):
        st.caption("The advised merge is not made yet.")
        return
    weights, card = run.path_of("merged/model.safetensors"), run.path_of("merged/README.md")
    st.subheader("The advised merge", anchor=False)
    with st.container(horizontal=True):
        size = weights.stat().st_size / MEGABYTE
        label = f"Download merged weights ({size:.1f} MB)"
        st.download_button(label, weights.read_bytes, f"{run.id}-merged.safetensors", on_click="ignore", key="weights")
        if card.is_file():
            st.download_button("Download its card", card.read_bytes, "README.md", on_click="ignore", key="card")


def by_hand(run: RunDirectory, advice: Recommendation, explorer: Explorer, experts: dict[str, Path]) -> None:
    """Coefficients by hand with predicted, and on demand measured, risk."""
    st.subheader("Coefficients by hand", anchor=False)
    plan, names = advice.plan, [name for name in advice.plan.names if name in experts]
    keys = {name: f"{run.id}:hand:{name}" for name in names}
    start = explorer.at(plan)
    top = max(2.0, *plan.coefficients.values())
    left, right = st.columns([1, 2], gap="medium")
    with left:
        known = explorer.methods
        index = known.index(start.method)
        method = st.selectbox("Method", known, index=index, format_func=_words, key=f"{run.id}:hand_method")
        if st.button("Auto-tune with the model", key=f"{run.id}:tune"):
            tuned = explorer.tuned(dataclasses.replace(start, method=str(method)))
            for name in names:
                st.session_state[keys[name]] = round(tuned.coefficients[name], 3)
        if st.button("Back to the advice", key=f"{run.id}:advised"):
            for name in names:
                st.session_state[keys[name]] = round(plan.coefficients[name], 3)
        values = {}
        for name in names:
            st.session_state.setdefault(keys[name], round(plan.coefficients[name], 3))
            values[name] = st.slider(f"λ of {md(name)}", 0.0, top, step=0.001, format="%.3f", key=keys[name])
    wanted = Plan(recipes={n: plan.recipes[n] for n in names}, coefficients=values, method=str(method))
    setting = dataclasses.replace(
        start, coefficients={n: values.get(n, 0.0) for n in explorer.names}, method=str(method)
    )
    outlook = explorer.look(setting)
    with right:
        columns_of(
            {
                "Predicted goal risk": predicted_cell(outlook.goal),
                "Pretrained model": (f"{risk_text(outlook.initial_goal)} nats", "goal risk with nothing merged"),
            }
        )
        if st.button("Measure it on validation data", key=f"{run.id}:measure"):
            with st.spinner("Merging and measuring on validation data"):
                found = measure_by_hand(run, wanted)
            st.session_state[f"{run.id}:measured"] = (wanted, found)
        measured = st.session_state.get(f"{run.id}:measured")
        held = None if measured is None or measured[0] != wanted else measured[1]
        rows = tuple(
            (
                name,
                f"{values.get(name, 0.0):.3f}",
                risk_text(cell.value),
                f"{risk_text(cell.low)} to {risk_text(cell.high)}",
                "–" if held is None else risk_text(held.risks.get(name)),
            )
            for name, cell in outlook.tasks.items()
        )
        head = ("task", "λ", "predicted (nats)", "90 % interval", "measured on validation data (nats)")
        table(Table(title="Risk of each task", head=head, rows=rows))
        merge_by_hand(run, values, str(method))


def merge_by_hand(run: RunDirectory, values: dict[str, float], method: str) -> None:
    """Make the merge with these coefficients and offer it."""
    if st.button("Make this merge", key=f"{run.id}:make"):
        base, experts = expert_files(run)
        with st.spinner("Merging"):
            st.session_state[f"{run.id}:made"] = made(base, {n: experts[n] for n in values}, values, method)
    offer(st.session_state.get(f"{run.id}:made"), f"{run.id}:hand")


def by_file() -> None:
    """Merge experts given as safetensors files."""
    st.caption(
        f"Only safetensors are read, and checked before. Up to {MOST_BYTES // MEGABYTE} MB by upload, else by path."
    )
    left, right = st.columns(2)
    with left:
        base = given("Pretrained weights", "base")
    with right:
        experts = given("Experts", "experts", several=True)
    if not base or not experts:
        st.info("Give the pretrained weights and at least one expert.", icon=":material/info:")
        return
    label, place = next(iter(base.items()))
    gram = task_vector_gram(place, experts)
    methods = [name for name, entry in OPERATORS.items() if not entry.needs_data]
    index = methods.index("task_arithmetic")
    method = st.selectbox("Method", methods, index=index, format_func=_words, key="file_method")
    st.caption("Auto-tuning takes λᵢ = ‖τᵢ‖² / Σⱼ ‖τⱼ‖² of the task vectors, which needs no data.")
    if st.button("Auto-tune from the weights"):
        for name, value in zip(gram.labels, metagpt_coefficients(gram.norms.tolist()), strict=True):
            st.session_state[f"file:{name}"] = round(value, 3)
    values = {}
    for name in experts:
        st.session_state.setdefault(f"file:{name}", round(1 / len(experts), 3))
        values[name] = st.slider(f"λ of {md(name)}", 0.0, 2.0, step=0.001, format="%.3f", key=f"file:{name}")
    left, right = st.columns(2)
    with left:
        figure(figures.task_vector_cosines(gram.labels, gram.cosines.tolist()), "file_cosines")
    with right:
        overlap(gram, values)
    st.caption("Without data there is no risk to predict or measure: only norms and angles of the task vectors.")
    if st.button("Make this merge", key="file_make", type="primary"):
        with st.spinner("Merging"):
            st.session_state["file_made"] = made(place, experts, values, str(method))
    offer(st.session_state.get("file_made"), "file")


def overlap(gram: TaskVectorGram, values: dict[str, float]) -> None:
    """How much of each merged step lies along another's."""
    scaled = [
        [values[a] * values[b] * float(gram.gram[i, j]) for j, b in enumerate(gram.labels)]
        for i, a in enumerate(gram.labels)
    ]
    figure(
        figures.heat_map(gram.labels, scaled, title="Overlap λᵢ λⱼ ⟨τᵢ, τⱼ⟩ of what is added", unit="|x|²"),
        "overlap",
    )


def given(label: str, key: str, *, several: bool = False) -> dict[str, Path]:
    """Checkpoints by upload or path: label -> file."""
    uploaded = st.file_uploader(
        f"{label} ({'several files' if several else 'one file'}, safetensors)",
        type=["safetensors"],
        accept_multiple_files=several,
        max_upload_size=MOST_BYTES // MEGABYTE,
        key=f"upload:{key}",
    )
    paths = st.text_area(f"{label} by path, one a line", key=f"path:{key}", height=68)
    found: dict[str, Path] = {}
    files = uploaded if isinstance(uploaded, list) else [uploaded] if uploaded else []
    for file in files:
        if not file.name.endswith(ENDING):
            raise ValueError(f"file={file.name!r} must end in {ENDING}; other formats are not read here")
        found[_label(file.name, found)] = _kept(file.file_id, file.getvalue())
    for line in (line.strip() for line in paths.splitlines() if line.strip()):
        path = Path(line).expanduser()
        if path.suffix != ENDING or not path.is_file():
            raise ValueError(f"path={line!r} must be a {ENDING} file that exists")
        found[_label(path.name, found)] = path
    return found


def made(base: Path, experts: dict[str, Path], values: dict[str, float], method: str) -> tuple[MergeResult, Path]:
    """Merge into a folder of this session, which goes with it."""
    out = _folder() / f"merge-{len(list(_folder().iterdir()))}"
    return merge(base, experts, method=method, coefficients=values, out=out), out


def offer(result: tuple[MergeResult, Path] | None, key: str) -> None:
    """Weights and card of a merge that was made."""
    if result is None:
        return
    found, out = result
    chosen = ", ".join(f"{n} {c:.3g}" for n, c in found.coefficients.items())
    st.success(md(f"Merged by {found.method.replace('_', ' ')} with {chosen}."))
    bullets(found.notes)
    with st.container(horizontal=True):
        weights = out / "model.safetensors"
        if weights.is_file():
            st.download_button(
                "Download these weights",
                weights.read_bytes,
                "merged.safetensors",
                on_click="ignore",
                key=f"{key}:weights",
            )
        else:
            st.caption(md(f"The weights are in several files in {out}."))
        card = out / "README.md"
        if card.is_file():
            st.download_button("Download this card", card.read_bytes, "README.md", on_click="ignore", key=f"{key}:card")


def _label(name: str, taken: dict[str, Path]) -> str:
    stem = slug(name.removesuffix(ENDING))
    label, count = stem, 2
    while label in taken:
        label, count = f"{stem}-{count}", count + 1
    return label


def _folder() -> Path:
    """A folder that lives as long as the session."""
    if "uploads" not in st.session_state:
        st.session_state["uploads"] = Scratch()
    scratch: Scratch = st.session_state["uploads"]
    return scratch.path


def _kept(file_id: str, data: bytes) -> Path:
    """An upload as a file; its own name has no part in the path."""
    path = _folder() / f"{slug(file_id)}{ENDING}"
    if not path.exists():
        path.write_bytes(data)
    return path


def _words(name: str) -> str:
    return name.replace("_", " ")


def _stamp(experts: dict[str, Path]) -> int:
    return max(path.stat().st_mtime_ns for path in experts.values())


@st.cache_resource(max_entries=4, show_spinner="Comparing the experts")
def _gram(base: str, experts: tuple[tuple[str, str], ...], written: int) -> TaskVectorGram:
    return task_vector_gram(base, dict(experts))


page()
