"""The pictures of a labelled data set: margins, and reward against length."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from drsow_plugin.annotate.summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(summaries: Mapping[str, Summary]) -> dict[str, bytes]:
    """Return PNG files by name: ``margins.png`` (where there are pairs) and ``lengths.png``."""
    pictures = {}
    margins = {name: np.frombuffer(s.margins) for name, s in summaries.items() if s.margins}
    if margins:
        pictures["margins.png"] = _png(_margins(margins))
    points = {
        name: (np.frombuffer(s.points[0]), np.frombuffer(s.points[1]))
        for name, s in summaries.items()
        if s.points[0]
    }
    if points:
        pictures["lengths.png"] = _png(_lengths(points))
    return pictures


def _margins(margins: Mapping[str, np.ndarray]) -> Figure:
    figure = _figure()
    axes = figure.add_subplot()
    everything = np.concatenate(list(margins.values()))
    bars = int(np.clip(2 * len(everything) ** 0.5, 10, 60))
    edges = np.histogram_bin_edges(everything, bins=bars, range=_central(everything))
    for name, values in margins.items():
        inside = np.clip(values, edges[0], edges[-1])  # what lies beyond is in the last bars
        axes.hist(inside, bins=list(edges), alpha=0.6, label=f"{name} ({len(values):,} pairs)")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("margin: reward of chosen minus reward of rejected (nats)")
    axes.set_ylabel("pairs")
    axes.legend(frameon=False)
    return figure


def _lengths(points: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    figure = _figure()
    axes = figure.add_subplot()
    for name, (lengths, rewards) in points.items():
        label = f"{name} ({len(lengths):,} responses)"
        axes.plot(lengths, rewards, ".", markersize=3, alpha=0.4, label=label)
    axes.set_xlabel("length of the response (tokens of the strong model)")
    axes.set_ylabel("reward (nats)")
    axes.set_ylim(*_central(np.concatenate([rewards for _, rewards in points.values()])))
    axes.legend(frameon=False)
    return figure


def _central(values: np.ndarray) -> tuple[float, float]:
    """Return a range that a few extreme values do not stretch."""
    low, high = np.quantile(values, (0.005, 0.995))
    room = max((high - low) * 0.05, 1e-6)
    return float(low - room), float(high + room)


def _figure() -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(7, 4), layout="constrained")


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
    return file.getvalue()
