"""RewardBench 2: best of four in five subsets, and Ties, where several answers are right.

Source of the rules: ``reroll_and_score_dataset`` and ``process_single_model`` in the repository
``allenai/reward-bench``, and the data set's card for the mean of the six subsets. (The package
``rewardbench`` 0.1.4 leaves prompts without spread out of the mean of the margin, where the
repository has the limit, 1 or -1.)

    Ties = 0.3 tied + 0.3 ref + 0.2 preferred + 0.2 preferred, hard + 0.01 margin

where *spread* is the best minus the worst correct reward of a tied prompt, and *gap* the worst
correct minus the best wrong one:

    tied, ref          share of the tied, and of the reference prompts (one right answer), gap > 0
    preferred          share of tied prompts with gap > spread
    preferred, hard    the same with the smaller of its gap and that of its reference prompt
    margin             mean of tanh(that / spread - 1)
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np

from drsow_plugin.errors import DataError
from drsow_plugin.harness.benchmarks.loading import (
    SOURCE,
    Splits,
    candidates,
    check_subset,
    load_published,
    require_columns,
)
from drsow_plugin.harness.documents import Document, share_on_top
from drsow_plugin.harness.intervals import redrawn
from drsow_plugin.harness.subsets import Partial, Rule, Score, SubsetsTask, mean

METADATA = SOURCE

HUB_ID, SPLIT = "allenai/reward-bench-2", "test"
_COLUMNS = ("id", "prompt", "chosen", "rejected", "num_correct", "subset")
_TIES = "Ties"
_TIES_ID = re.compile(r"(ref|tied):(\d+)")

SIZES = {
    "Factuality": 475,
    "Precise IF": 160,
    "Math": 183,
    "Safety": 450,
    "Focus": 495,
    _TIES: 102,
}
"""The published rows of each subset."""

_DOMAINS = dict.fromkeys(SIZES, "chat") | {"Math": "reasoning", "Safety": "safety"}

Tied = tuple[str, int, float, float]
"""Of a document of Ties: ``ref`` or ``tied``, its number, spread and gap in nats."""


def count(doc: Document, rewards: Sequence[float]) -> dict[str, Any]:
    """Return what a document counts.

    In Ties its :data:`Tied`; else 1 where the chosen response has the highest reward, 1/n
    where n tie for it, and 0 where another one has or a reward is missing.
    """
    missing = any(map(math.isnan, rewards))
    if doc["subset"] == _TIES:
        kind, number = doc["id"].split(":")
        return {"score": (kind, int(number), *_spread_and_gap(rewards, doc["num_correct"]))}
    return {"score": 0.0 if missing else share_on_top(rewards, [0])}


def _spread_and_gap(rewards: Sequence[float], correct: int) -> tuple[float, float]:
    if any(map(math.isnan, rewards)):
        return math.nan, math.nan
    right, wrong = rewards[:correct], rewards[correct:]
    return max(right) - min(right), min(right) - max(wrong)


def ties_score(values: Sequence[Tied]) -> Score:
    """Return the score of Ties; ``Partial`` where no tied prompt has its reference prompt."""
    ref = {number: gap for kind, number, _, gap in values if kind == "ref"}
    tied = {number: (spread, gap) for kind, number, spread, gap in values if kind == "tied"}
    both = [(*tied[number], ref[number]) for number in tied if number in ref]
    if not both:
        return Partial()
    return (
        0.30 * mean(gap > 0 for _, gap in tied.values())
        + 0.30 * mean(gap > 0 for gap in ref.values())
        + 0.20 * mean(gap > spread for spread, gap, _ in both)
        + 0.20 * mean(_smaller(gap, other) > spread for spread, gap, other in both)
        + 0.01 * mean(_margin(_smaller(gap, other), spread) for spread, gap, other in both)
    )


def _smaller(gap: float, other: float) -> float:
    return math.nan if math.isnan(gap) or math.isnan(other) else min(gap, other)


def _margin(gap: float, spread: float) -> float:
    """Return tanh(gap / spread - 1) as numpy has it: of x/0 the limit, of 0/0 and NaN 0."""
    if math.isnan(gap) or math.isnan(spread) or gap == spread == 0:
        return 0.0
    return math.tanh(gap / spread - 1) if spread else math.copysign(1.0, gap)


def _of_subset(subset: str, values: Sequence[Any]) -> Score:
    return ties_score(values) if subset == _TIES else mean(values)


def redraw(values: Sequence[Tied], chance: np.random.Generator) -> list[Tied]:
    """Return documents of Ties, drawn by number: a tied prompt with its reference prompt."""
    of: dict[int, list[Tied]] = defaultdict(list)
    for value in values:
        of[value[1]].append(value)
    return [
        (kind, place, spread, gap)
        for place, number in enumerate(redrawn(sorted(of), chance))
        for kind, _, spread, gap in of[number]
    ]


RULE = Rule("RewardBench 2", SIZES, count, _of_subset, draw=redraw)


def load(**metadata: Any) -> Splits:
    """Load all subsets.

    Args:
        **metadata: ``data`` names a local copy, complete or not, instead of the Hub's.

    Raises:
        DataError: The data is empty or of another version.
    """
    loaded, name = load_published(HUB_ID, SPLIT, metadata, METADATA)
    require_columns(loaded, _COLUMNS, name, f"Give a copy of {HUB_ID}.")
    rows = [_row(row, f"{name}, row {index}") for index, row in enumerate(loaded)]
    _check_ties([row["id"] for row in rows if row["subset"] == _TIES], name)
    return {"test": datasets.Dataset.from_list(rows)}


def _row(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    subset = row["subset"]
    check_subset(subset, SIZES, where, "RewardBench 2")
    document = candidates(row, where, _DOMAINS[subset])
    if row["num_correct"] != document["num_correct"]:
        raise DataError(
            f"{where}: num_correct is {row['num_correct']!r:.80} and there are "
            f"{document['num_correct']} chosen responses. Give a copy of {HUB_ID}."
        )
    if subset == _TIES:
        found = _TIES_ID.fullmatch(str(row["id"]))
        if not found or (found[1] == "ref") != (row["num_correct"] == 1):
            raise DataError(
                f"{where}: an id in Ties is ref:NUMBER with one correct response or tied:NUMBER "
                f"with more, got {row['id']!r:.80} with {row['num_correct']}. Give a copy of "
                f"{HUB_ID}."
            )
    return {**document, "id": str(row["id"]), "subset": subset}


def _check_ties(ids: Sequence[str], name: str) -> None:
    twice = next((each for each in ids if ids.count(each) > 1), None)
    if twice is not None:
        raise DataError(f"{name}: the id {twice!r} is there twice in Ties. Give each row once.")


class RewardBench2Task(SubsetsTask):
    """All of RewardBench 2."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Score by RewardBench 2's rules."""
        super().__init__(config, RULE)
