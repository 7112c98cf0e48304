"""What came out of two runs over the same rows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from drsow_plugin.bootstrap import Estimate

ALL = "all"
MCNEMAR, SIGNS = "McNemar, exact", "signs of prompts exchanged"


@dataclass(frozen=True)
class Part:
    """Two runs on some rows.

    Attributes:
        name: What part of the data it is; ``all`` for all of it.
        rows: How many rows both have.
        prompts: How many prompts.
        first: Accuracy of the first run: share of the rows whose best response has a higher
            reward than all others. A tie is lost.
        second: Accuracy of the second one.
        difference: The first minus the second, with the interval of a bootstrap over prompts.
        first_alone: Rows that the first run alone gets right.
        second_alone: Rows that the second run alone gets right.
        p: Probability of a difference as large where both are equally good. Where each prompt has
            one row it is that of McNemar's exact test, else of a test that exchanges the two runs
            prompt by prompt, which is the same where each has one row.
        p_adjusted: The same among all parts of the data, by Benjamini and Hochberg's procedure;
            ``None`` for all rows.
        test: Which of the tests it was.
    """

    name: str
    rows: int
    prompts: int
    first: Estimate
    second: Estimate
    difference: Estimate
    first_alone: int
    second_alone: int
    p: float
    p_adjusted: float | None
    test: str


@dataclass(frozen=True)
class Difference:
    """A row that one of two runs gets right.

    Attributes:
        first_place: Where it is in the first run.
        second_place: Where it is in the second one.
        first_margin: Margin in the first run, nats: highest reward of the best responses minus
            highest reward of the others.
        second_margin: The same in the second run.
        subsets: The parts of the data that it is of.
    """

    first_place: int
    second_place: int
    first_margin: float
    second_margin: float
    subsets: Sequence[str]


@dataclass(frozen=True)
class Comparison:
    """What came out of two runs.

    Attributes:
        names: What the runs are called.
        whole: Both on all rows that they share.
        parts: By part of the data, where it has several.
        only: Rows that the one run has and the other has not, of each.
        missing: Rows of each that are left out because a reward is missing.
        unlabelled: Rows of each without a better response.
        ties: Rows that both have, of which the margin is 0, in each run.
        share: Share of the rows that were read, the same ones of both; 1 for all.
        length_controlled: Whether the rewards were length-controlled.
        differing: The rows that one of them gets right, those first whose margins differ most.
    """

    names: tuple[str, str]
    whole: Part
    parts: Sequence[Part]
    only: tuple[int, int]
    missing: tuple[int, int]
    unlabelled: tuple[int, int]
    ties: tuple[int, int]
    share: float
    length_controlled: bool
    differing: Sequence[Difference]

    def values(self) -> dict[str, Any]:
        """Return plain values, without the rows that differ."""
        values = asdict(self)
        values["differing"] = len(self.differing)
        return values

    def __str__(self) -> str:
        """Return it as lines for a terminal."""
        lines = []
        if self.share < 1:
            lines.append(f"a random sample: {self.share:.2%} of the rows, by a hash of them")
        if self.length_controlled:
            lines.append("rewards are length-controlled")
        whole = self.whole
        for letter, name, accuracy in zip(
            "AB", self.names, (whole.first, whole.second), strict=True
        ):
            lines.append(f"{letter}  {_percent(accuracy)}  {name}")
        lines.append(f"{whole.rows:,} rows of both, {whole.prompts:,} prompts")
        for words, numbers in (
            ("in one run only", self.only),
            ("without a reward", self.missing),
            ("without a better response", self.unlabelled),
            ("tied, which is lost", self.ties),
        ):
            if any(numbers):
                lines.append(f"  {words}: A {numbers[0]:,}, B {numbers[1]:,}")
        lines += ["", f"{'A - B':30}{'difference':30}{'p':>9}   right in A alone, in B alone"]
        for part in (whole, *self.parts):
            difference = part.difference
            ends = _signed(difference)
            p = _p_value(part.p) if part.p_adjusted is None else f"{_p_value(part.p_adjusted)} *"
            alone = f"{part.first_alone:,}, {part.second_alone:,} of {part.rows:,}"
            lines.append(f"{part.name:30}{ends:30}{p:>9}   {alone}")
        lines.append(f"p: {whole.test}")
        if self.parts:
            lines.append("*: adjusted for the number of parts, by Benjamini and Hochberg")
        return "\n".join(lines)


def _p_value(p: float) -> str:
    return f"{p:.2g}" if p >= sys.float_info.min else f"<{sys.float_info.min:.1g}"


def _percent(found: Estimate) -> str:
    ends = "" if found.low is None else f" ({found.low:.1%} to {found.high:.1%})"
    return f"{found.value:.1%}{ends}"


def _signed(found: Estimate) -> str:
    ends = "" if found.low is None else f" ({found.low:+.1%} to {found.high:+.1%})"
    return f"{found.value:+.1%}{ends}"
