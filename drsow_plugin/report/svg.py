"""Plain SVG for the page and, with its own colours, for files: axes, marks and their texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from drsow_plugin.printable import printable

WIDTH, HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 12, 44

# The colours are those of Okabe and Ito, Color Universal Design, 2008, made darker for a light
# ground and lighter for a dark one until their contrast to it is at least 4.5.
STYLE = """\
.chart { --ground: #ffffff; --ink: #1b1f24; --faint: #565e69; --line: #d4d9df;
  --good: #0a68ad; --bad: #b14708; --plain: #5b6b7d; }
@media (prefers-color-scheme: dark) { .chart { --ground: #171b20; --ink: #e7eaee; --faint: #a6afba;
  --line: #3a424c; --good: #62b3f2; --bad: #f2995a; --plain: #a6b4c4; } }
"""
MARKS = """\
.chart text { fill: var(--faint); font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; }
.chart .name { fill: var(--ink); }
.chart .grid { stroke: var(--line); stroke-width: 1; }
.chart .axis { stroke: var(--faint); stroke-width: 1; }
.chart .guide { stroke: var(--faint); stroke-width: 1.2; stroke-dasharray: 4 4; fill: none; }
.chart .good { fill: var(--good); stroke: var(--good); }
.chart .bad { fill: var(--bad); stroke: var(--bad); }
.chart .plain { fill: var(--plain); stroke: var(--plain); }
.chart .filled { fill-opacity: .38; stroke-width: 1.2; }
.chart .hollow { fill-opacity: .12; stroke-width: 1.8; stroke-dasharray: 5 2; }
.chart .dot { fill-opacity: .55; stroke-width: .8; }
.chart .ring { fill: var(--ground); stroke-width: 2; }
.chart .diamond { fill: var(--ground); stroke-width: 2; }
.chart .stem, .chart .cross { stroke-width: 2; fill: none; }
"""
_STYLE = Markup(STYLE + MARKS)  # noqa: S704  (constants)


@dataclass(frozen=True)
class Chart:
    """A picture, and the same in words and numbers.

    Attributes:
        name: Of its file, without an ending.
        title: What it shows.
        caption: How it is to be read.
        body: What is in it, as SVG.
        legend: The marks by what they mean: a class, and the words.
        columns: Names of the columns of its table.
        rows: The rows of that table.
        height: In units of the picture, which is ``WIDTH`` wide.
    """

    name: str
    title: str
    caption: str
    body: Markup
    legend: Sequence[tuple[str, str]] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    height: int = HEIGHT

    def keys(self) -> list[tuple[Markup, str]]:
        """Return each mark of the legend as a small picture, and what it means."""
        return [
            (
                Markup(
                    '<svg class="chart key" viewBox="0 0 14 12" aria-hidden="true">{}</svg>'
                ).format(_key(mark)),
                words,
            )
            for mark, words in self.legend
        ]

    def inline(self) -> Markup:
        """Return the picture for a page that has its styles."""
        return Markup(
            '<svg class="chart" role="img" viewBox="0 0 {} {}" aria-label="{}">{}</svg>'
        ).format(WIDTH, self.height, printable(self.title), self.body)

    def file(self) -> bytes:
        """Return the picture as a file, which follows the colour scheme of its reader."""
        legend = Markup("")
        for place, (mark, words) in enumerate(self.legend):
            y = self.height + 14 + 18 * place
            legend += Markup(
                '<g transform="translate(12 {})">{}</g><text x="34" y="{}">{}</text>'
            ).format(y - 10, _key(mark), y, printable(words))
        height = self.height + 18 * len(self.legend) + 22
        title = Markup('<text class="name" x="12" y="16">{}</text>').format(printable(self.title))
        return str(
            Markup(
                '<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 -22 {} {}" '
                'width="{}" height="{}"><style>{}</style>'
                '<rect fill="var(--ground)" y="-22" width="100%" height="100%"/>'
                '<g transform="translate(0 -20)">{}</g>{}{}</svg>\n'
            ).format(*(WIDTH, height, WIDTH, height, _STYLE), title, self.body, legend)
        ).encode()


@dataclass
class Axes:
    """The area of a chart with both axes, to which marks are added.

    Attributes:
        x: Ends of the horizontal axis.
        y: Ends of the vertical axis.
        marks: What was added.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    marks: list[Markup] = field(default_factory=list)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return a point in units of the picture; what is beyond the axes is at their end."""
        across = _share(x, self.x) * (WIDTH - _LEFT - _RIGHT)
        return _LEFT + across, HEIGHT - _BOTTOM - _share(y, self.y) * (HEIGHT - _TOP - _BOTTOM)

    def add(self, tag: str, tip: str = "", /, **attributes: Any) -> None:
        """Add a mark; with a text that is shown where the pointer is on it."""
        self.marks.append(element(tag, tip, **attributes))

    def line(self, start: tuple[float, float], end: tuple[float, float], mark: str) -> None:
        """Add a straight line between two points of the axes."""
        (x1, y1), (x2, y2) = self.at(*start), self.at(*end)
        self.add("line", **{"class": mark}, x1=x1, y1=y1, x2=x2, y2=y2)

    def bar(
        self, left: float, right: float, top: float, mark: str, tip: str, /, **more: str
    ) -> None:
        """Add a bar that stands on the lower end of the vertical axis."""
        (x1, y1), (x2, y2) = self.at(left, top), self.at(right, self.y[0])
        size = {"x": x1, "y": y1, "width": max(x2 - x1 - 0.6, 0.4), "height": y2 - y1}
        self.add("rect", tip, **{"class": mark}, **size, **more)

    def labelled(self, x: str, y: str, percent: bool = False, least: float = 0) -> Markup:
        """Return all of it, with the names of both axes and ticks, ``least`` apart vertically."""
        parts: list[Markup] = []
        for value in ticks(*self.x):
            at = self.at(value, self.y[0])
            parts.append(_text(at[0], at[1] + 17, number(value), "middle"))
        for value in ticks(*self.y, least=least):
            left, right = self.at(self.x[0], value), self.at(self.x[1], value)
            line = {"x1": left[0], "y1": left[1], "x2": right[0], "y2": right[1]}
            parts.append(element("line", **{"class": "grid"}, **line))
            said = f"{100 * value:.0f} %" if percent else number(value)
            parts.append(_text(left[0] - 7, left[1] + 4, said, "end"))
        low, high = self.at(self.x[0], self.y[0]), self.at(self.x[1], self.y[0])
        line = {"x1": low[0], "y1": low[1], "x2": high[0], "y2": high[1]}
        axis = element("line", **{"class": "axis"}, **line)
        middle = (low[0] + high[0]) / 2
        names = [_text(middle, HEIGHT - 6, x, "middle")]
        turned = f"rotate(-90) translate({-(HEIGHT - _BOTTOM + _TOP) / 2:g} 12)"
        names.append(words(y, text_anchor="middle", transform=turned))
        return Markup("").join([*parts, *self.marks, axis, *names])


def element(tag: str, tip: str = "", /, **attributes: Any) -> Markup:
    """Return an element of SVG.

    Args:
        tag: Its name.
        tip: What is shown where the pointer is on it.
        **attributes: Of it; numbers are rounded, and ``data_x`` is spelled ``data-x``.
    """
    title = Markup("<title>{}</title>").format(printable(tip)) if tip else Markup("")
    return _element(tag, title, attributes)


def words(text: str, /, **attributes: Any) -> Markup:
    """Return a text; see :func:`element`."""
    return _element("text", Markup("{}").format(printable(text)), attributes)


def _element(tag: str, inner: Markup, attributes: Mapping[str, Any]) -> Markup:
    written = Markup("").join(
        Markup(' {}="{}"').format(name.replace("_", "-"), _rounded(value))
        for name, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(tag, written, inner)


def reach(values: np.ndarray) -> tuple[float, float]:
    """Return ends of an axis that holds all values, but for a few far from the rest."""
    low, high = float(values.min()), float(values.max())
    inner = np.quantile(values, (0.005, 0.995))
    wide = float(inner[1] - inner[0]) / 2
    if wide > 0:
        low, high = max(low, inner[0] - wide), min(high, inner[1] + wide)
    room = (high - low) * 0.04 or max(abs(low) * 0.05, 0.5)
    return low - room, high + room


def ticks(low: float, high: float, number_of: int = 5, least: float = 0) -> list[float]:
    """Return round numbers between two ends, some five of them, that are ``least`` apart."""
    step = 10 ** np.floor(np.log10((high - low) / number_of))
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= number_of + 1:
            break
    step = max(step * factor, least)
    first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
    return [float(step * place) + 0.0 for place in np.arange(first, last + 1)]


def number(value: float) -> str:
    """Return a number for people."""
    text = f"{value:,.10g}" if abs(value) >= 1 or value == 0 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def table(rows: Iterable[Mapping[str, str]]) -> tuple[list[str], list[list[str]]]:
    """Return the names of columns, and rows of them."""
    listed = list(rows)
    names = list(dict.fromkeys(name for row in listed for name in row))
    return names, [[row.get(name, "") for name in names] for row in listed]


def _key(mark: str) -> Markup:
    """Return a mark for a legend, 14 by 12 in size."""
    shape = mark.rpartition(" ")[2]
    if shape == "cross":
        return element("path", **{"class": mark}, d="M3 2l8 8m0 -8l-8 8")
    if shape == "diamond":
        return element("path", **{"class": mark}, d="M7 1l5 5l-5 5l-5 -5z")
    if shape in ("dot", "ring", "round"):
        return element("circle", **{"class": mark}, cx=7, cy=6, r=4)
    return element("rect", **{"class": mark}, x=1, y=2, width=12, height=8)


def _share(value: float, ends: tuple[float, float]) -> float:
    return min(max((value - ends[0]) / (ends[1] - ends[0]), 0.0), 1.0)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return words(text, x=x, y=y, text_anchor=anchor)


def _rounded(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else value
