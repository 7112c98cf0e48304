"""Writes what was measured as Markdown, between markers in a document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

README = Path(__file__).with_name("README.md")
NAMES = {
    "drsow": "drsow-plugin",
    "hf": "lm-eval `hf`, batch 8",
    "hf-auto": "lm-eval `hf`, batch auto",
    "trl": "TRL `compute_ref_log_probs`",
    "rewardbench": "RewardBench `DPOInference`",
}
HEAD = (
    *("method", "CPU s", "x ours", "rounds", "backbone positions", "/ unique", "head positions"),
    *("/ unique", "peak MB", "error", "shift", "/ floor"),
)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def write_section(document: Path, name: str, text: str) -> None:
    """Replace what is between the markers of a section; the rest of the document stays.

    Raises:
        SystemExit: The document has no such markers.
    """
    begin, end = (f"<!-- {name}: {word} -->" for word in ("begin", "end"))
    old = document.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(old):
        raise SystemExit(f"{document} has no section between {begin} and {end}. Add the two lines.")
    document.write_text(pattern.sub(lambda _: f"{begin}\n{text}\n{end}", old), encoding="utf-8")


def versions(*packages: str) -> str:
    """Return the installed versions of packages, for a caption."""
    found = []
    for name in packages:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def workload_table(turns: Mapping[str, Sequence[Mapping[str, Any]]], job: Mapping[str, Any]) -> str:
    """Return the table of one workload.

    Args:
        turns: For each method what it found in each round.
        job: ``unique`` (both models together), ``floor_s``, and for each method ``after_load_mb``,
            ``error`` and ``shift``.
    """
    ours = _seconds(turns["drsow"]) if _ran(turns.get("drsow", ())) else None
    return table(HEAD, [_line(name, found, job, ours) for name, found in turns.items()])


def _line(
    name: str, found: Sequence[Mapping[str, Any]], job: Mapping[str, Any], ours: float | None
) -> list[str]:
    if not _ran(found):
        return [NAMES[name], f"not run: {found[0]['skipped']}", *[""] * (len(HEAD) - 2)]
    seconds, first, unique = _seconds(found), found[0], job["unique"]
    peak = max(turn["peak_mb"] for turn in found) - job["after_load_mb"][name]
    return [
        NAMES[name],
        f"{seconds:.1f}",
        f"{seconds / ours:.2f}" if ours else "",
        " ".join(f"{turn['cpu']:.1f}" for turn in found),
        f"{first['backbone']:,}",
        f"{first['backbone'] / unique.backbone:.2f}",
        f"{first['head']:,}",
        f"{first['head'] / unique.head:.2f}",
        f"{peak:,.0f}",
        _nats(job["error"].get(name)),
        _nats(job["shift"].get(name)),
        f"{seconds / job['floor_s']:.2f}",
    ]


def _ran(found: Sequence[Mapping[str, Any]]) -> bool:
    return bool(found) and "skipped" not in found[0]


def _seconds(found: Sequence[Mapping[str, Any]]) -> float:
    return median(turn["cpu"] for turn in found)


def _nats(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def best_of_table(columns: Mapping[str, Mapping[str, Any]], jobs: Mapping[str, Any]) -> str:
    """Return how work grows with the number of candidates, a row for each number."""
    methods = list(next(iter(columns.values())))
    head = ["candidates", "unique backbone", "unique head"]
    for name in methods:
        head += [f"{NAMES[name]}: CPU s", "backbone", "head"]
    lines = []
    for workload, turns in columns.items():
        unique = jobs[workload]["unique"]
        line = [workload.removeprefix("bestof"), f"{unique.backbone:,}", f"{unique.head:,}"]
        for name in methods:
            if _ran(turns[name]):
                first = turns[name][0]
                line += [
                    f"{_seconds(turns[name]):.1f}",
                    f"{first['backbone']:,}",
                    f"{first['head']:,}",
                ]
            else:
                line += ["not run", "", ""]
        lines.append(line)
    return table(head, lines)
