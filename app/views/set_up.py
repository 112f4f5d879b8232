"""Set up: a guided first visit, and a project from folders, built-in tasks or a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from advisor.report_sections import Table
from advisor.setting_up import (
    PROJECTS,
    LookedOver,
    builtin_choices,
    drafted,
    look_over,
    sample_images,
    sample_texts,
    save_project,
)
from advisor.watching import watch
from advisor.wording import count_text
from app import jobs, session
from app.showing import bullets, md, say, table

SHOWN_CLASSES = 12
WEIGHTS = {"hub": "timm's own, downloaded", "file": "from a file", "none": "none: a random start, to try things"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A project's text, the folder its paths start from, its name, and its file where it has one already."""

    text: str
    base: Path
    name: str
    path: Path | None = None


def page() -> None:
    """The whole page."""
    st.title("Set up", anchor=False)
    st.caption("What should be merged? Nothing is trained before you start it, and its cost is said first.")
    chosen = session.chosen()
    if chosen.problem:
        st.error(md(chosen.problem), icon=":material/error:")
    first_visit()
    st.subheader("Your project", anchor=False)
    source = st.radio(
        "Where does the project come from?",
        ("Make one from folders or built-in tasks", "Open a project file"),
        horizontal=True,
        key="source",
    )
    draft = from_file() if source == "Open a project file" else from_form()
    if draft is not None:
        review(draft)


def first_visit() -> None:
    """The demo's results in three clicks: this one, the advice's, the comparison's."""
    root = session.demo_root()
    place = root / session.DEMO_RUN
    with st.container(border=True):
        st.markdown(
            "**First visit?** The demo goes the whole way on real images: four digit tasks, one small network. "
            "① open it here ② read the advice ③ see predicted against measured."
        )
        summary = watch(place, with_probes=False).summary if (place / "run.json").is_file() else None
        if summary is not None and summary.is_complete:
            if st.button("① Open the demo's results", type="primary", key="demo"):
                session.choose(session.DEMO_RUN)
                st.switch_page("views/recommend.py", query_params={"run": session.DEMO_RUN})
        else:
            busy = jobs.is_alive(root, session.DEMO_RUN) or (summary is not None and summary.state == "running")
            st.caption("It trains for a few minutes on a CPU; you can watch, explore meanwhile, and stop it.")
            if st.button("① Watch the demo" if busy else "① Run the demo", type="primary", key="demo"):
                if not busy:
                    jobs.run_demo(root, session.DEMO_RUN)
                session.choose(session.DEMO_RUN)
                st.switch_page("views/probe.py", query_params={"run": session.DEMO_RUN})


def from_file() -> Draft | None:
    """A project file on this machine."""
    given = st.text_input("Project file on this machine", placeholder="project.yaml", key="project_file")
    if not given:
        return None
    path = Path(given).expanduser().resolve()
    if path.suffix not in (".yaml", ".yml"):
        st.error(md(f"file={given!r} must end in .yaml or .yml"), icon=":material/error:")
        return None
    try:
        return Draft(text=path.read_text(encoding="utf-8"), base=path.parent, name=path.stem, path=path)
    except (OSError, UnicodeDecodeError):
        st.error(md(f"file={given!r} cannot be read; check its name"), icon=":material/error:")
        return None


def from_form() -> Draft | None:
    """A project drafted from what the form says; its text may be edited."""
    base = session.roots()[0] / PROJECTS
    choices = builtin_choices()
    with st.form("draft", border=True):
        left, right = st.columns(2)
        with left:
            name = st.text_input("Name of the project", value="project", max_chars=48)
            folders = st.text_area(
                "Folders of images, or texts, on this machine, one a line",
                placeholder="/data/flowers\n/data/birds",
            )
            st.caption(
                "A folder of class folders is a task; a folder of such folders is several. A table of texts "
                "(.csv, .tsv, .jsonl) or a folder of .txt files is a task of texts."
            )
            builtin = st.multiselect("Built-in tasks", list(choices), format_func=lambda key: f"{key}: {choices[key]}")
            backbone = st.text_input("Backbone (a timm model, or for texts an encoder)", value="resnet18")
            weights = st.radio("Pretrained weights", list(WEIGHTS), format_func=WEIGHTS.__getitem__)
            checkpoint = st.text_input("File of the weights on this machine", placeholder="base.safetensors")
        with right:
            channels = st.radio("Image channels", (3, 1), format_func=lambda c: "colour" if c == 3 else "grey")
            size = st.number_input("Image size (pixels)", 8, 1024, None, step=8, placeholder="the model's own")
            steps = st.number_input("Most fine-tuning steps", 20, 1_000_000, 640, step=20)
            batch = st.number_input("Largest batch (samples)", 1, 65_536, None, step=8, placeholder="as the data allow")
            share = st.number_input("Probing may cost (full fine-tunes of all tasks)", 0.01, 10.0, 0.25, step=0.05)
            goal = st.radio("Goal", ("mean", "worst"), format_func=lambda g: f"{g} risk over tasks", horizontal=True)
            limit = st.text_input("Time limit", placeholder="none; 30m, 2h ...")
        if st.form_submit_button("Draft the project"):
            sources = [line.strip() for line in folders.splitlines() if line.strip()] + builtin
            changes: dict[str, Mapping[str, Any]] = {
                "backbone": {
                    "name": backbone,
                    "pretrained": weights == "hub",
                    "checkpoint": _checkpoint(checkpoint) if weights == "file" else None,
                    "in_chans": channels,
                    "image_size": None if size is None else int(size),
                },
                "search": {"steps": [min(20, int(steps)), int(steps)]}
                | ({"batch_size": [min(8, int(batch)), int(batch)]} if batch else {}),
                "budget": {"probe_share": float(share), "time_limit": limit or None},
                "objective": {"goal": goal},
            }
            st.session_state["drafted_name"] = name
            st.session_state["text"] = drafted(sources, base, changes)
    if "text" not in st.session_state:
        return None
    text = st.text_area("Project file: change what you like", key="text", height=260)
    return Draft(text=text, base=base, name=str(st.session_state.get("drafted_name", "project")))


def _checkpoint(given: str) -> str:
    if not given:
        raise ValueError("Pretrained weights come from a file, but none is named; name it or choose others")
    return str(Path(given).expanduser().resolve())


def review(draft: Draft) -> None:
    """Classes, counts, samples, problems, planned cost, and the start."""
    if st.button("Check it", key="check"):
        st.session_state["checked"] = (draft.text, look_over(draft.text, draft.base))
    checked: tuple[str, LookedOver] | None = st.session_state.get("checked")
    if checked is None or checked[0] != draft.text:
        st.caption("Check the project before you start it: data, splits, device and cost.")
        return
    found = checked[1]
    if found.problem:
        st.error(md(found.problem), icon=":material/error:")
        return
    show_survey(found)
    show_cost(found)
    command = st.radio(
        "How far should it go?",
        ("recommend", "run"),
        index=1,
        format_func=lambda c: "probe and advise" if c == "recommend" else "the whole path, with experts and comparison",
        horizontal=True,
    )
    if st.button("Start", type="primary", key="start"):
        root = session.roots()[0]
        path = draft.path or save_project(draft.text, root, draft.name)
        run_id = jobs.run_project(root, path, draft.name, command=command)
        session.choose(run_id)
        st.switch_page("views/probe.py", query_params={"run": run_id})


def show_survey(found: LookedOver) -> None:
    """Tasks with classes, counts and sample images."""
    assert found.survey is not None
    assert found.project is not None
    survey = found.survey
    st.subheader("What is there", anchor=False)
    say(f"Device {survey.device}, {survey.inputs.replace(' x ', ' × ')}.")
    rows = tuple(
        (n, t.data, str(len(t.classes)), str(t.train), str(t.validation), str(t.test), ", ".join(t.given) or "cut here")
        for n, t in survey.tasks.items()
    )
    head = ("task", "data", "classes", "train samples", "validation samples", "test samples", "splits")
    table(Table(title="Tasks", head=head, rows=rows))
    for name, task in survey.tasks.items():
        with st.expander(f"{md(name)}: classes and samples"):
            counts = [f"{label} ({count})" for label, count in list(task.classes.items())[:SHOWN_CLASSES]]
            more = len(task.classes) - len(counts)
            say("Samples a class: " + ", ".join(counts) + (f" and {more} more" if more > 0 else ""))
            if survey.image_size is None:
                bullets([f"{sample.label}: {sample.text}" for sample in sample_texts(found.project, name)])
                continue
            samples = sample_images(found.project, name, image_size=survey.image_size)
            st.image(
                [sample.png for sample in samples],
                caption=[md(sample.label) for sample in samples],
                width=72,
                alt=[f"sample of class {sample.label}" for sample in samples],
            )
    if survey.notes:
        st.markdown("**What to know**")
        bullets(survey.notes)


def show_cost(found: LookedOver) -> None:
    """What a whole run would cost at most."""
    assert found.planned is not None
    planned = found.planned
    st.subheader("What it would cost at most", anchor=False)
    rows = tuple(
        (stage.name, count_text(stage.units), f"{stage.units / planned.full_fine_tune:.2f}", stage.note)
        for stage in planned.stages
    )
    table(Table(head=("stage", "per-sample gradients", "full fine-tunes", "how counted"), rows=rows))


page()
