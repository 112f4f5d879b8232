"""Draw what tuned coefficients cost and are worth, and whether merges are foretold.

    python -m benchmarks.coefficient_plots --out docs/images/merging

From the stored results alone: ``coefficients.png`` (share of the gap closed against measured merges, and every
problem's accuracy against the simple average) and ``mergeability.png`` (Spearman of every signal, a dot a problem,
beside the ceilings).
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.coefficients import BEST, EVOLVED, GRID, OURS, TRIALS
from benchmarks.coefficients import RESULTS as COEFFICIENTS
from benchmarks.mergeability import RESULTS as MERGEABILITY
from estimators.files import write_bytes_atomic

DPI = 72
OWN, OTHER = "#0072b2", "#d55e00"
NAMES = {
    "ours": "ours (11 merges)",
    "validation": "ceiling: the merge itself, validation",
    "ceiling": "ceiling: two halves of the test data",
}
# Points, so that the labels of neighbouring dots do not overlap.
OFFSETS = {"(b)": (-20, -5), "(c)": (-6, 7), "(d)": (6, -5), "best single coefficient": (4, -15)}
LEFT_OUT = ("kinship",)  # on these merges the same as the cosine


def costs(document: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Method -> (merges measured, share of the gap closed); medians over problems."""
    closed = document["summary"]["gap_closed"]["accuracy"]["closed"]
    cases = document["problems"].values()
    found = {
        name: (float(trials), closed[name]) for name, trials in ((BEST, TRIALS["TPE"]), (EVOLVED, TRIALS["CMA-ES"]))
    }
    found["best single coefficient"] = (float(len(GRID)), closed["best single coefficient"])
    for name in OURS.values():
        found[name] = (statistics.median(case["cost"][name]["merges"] for case in cases), closed[name])
    return found


def signals(document: dict[str, Any]) -> dict[str, list[float]]:
    """Signal -> Spearman with the measured risk, one value a problem; ceilings first, then best to worst."""
    cases = document["problems"].values()
    names = [name for name in next(iter(cases))["spearman"] if name not in (*LEFT_OUT, "validation", "ours")]
    found = {name: [case["spearman"][name]["risk"] for case in cases] for name in ("validation", "ours", *names)}
    order = sorted(names, key=lambda name: -statistics.mean(found[name]))
    return {"ceiling": [case["ceiling"] for case in cases]} | {n: found[n] for n in ("validation", "ours", *order)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images/merging"))
    options = parser.parse_args(arguments)
    document = json.loads(COEFFICIENTS.read_text())
    figure, axes = _axes(2, (11.0, 4.2))
    for name, (merges, share) in costs(document).items():
        colour = OWN if name in OURS.values() else OTHER
        axes[0].plot(max(merges, 1), share, "o", color=colour)
        label = name[:3] if name in OURS.values() else name.split(",")[0]
        axes[0].annotate(label, (max(merges, 1), share), xytext=OFFSETS.get(label, (5, 5)), textcoords="offset points")
    axes[0].set(
        xscale="log", xlim=(0.8, 2500), ylim=(0, 1.15), xlabel="measured merges, verdicts included (0 drawn at 1)"
    )
    axes[0].set(ylabel="share of the gap closed", title="Simple average 0, 500 labelled TPE trials 1")
    methods = ["x0", "best single coefficient", *OURS.values(), EVOLVED, BEST]
    for place, name in enumerate(methods):
        tests = [case["test"] for case in document["problems"].values()]
        gains = [100 * (test[name]["accuracy"] - test["simple average"]["accuracy"]) for test in tests]
        axes[1].plot(gains, [place] * len(gains), "|", markersize=11, color=OWN if name in OURS.values() else OTHER)
    axes[1].axvline(0, color="#666666", linewidth=0.8)
    axes[1].set_yticks(range(len(methods)), [name.split(",")[0] for name in methods])
    axes[1].set(xlabel="points of test accuracy over the simple average", title="Every problem")
    _save(figure, options.out / "coefficients.png")
    figure, axes = _axes(1, (7.2, 4.2))
    cells = signals(json.loads(MERGEABILITY.read_text()))
    for place, (name, values) in enumerate(reversed(cells.items())):
        colour = OWN if name == "ours" else "#666666" if name in NAMES else OTHER
        axes[0].plot(values, [place] * len(values), "o", markersize=5, alpha=0.7, color=colour)
    axes[0].set_yticks(range(len(cells)), [NAMES.get(name, name) for name in reversed(cells)])
    axes[0].axvline(0.8, color="#666666", linewidth=0.8, linestyle=":")
    axes[0].set(xlabel="Spearman with the measured test risk of 30 subsets", xlim=(-1, 1.02))
    _save(figure, options.out / "mergeability.png")


def _axes(count: int, size: tuple[float, float]) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, count, figsize=size, layout="constrained", squeeze=False)
    return figure, axes[0]


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, metadata={"Software": None})
    plt.close(figure)
    write_bytes_atomic(path, buffer.getvalue())


if __name__ == "__main__":
    main()
