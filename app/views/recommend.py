"""Recommend: the advice as a sentence, its recipe, interval, terms, reasons, caveats and alternatives; and copies."""

from __future__ import annotations

import streamlit as st

from advisor import figures
from advisor.advice import Recommendation
from advisor.advice_export import STUDY_NAME, advice_yaml, commands, plan_csv, study_code
from advisor.report_sections import alternative_table, prediction_table, recipe_table, term_table
from advisor.runs import RunDirectory
from advisor.wording import ANSWER_WORDS, STATUS_SIGNS, STATUS_WORDS, count_text, elasticity_text, risk_text
from app import session
from app.frame import live, opened, way
from app.showing import bullets, columns_of, figure, md, predicted_cell, say, table

SHOWN_CAVEATS = 6
LIMIT = 100_000_000  # bytes of a study that the browser is given


def page() -> None:
    """The whole page."""
    run = opened("Recommend", "What to train and how to merge it, why, and when not to trust it.")
    if run is None:
        return
    advice = session.recommendation_of(run)
    if advice is None:
        live(run)
        st.info("There is no advice yet: probes come first.", icon=":material/info:")
        way("probe", "See the probes")
        return
    verdict(advice)
    recipe(advice)
    why(advice)
    caveats(advice)
    others(advice)
    copies(run, advice)
    st.divider()
    measured = session.validation_of(run) is not None
    way("validate", "③ See predicted against measured" if measured else "③ Train, merge, and measure it on test data")
    way("explore", "Try other settings")


def verdict(advice: Recommendation) -> None:
    """Status, answer, sentence and the numbers that matter."""
    text = f"**{STATUS_SIGNS[advice.status]} {STATUS_WORDS[advice.status]}: {ANSWER_WORDS[advice.answer]}**\n\n"
    text += md(advice.sentence)
    kind = {"advise": st.success, "caution": st.warning, "refuse": st.error}[advice.status]
    kind(text)
    share = advice.training_cost / advice.full_fine_tune
    columns_of(
        {
            "Predicted goal risk": predicted_cell(advice.goal),
            "Pretrained model": (f"{risk_text(advice.initial_goal)} nats", "goal risk with nothing trained"),
            "Training cost": (count_text(advice.training_cost), f"per-sample gradients, {share:.2f} full fine-tunes"),
            "Beyond the probes": (f"× {advice.extrapolation:.3g}", "in steps and rate; 1 means inside"),
        }
    )


def recipe(advice: Recommendation) -> None:
    """What to train, and the predictions."""
    st.subheader("Recipe" if advice.status != "refuse" else "The best plan found, which is not advised", anchor=False)
    table(recipe_table(advice.plan))
    table(prediction_table(advice))


def why(advice: Recommendation) -> None:
    """Reasons and the share of each term."""
    st.subheader("Why", anchor=False)
    bullets(advice.reasons)
    figure(figures.term_shares(advice.terms), "terms")
    with st.expander("The terms as numbers"):
        table(term_table(advice.terms))
    if advice.elasticities:
        say("Small changes around the advised plan move the predicted goal risk so:")
        bullets(elasticity_text(knob, exponent) for knob, exponent in advice.elasticities.items())


def caveats(advice: Recommendation) -> None:
    """When not to trust it; warnings first."""
    st.subheader("When not to trust it", anchor=False)
    texts = [f"{'Warning: ' if c.weight == 'warning' else ''}{c.text}" for c in advice.caveats]
    if not texts:
        say("No limit was found.")
    bullets(texts[:SHOWN_CAVEATS])
    if len(texts) > SHOWN_CAVEATS:
        with st.expander(f"{len(texts) - SHOWN_CAVEATS} more"):
            bullets(texts[SHOWN_CAVEATS:])


def others(advice: Recommendation) -> None:
    """Alternatives and the front."""
    st.subheader("Alternatives", anchor=False)
    figure(figures.risk_against_cost(advice), "front")
    table(alternative_table("Near-optimal plans", advice.alternatives))
    if advice.pareto:
        with st.expander("The Pareto front as a table"):
            table(alternative_table("Pareto front", advice.pareto))


def copies(run: RunDirectory, advice: Recommendation) -> None:
    """The advice in the forms that other programs take."""
    st.subheader("Take it along", anchor=False)
    lines, yaml_tab, csv_tab, study_tab = st.tabs(["Command line", "YAML", "CSV", "Optuna study"])
    with lines:
        st.code(commands(run.path), language="bash")
    with yaml_tab:
        text = advice_yaml(advice)
        st.download_button("Download YAML", text, "advice.yaml", "application/yaml", on_click="ignore")
        st.code(text, language="yaml", height=260)
    with csv_tab:
        text = plan_csv(advice.plan)
        st.download_button("Download CSV", text, "plan.csv", "text/csv", on_click="ignore")
        st.code(text, language=None)
    with study_tab:
        path = run.path_of(STUDY_NAME)
        if path.is_file() and path.stat().st_size <= LIMIT:
            st.download_button("Download the study (journal)", path.read_bytes, STUDY_NAME, on_click="ignore")
        elif not path.is_file():
            st.caption("This run keeps no study.")
        st.code(study_code(run.path), language="python")


page()
