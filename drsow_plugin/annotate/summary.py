"""Counts labelled rows as they come, and says what became of them."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from drsow_plugin.annotate.columns import Status
from drsow_plugin.annotate.items import read_ratings
from drsow_plugin.annotate.layout import Layout
from drsow_plugin.annotate.options import LabelConfig
from drsow_plugin.annotate.statistics import Statistics
from drsow_plugin.errors import DataError
from drsow_plugin.printable import printable
from drsow_plugin.progress import tell
from drsow_plugin.records import BAD_ROW, NO_DOMAIN, Problem
from drsow_plugin.stats import Correlation, Share, quantiles

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_GROUPS = 200
_FAILURES = 3
_LONGEST_REASON = 200  # characters
_POINTS = 20_000  # of reward against length, in the plot

Columns = Mapping[str, Sequence[Any]]
Ratings = list[float | None] | None


class Summary:
    """Counts rows as they come; holds a few numbers a row, and a sample for the plot."""

    def __init__(self, layout: Layout, config: LabelConfig) -> None:
        """Start at nothing.

        Args:
            layout: The columns that are read.
            config: How the rows are labelled.
        """
        self._layout = layout
        self._whole = replace(layout, routed=False)  # of a part no parts are counted
        self._prefix = config.prefix
        self.rows = self.seen = self._scored = self._pairs = self._swapped = 0
        self._dropped: Counter[str] = Counter()
        self._accuracy, self._longer, self._chosen_longer = Share(), Share(), Share()
        self._correlation = Correlation()
        self.margins = array("d")
        self.points = (array("d"), array("d"))
        self._random = random.Random(0)
        self._groups: dict[str, Summary] = {}
        self._domains: dict[str, Summary] = {}
        self._agreement = Share()
        self._config = config
        self.failures: list[tuple[int, str]] = []  # the first few: number of the row, status

    def add(self, data: Columns, labels: Columns, prompts: Sequence[int] | None = None) -> None:
        """Count a batch.

        Args:
            data: The columns that were read.
            labels: The columns that were added.
            prompts: A hash of the prompt of each row, by which intervals are drawn; without, each
                row has a prompt of its own.
        """
        group = self._layout.group
        for row in range(len(labels[f"{self._prefix}status"])):
            prompt = self.rows if prompts is None else prompts[row]
            values = {name: column[row] for name, column in labels.items()}
            ratings = None
            if self._layout.kind == "candidates":
                names = self._layout.columns
                ratings = read_ratings({name: data[name][row] for name in names}, self._layout)
            self._add(values, ratings, prompt)
            if self._layout.routed:
                self._add_domain(values, ratings, prompt, self._named_domain(data, row))
            if group is not None:
                name = str(data[group][row])
                if name not in self._groups:
                    if len(self._groups) >= MOST_GROUPS:
                        raise DataError(
                            f"group_column={group!r} has more than {MOST_GROUPS} values, too many "
                            "for a summary of each. Name a column with fewer."
                        )
                    self._groups[name] = Summary(self._whole, self._config)
                self._groups[name]._add(values, ratings, prompt)

    def statistics(self) -> Statistics:
        """Return the statistics of the rows so far."""
        routed = self._layout.routed
        return Statistics(
            rows=self.rows,
            scored=self._scored,
            pairs=self._pairs if self._layout.kind != "single" else None,
            dropped=dict(self._dropped.most_common()),
            swapped=self._swapped,
            accuracy=self._accuracy.proportion(),
            longer=self._longer.proportion(),
            chosen_longer=self._chosen_longer.proportion(),
            margin_quantiles=quantiles(self.margins, _QUANTILES),
            length_correlation=self._correlation.value(),
            groups=_statistics_of(self._groups) if self._groups else None,
            domains=_statistics_of(self._domains) if routed else None,
            agreement=self._agreement.proportion() if routed else None,
        )

    def _named_domain(self, data: Columns, row: int) -> Any:
        """Return the domain that the data names for a row, if the router is compared with that."""
        compared = self._layout.domain if self._layout.compared else None
        return data[compared][row] if compared else None

    def _add_domain(
        self, values: Mapping[str, Any], ratings: Ratings, prompt: int, label: Any
    ) -> None:
        """Count a row for its domain, and compare that with what the data names."""
        domain = values[f"{self._prefix}domain"]
        name = NO_DOMAIN if domain is None else str(domain)
        if name not in self._domains:
            self._domains[name] = Summary(self._whole, self._config)
        self._domains[name]._add(values, ratings, prompt)
        failure = self._failure(values)
        if label and not (failure and failure.kind == BAD_ROW):
            self._agreement.add(float(label == domain), prompt)

    def _failure(self, values: Mapping[str, Any]) -> Problem | None:
        return Status.parse(values[f"{self._prefix}status"]).failure

    def _add(self, values: Mapping[str, Any], ratings: Ratings, prompt: int) -> None:
        self.rows += 1
        failure = self._failure(values)
        if failure is not None:
            self._dropped[failure.kind] += 1
            if len(self.failures) < _FAILURES:
                self.failures.append((self.rows - 1, str(failure)))
        rewards, lengths = self._responses_of(values)
        if rewards:
            self._scored += 1
            self._add_lengths(rewards, lengths)
        if self._layout.kind == "pairs" and values[f"{self._prefix}margin"] is not None:
            self._add_pair(values, prompt, usable=failure is None)
        elif failure is None and self._layout.kind == "candidates":
            self._add_selected(values, ratings, prompt)

    def _responses_of(self, values: Mapping[str, Any]) -> tuple[list[float], list[float]]:
        """Return the rewards of a row, and the lengths that go with them in tokens."""
        own = {n.removeprefix(self._prefix): v for n, v in values.items()}
        if self._layout.kind == "candidates":
            pairs = list(zip(own["rewards"], own["strong_tokens"], strict=True))
        elif self._layout.kind == "pairs":
            sides = ("chosen", "rejected")
            pairs = [(own[f"{s}_reward"], own[f"{s}_strong_tokens"]) for s in sides]
        else:
            pairs = [(own["reward"], own["strong_tokens"])]
        pairs = [(reward, length) for reward, length in pairs if reward is not None]
        return [reward for reward, _ in pairs], [length for _, length in pairs]

    def _add_lengths(self, rewards: list[float], lengths: list[float]) -> None:
        centred = self._layout.kind != "single"
        if not centred or len(rewards) > 1:
            self._correlation.add(lengths, rewards, centred=centred)
        for reward, length in zip(rewards, lengths, strict=True):
            self.seen += 1
            place = len(self.points[0])
            if place >= _POINTS:  # a fair sample of all of them
                place = self._random.randrange(self.seen)
                if place >= _POINTS:
                    continue
                self.points[0][place], self.points[1][place] = length, reward
            else:
                self.points[0].append(length)
                self.points[1].append(reward)

    def _add_pair(self, values: Mapping[str, Any], prompt: int, *, usable: bool) -> None:
        """Count a scored pair; the labels are compared whether or not it is left out."""
        margin = values[f"{self._prefix}margin"]
        swapped = bool(values.get(f"{self._prefix}swapped"))
        sides = ("chosen", "rejected")
        longer = _compare(*(values[f"{self._prefix}{side}_strong_tokens"] for side in sides))
        if usable:
            self._count_pair(margin, longer, prompt)
            self._swapped += swapped
        self._accuracy.add(float(margin > 0 and not swapped), prompt, tie=margin == 0)
        self._longer.add(1 - longer if swapped else longer, prompt)

    def _add_selected(self, values: Mapping[str, Any], ratings: Ratings, prompt: int) -> None:
        lengths = values[f"{self._prefix}strong_tokens"]
        chosen = values[f"{self._prefix}chosen_index"]
        rejected = values[f"{self._prefix}rejected_index"]
        longer = _compare(lengths[chosen], lengths[rejected])
        self._count_pair(values[f"{self._prefix}margin"], longer, prompt)
        if ratings is None:
            return
        better = _compare(ratings[chosen], ratings[rejected])
        if better is None:
            return
        if better == 0.5:
            self._accuracy.leave_out_tie()  # the labels do not say
            return
        self._accuracy.add(better, prompt)
        self._longer.add(longer if better == 1 else 1 - longer, prompt)

    def _count_pair(self, margin: float, longer: float, prompt: int) -> None:
        self._pairs += 1
        self.margins.append(margin)
        self._chosen_longer.add(longer, prompt)


def nothing_labelled(summaries: Mapping[str, Summary]) -> str:
    """Return what to say where no row of any split could be labelled: the first reasons."""
    rows = sum(summary.rows for summary in summaries.values())
    more = f"; and {rows - _FAILURES} more" if rows > _FAILURES else ""
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
    for place, status in failures[:_FAILURES]:
        short = status if len(status) <= _LONGEST_REASON else f"{status[:_LONGEST_REASON]}…"
        reasons.setdefault(short, []).append(place)
    return "; ".join(f"{', '.join(places)}: {status}" for status, places in reasons.items())


def _statistics_of(parts: Mapping[str, Summary]) -> dict[str, Statistics]:
    return {name: part.statistics() for name, part in sorted(parts.items())}


def _compare(first: Any, second: Any) -> Any:
    """Return 1 where the first is more, 0 where it is less, 0.5 where they are the same."""
    if first is None or second is None:
        return None
    return 0.5 if first == second else float(first > second)
