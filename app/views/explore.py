"""Explore: turn the knobs, see the predicted risk with its interval, what it is made of, and where it lies.

Everything is one vectorised evaluation of the run's stored model (``advisor.exploring``); no study is started.
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import streamlit as st

from advisor import figures
from advisor.curves import Knob
from advisor.exploring import Explorer, Outlook
from advisor.figures.exploring import front_around, side_by_side
from advisor.observations import MergeObservation
from advisor.project import Project
from advisor.report_sections import Table
from advisor.runs import RunDirectory
from advisor.setting import Setting
from advisor.wording import count_text, interval_text, risk_text
from app import session
from app.frame import live, opened, way
from app.showing import columns_of, figure, guarded, md, predicted_cell, say, table

KNOB_WORDS: dict[Knob, str] = {
    "learning_rate": "learning rate",
    "batch_size": "batch size",
    "steps": "steps",
    "coefficient": "coefficient λ",
}
MOST_PINS = 6


def page() -> None:
    """The whole page; the sliders and their answers are a fragment, so that they alone run again."""
    run = opened("Explore", "What if? Predicted by the run's fitted model at once; nothing is trained.")
    if run is None:
        return
    explorer, advice = session.explorer_of(run), session.recommendation_of(run)
    if advice is not None and explorer is None:
        st.info(f"There is nothing to explore.  {md(advice.sentence)}", icon=":material/info:")
        way("probe", "See the probes")
        return
    if explorer is None or advice is None:
        live(run)
        st.info("There is no fitted model yet: probes and advice come first.", icon=":material/info:")
        way("probe", "See the probes")
        return
    if note := session.refit_note(run):
        st.caption(md(f"{note}: the model was fitted again from the run's probes; the advice is as it was given."))
    start = explorer.at(advice.plan)
    merges = session.merges_of(run)
    project = session.project_of(run)
    st.fragment(guarded(lambda: exploring(run, explorer, start, project, merges)))()
    way("merge", "Merge the experts")


def exploring(
    run: RunDirectory, explorer: Explorer, start: Setting, project: Project, merges: tuple[MergeObservation, ...]
) -> None:
    """Knobs on the left, answers on the right."""
    left, right = st.columns([1, 2], gap="medium")
    with left:
        setting = knobs(run.id, explorer, start, project)
    if setting is None:
        return
    outlook = explorer.look(setting)
    with right:
        answers(explorer, outlook)
        contour(run.id, explorer, setting, outlook, merges)
        front = explorer.front(setting, longest=max(2 * project.search.steps[1], setting.steps))
        drawn = front_around(front, (outlook.cost, outlook.goal), initial_goal=outlook.initial_goal)
        figure(drawn, f"{run.id}:front")
    with left:
        pin(run.id, outlook)
    compare(run.id, explorer)


def knobs(run_id: str, explorer: Explorer, start: Setting, project: Project) -> Setting | None:
    """The sliders; ``None`` after saying why they make no setting."""
    recipe_tab, merge_tab, goal_tab = st.tabs(["Recipe", "Merge", "Tasks"])
    with recipe_tab:
        chosen = recipe_knobs(run_id, explorer, start, project)
    with merge_tab:
        chosen |= merge_knobs(run_id, explorer, start, project)
    with goal_tab:
        chosen |= task_knobs(run_id, explorer, start)
    try:
        return Setting(**chosen)
    except ValueError as error:
        st.error(md(error), icon=":material/error:")
        return None


def recipe_knobs(run_id: str, explorer: Explorer, start: Setting, project: Project) -> dict[str, Any]:
    """The recipe of every expert."""
    search = project.search
    rates = [bound for pair in search.learning_rate.values() for bound in pair]
    optimizer = st.segmented_control(
        "Optimiser", explorer.optimizers, default=start.optimizer, key=f"{run_id}:optimizer", required=True
    )
    rate = log_slider("Learning rate η (|x|²/nat)", start.learning_rate, min(rates) / 4, max(rates) * 4, run_id)
    batch = count_slider("Batch size (samples)", start.batch_size, 1, 4 * search.batch_size[1], run_id)
    steps = count_slider("Steps", start.steps, 1, 4 * search.steps[1], run_id)
    most = max(explorer.num_samples.values())
    samples = count_slider("Training samples a task", start.num_samples or most, min(10, most), most, run_id)
    schedule = st.segmented_control(
        "Schedule",
        ("constant", "warmup_cosine"),
        default=start.schedule,
        format_func=lambda name: name.replace("_", " + "),
        key=f"{run_id}:schedule",
        required=True,
    )
    return {
        "learning_rate": rate,
        "batch_size": batch,
        "steps": steps,
        "optimizer": optimizer or start.optimizer,
        "schedule": schedule or start.schedule,
        "num_samples": None if samples >= most else samples,
    }


def merge_knobs(run_id: str, explorer: Explorer, start: Setting, project: Project) -> dict[str, Any]:
    """Method and coefficients."""
    method = st.selectbox(
        "Method",
        explorer.methods,
        index=explorer.methods.index(start.method),
        format_func=lambda name: name.replace("_", " "),
        key=f"{run_id}:method",
    )
    top = max(2.0, project.search.coefficients.range[1], 1.5 * max(start.coefficients.values()))
    scale = st.slider("All coefficients λ (factor)", 0.0, 3.0, 1.0, 0.05, key=f"{run_id}:scale")
    coefficients = {
        name: scale
        * st.slider(
            f"Coefficient λ of {md(name)}",
            0.0,
            float(top),
            float(round(start.coefficients[name], 3)),
            0.005,
            key=f"{run_id}:lambda:{name}",
        )
        for name in explorer.names
    }
    return {"method": str(method), "coefficients": coefficients}


def task_knobs(run_id: str, explorer: Explorer, start: Setting) -> dict[str, Any]:
    """Which tasks take part, and how much each counts."""
    weights, off = {}, []
    for name in explorer.names:
        if not st.toggle(f"{md(name)} takes part", value=True, key=f"{run_id}:on:{name}"):
            off.append(name)
        weights[name] = st.slider(
            f"Weight of {md(name)} in the goal (1: equal)",
            0.0,
            3.0,
            float(round(min(3.0, start.weights[name] * len(start.weights)), 2)),
            0.05,
            key=f"{run_id}:weight:{name}",
        )
    return {"weights": weights, "left_out": tuple(off)}


def log_slider(label: str, start: float, low: float, high: float, run_id: str) -> float:
    """A logarithmic slider."""
    values = np.geomspace(min(low, start), max(high, start), 121).tolist()
    options = sorted({float(f"{value:.3g}") for value in [*values, start]})
    chosen = st.select_slider(
        label, options, value=float(f"{start:.3g}"), format_func=lambda v: f"{v:.3g}", key=f"{run_id}:{label}"
    )
    return float(chosen)


def count_slider(label: str, start: int, low: int, high: int, run_id: str) -> int:
    """A logarithmic slider over whole numbers."""
    grid = np.geomspace(max(1, low), max(high, start), 60).round().astype(int).tolist()
    options = sorted({*grid, start})
    return int(st.select_slider(label, options, value=start, key=f"{run_id}:{label}"))


def answers(explorer: Explorer, outlook: Outlook) -> None:
    """The prediction, its parts, the edge, and why not a larger rate."""
    edge = outlook.edge
    gain = outlook.initial_goal - outlook.goal.value
    columns_of(
        {
            "Predicted goal risk": predicted_cell(outlook.goal),
            "Gain over the pretrained model": (f"{gain:+.3f} nats", f"it has {risk_text(outlook.initial_goal)} nats"),
            "Training cost": (count_text(outlook.cost), "per-sample gradients"),
            "Stability edge": (f"η = {edge.value:.3g}", f"90 % interval {edge.low:.3g} to {edge.high:.3g}"),
        },
        beside=2,
    )
    if outlook.beyond > 1.05:
        st.caption(f"This setting lies a factor {outlook.beyond:.3g} beyond the probes; intervals widen with it.")
    figure(figures.term_shares(outlook.terms), "explored_terms")
    larger = explorer.larger_rate(outlook.setting)
    with st.container(border=True):
        st.markdown("**Why not a larger learning rate?**")
        for sentence in larger.sentences:
            say(sentence)
    rows = tuple(
        (name, risk_text(outlook.terms[name]["pretrained"]), risk_text(cell.value), interval_text(cell))
        for name, cell in outlook.tasks.items()
    )
    with st.expander("Predicted risk of each task"):
        table(Table(head=("task", "pretrained (nats)", "predicted (nats)", "90 % interval"), rows=rows))


def contour(
    run_id: str, explorer: Explorer, setting: Setting, outlook: Outlook, merges: tuple[MergeObservation, ...]
) -> None:
    """Predicted risk over two chosen knobs, measured merges over it."""
    names = list(get_args(Knob))
    left, right = st.columns(2)
    with left:
        x = st.selectbox("Across", names, format_func=lambda k: KNOB_WORDS[k], key=f"{run_id}:x")
    with right:
        others = [name for name in names if name != x]
        y = st.selectbox("Up", others, index=len(others) - 1, format_func=lambda k: KNOB_WORDS[k], key=f"{run_id}:y")
    surface = explorer.surface(setting, (x, y))
    measured = inside(explorer.measured(setting, (x, y), merges), surface.x, surface.y)
    figure(figures.risk_contour(surface, measured=measured, initial_goal=outlook.initial_goal), f"{run_id}:contour")
    st.caption(
        f"{len(measured)} measured merges of probes with {md(setting.optimizer)} lie in this window; their other knobs "
        "stand elsewhere, so their colours may differ from the ground's."
    )


def inside(
    points: tuple[tuple[float, float, float], ...], x: tuple[float, ...], y: tuple[float, ...]
) -> list[tuple[float, float, float]]:
    """Points that lie in the drawn window."""
    return [p for p in points if x[0] <= p[0] <= x[-1] and y[0] <= p[1] <= y[-1]]


def pin(run_id: str, outlook: Outlook) -> None:
    """Keep a setting for comparison."""
    pins: dict[str, Setting] = st.session_state.setdefault(f"pins:{run_id}", {})
    name = st.text_input("Name for this setting", value=f"setting {len(pins) + 1}", max_chars=40)
    full = len(pins) >= MOST_PINS
    if st.button("Pin this setting", disabled=full, key=f"{run_id}:pin") and name.strip():
        pins[name.strip()] = outlook.setting
    if full:
        st.caption(f"At most {MOST_PINS} settings; unpin one.")


def compare(run_id: str, explorer: Explorer) -> None:
    """Pinned settings side by side."""
    pins: dict[str, Setting] = st.session_state.get(f"pins:{run_id}", {})
    if not pins:
        st.caption("Pin settings to see them side by side.")
        return
    st.subheader("Side by side", anchor=False)
    outlooks = {name: explorer.look(setting) for name, setting in pins.items()}
    initial = next(iter(outlooks.values())).initial_goal
    figure(side_by_side({n: (o.goal, o.tasks) for n, o in outlooks.items()}, initial), f"{run_id}:pins")
    rows = tuple(
        (
            name,
            risk_text(o.goal.value),
            interval_text(o.goal),
            count_text(o.cost),
            o.setting.recipe.describe(),
            ", ".join(f"{n} {o.setting.coefficients[n]:.3g}" for n in o.setting.kept),
            ", ".join(o.setting.left_out) or "none",
        )
        for name, o in outlooks.items()
    )
    head = ("setting", "goal (nats)", "90 % interval", "cost (gradients)", "recipe", "coefficients", "left out")
    table(Table(title="Pinned settings", head=head, rows=rows))
    gone = st.selectbox("Unpin", list(pins), key=f"{run_id}:unpin")
    if st.button("Unpin it", key=f"{run_id}:unpin_it"):
        pins.pop(str(gone), None)
        st.rerun(scope="fragment")


page()
