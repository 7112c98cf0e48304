"""The plots of a labelled data set: margins, and reward against length."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from drsow_plugin.annotate.summary import Summary
from drsow_plugin.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


def draw(summaries: Mapping[str, Summary], title: str) -> dict[str, bytes]:
    """Return the PNG files by name.

    Args:
        summaries: What came out, by split.
        title: What stands above each plot.
    """
    plots = {}
    pairs = {name: summary for name, summary in summaries.items() if summary.margins}
    if pairs:
        plots["margins.png"] = _png(margins_figure(pairs, title))
    responses = {name: summary for name, summary in summaries.items() if summary.points[0]}
    if responses:
        plots["lengths.png"] = _png(lengths_figure(responses, title))
    return plots


def margins_figure(summaries: Mapping[str, Summary], title: str) -> Figure:
    """Draw how many pairs have which margin."""
    margins = {name: np.frombuffer(summary.margins) for name, summary in summaries.items()}
    everything = np.concatenate(list(margins.values()))
    low, high = _reach(everything)
    figure, axes = _open(title)
    bars = int(np.clip(2 * len(everything) ** 0.5, 10, 60))
    step = (high - low) / bars
    # With an edge at 0, so that no bar holds margins of both signs.
    edges = list(step * np.arange(np.floor(low / step), np.ceil(high / step) + 1))
    low, high = edges[0], edges[-1]
    for name, values in margins.items():
        label = _label(f"{len(values):,}", "pair", name)
        axes.hist(np.clip(values, low, high), bins=edges, alpha=0.6, label=label)
    if low < 0 < high:
        axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlim(low, high)
    caption = "margin: reward of chosen minus reward of rejected (nats)"
    if beyond := np.count_nonzero((everything < low) | (everything > high)):
        caption += f"\n{beyond:,} beyond the axis, {_span(everything)}, in the outermost bars"
    _close(figure, axes, caption, "pairs", counts=axes.yaxis)
    return figure


def lengths_figure(summaries: Mapping[str, Summary], title: str) -> Figure:
    """Draw the rewards of responses against their lengths."""
    points = {name: np.array([*map(np.frombuffer, s.points)]) for name, s in summaries.items()}
    everything = np.concatenate(list(points.values()), axis=1)
    low, high = np.array([_reach(values) for values in everything]).T[..., None]
    figure, axes = _open(title)
    size = 3 if everything.shape[1] > 500 else 6
    for place, (name, drawn) in enumerate(points.items()):
        number, of = drawn.shape[1], summaries[name].seen
        counted = f"{number:,}" if number == of else f"{number:,} of {of:,}"
        color = f"C{place}"
        axes.plot([], [], "o", color=color, label=_label(counted, "response", name))
        far = np.any((drawn < low) | (drawn > high), axis=0)
        axes.plot(*drawn[:, ~far], ".", markersize=size, alpha=0.4, color=color)
        if far.any():
            edge = np.clip(drawn[:, far], low, high)
            axes.plot(*edge, "D", markersize=5, color=color, clip_on=False)
    axes.set_xlim(low[0, 0], high[0, 0])
    axes.set_ylim(low[1, 0], high[1, 0])
    caption = "length of the response (tokens of the strong model)"
    if beyond := np.count_nonzero(np.any((everything < low) | (everything > high), axis=0)):
        caption += f"\n{beyond:,} beyond the axes, as diamonds at the edge: lengths "
        caption += f"{_span(everything[0])}, rewards {_span(everything[1])}"
    _close(figure, axes, caption, "reward (nats)", counts=axes.xaxis)
    return figure


def _reach(values: np.ndarray) -> tuple[float, float]:
    """Return a range for an axis that holds all values, but for a few far from the rest."""
    low, high = values.min(), values.max()
    inner = np.quantile(values, (0.005, 0.995))
    wide = (inner[1] - inner[0]) / 2
    if wide > 0:
        low, high = max(low, inner[0] - wide), min(high, inner[1] + wide)
    room = (high - low) * 0.05 or max(abs(low) * 0.05, 0.5)
    return float(low - room), float(high + room)


def _span(values: np.ndarray) -> str:
    return f"{values.min():,.5g} to {values.max():,.5g}"


def _label(number: str, what: str, split: str) -> str:
    return plain(f"{number} {what if number == '1' else f'{what}s'} in {split}")


def _open(title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(plain(title), fontsize="medium", pad=9)
    return figure, axes


def _close(figure: Figure, axes: Axes, x: str, y: str, *, counts: Axis) -> None:
    """Label the axes, let the one of counts show whole numbers, and add the legend.

    It is below the axes, where it covers nothing, in as many columns as fit.
    """
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.set_xlabel(x, fontsize="small")
    axes.set_ylabel(y)
    counts.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    counts.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    _, labels = axes.get_legend_handles_labels()
    columns = min(len(labels), max(1, 90 // (max(map(len, labels)) + 6)))
    figure.legend(loc="outside lower center", ncols=columns, frameon=False)


def plain(text: str) -> str:
    """Return a text that is not read as a formula."""
    return printable(text, lines=True).replace("$", "\\$")


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
    return file.getvalue()
