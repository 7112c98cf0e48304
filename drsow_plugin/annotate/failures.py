"""What is said of rows that could not be labelled."""

from __future__ import annotations

from collections.abc import Mapping

from drsow_plugin.annotate.summary import FAILURES, Summary
from drsow_plugin.printable import printable
from drsow_plugin.progress import tell

_LONGEST = 200  # characters of a reason


def nothing_labelled(summaries: Mapping[str, Summary]) -> str:
    """Return what to say where no row of any split could be labelled: the first reasons."""
    rows = sum(summary.rows for summary in summaries.values())
    more = f"; and {rows - FAILURES} more" if rows > FAILURES else ""
    return (
        f"Not one of the {rows:,} rows could be labelled: {_first(summaries)}{more}. "
        "keep_unusable=true keeps them, with the reason for each in their status."
    )


def tell_left_out(summaries: Mapping[str, Summary]) -> None:
    """Say on stderr which rows are left out and why, the first few of them."""
    if any(summary.failures for summary in summaries.values()):
        tell(
            f"rows are left out: {printable(_first(summaries))}. keep_unusable=true keeps them, "
            "with the reason for each in their status."
        )


def _first(summaries: Mapping[str, Summary]) -> str:
    failures = [
        (f"row {row} of {name}" if len(summaries) > 1 else f"row {row}", status.rstrip("."))
        for name, summary in summaries.items()
        for row, status in summary.failures
    ]
    reasons: dict[str, list[str]] = {}
    for place, status in failures[:FAILURES]:
        short = status if len(status) <= _LONGEST else f"{status[:_LONGEST]}…"
        reasons.setdefault(short, []).append(place)
    return "; ".join(f"{', '.join(places)}: {status}" for status, places in reasons.items())
