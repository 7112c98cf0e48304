"""Figures as JSON, and as a Markdown table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from drsow_plugin.bootstrap import LEVEL
from drsow_plugin.pipeline.figures import ArmFigures, Figure
from drsow_plugin.printable import finite


def as_json(found: Sequence[ArmFigures], more: Mapping[str, Any]) -> str:
    """Return figures as JSON, beside what else is known of the run."""
    whole = finite({**more, "arms": [arm.values() for arm in found]})
    return json.dumps(whole, indent=1, allow_nan=False)


def as_table(found: Sequence[ArmFigures]) -> str:
    """Return figures as a Markdown table: an arm a row."""
    names = list(dict.fromkeys(figure.name for arm in found for figure in arm.figures))
    units = {figure.name: figure.unit for arm in found for figure in arm.figures}
    head = [f"{name} ({units[name]})" if units[name] else f"{name} (%)" for name in names]
    lines = ["| trained on | " + " | ".join(head) + " |", "| --- " * (len(names) + 1) + "|"]
    for arm in found:
        cells = {figure.name: _cell(figure) for figure in arm.figures}
        row = " | ".join(cells.get(name, "") for name in names)
        lines.append(f"| {arm.arm} | {row} |")
    percent = f"{LEVEL:.0%}".replace("%", " %")
    lines += ["", f"In parentheses: intervals of {percent}, over prompts and seeds."]
    return "\n".join(lines)


def as_seeds(found: Sequence[ArmFigures]) -> str:
    """Return each figure seed by seed, and less that of random labels, as a Markdown table."""
    lines = ["| trained on | figure | seeds | less random labels |", "| --- " * 4 + "|"]
    for arm in found:
        for figure in arm.figures:
            shown = _percent if not figure.unit else _signed
            seeds = ", ".join("none" if isnan(of) else shown(of) for of in figure.seeds)
            lines.append(f"| {arm.arm} | {figure.name} | {seeds} | {_less(figure)} |")
    return "\n".join(lines)


def _less(figure: Figure) -> str:
    less = figure.over_random
    if less is None:
        return ""
    factor, digits = (1, 2) if figure.unit else (100, 1)
    ends = (less.value, less.low, less.high)
    value, low, high = ("" if end is None else f"{factor * end:+.{digits}f}" for end in ends)
    return f"{value} ({low} to {high})" if low and high else value


def _cell(figure: Figure) -> str:
    shown = _percent if not figure.unit else _signed
    text = shown(figure.estimate.value)
    if figure.estimate.low is not None and figure.estimate.high is not None:
        text += f" ({shown(figure.estimate.low)} to {shown(figure.estimate.high)})"
    return text


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _signed(value: float) -> str:
    return f"{value:+.2f}"
