"""The pictures of a study: accuracies of all pairs, and gap against accuracy."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from drsow_plugin.annotate.plots import plain
from drsow_plugin.study.findings import Findings
from drsow_plugin.study.gaps import GapLaw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAT_MAP = "accuracy"
FORMATS = ("png", "svg")
_NUMBERED = 16  # with more models the numbers in the cells would not be read


def draw(report: Findings) -> dict[str, bytes]:
    """Return the pictures by file name, each as PNG and as SVG."""
    figures = {HEAT_MAP: heat_map(report)}
    figures |= {name: scatter(law) for name, law in scatter_names(report).items()}
    return {
        f"{name}.{kind}": _saved(figure, kind)
        for name, figure in figures.items()
        for kind in FORMATS
    }


def scatter_names(report: Findings) -> dict[str, GapLaw]:
    """Return the gaps by the names of their pictures, without an ending."""
    return {f"gap-{number}": law for number, law in enumerate(report.laws, 1)}


def heat_map(report: Findings) -> Figure:
    """Draw the accuracy of every ordered pair: a row for the strong model, a column for the weak.

    The colours are centred on chance.
    """
    from matplotlib.figure import Figure

    names = [model.name for model in report.models]
    values = np.full((len(names), len(names)), np.nan)
    for pair in report.pairs:
        values[names.index(pair.strong), names.index(pair.weak)] = 100 * pair.accuracy.value
    side = 2.8 + 0.55 * len(names)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    reach = max(10.0, float(np.nanmax(np.abs(values - 50))))
    image = axes.imshow(values, cmap="RdBu", vmin=50 - reach, vmax=50 + reach)
    labels = [plain(name) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), labels)
    axes.set_xlabel("weak")
    axes.set_ylabel("strong")
    axes.set_title(plain(f"{report.data}, {report.rows:,} rows"), fontsize="medium")
    figure.colorbar(image, ax=axes, label="accuracy (%)", shrink=0.8)
    if len(names) <= _NUMBERED:
        for (row, column), value in np.ndenumerate(values):
            if row != column:
                color = "white" if abs(value - 50) > 0.7 * reach else "black"
                text = f"{value:.0f}"
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    return figure


def scatter(law: GapLaw) -> Figure:
    """Draw each ordered pair: its gap, and its accuracy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    pairs = ~np.eye(len(law.gaps), dtype=bool)
    gaps, accuracies = law.gaps[pairs], 100 * law.accuracies[pairs]
    upward = gaps > 0
    axes.axhline(50, color="grey", linewidth=0.8)
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.plot(gaps[~upward], accuracies[~upward], "o", color="C0", alpha=0.3, markersize=4)
    axes.plot(gaps[upward], accuracies[upward], "o", color="C0", alpha=0.8, markersize=4)
    held_out = " (of other prompts)" if law.held_out else ""
    axes.set_xlabel(plain(f"gap in {law.score}, strong - weak{held_out}"))
    axes.set_ylabel("accuracy (%)")
    if law.pearson and law.spearman:
        text = f"Pearson {law.pearson.value:+.2f}, Spearman {law.spearman.value:+.2f}"
        axes.set_title(f"{text}, {len(gaps)} ordered pairs", fontsize="medium")
    return figure


def _saved(figure: Figure, kind: str) -> bytes:
    """Return a figure as a file that is the same each time it is drawn."""
    from matplotlib import rc_context

    file = io.BytesIO()
    told = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    with rc_context({"svg.hashsalt": "drsow"}):
        figure.savefig(file, format=kind, dpi=150, metadata=told)
    return file.getvalue()
