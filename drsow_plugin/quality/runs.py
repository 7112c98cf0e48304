"""Rows of a run, and the arrays that two runs are compared by."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from drsow_plugin.hashing import text_key
from drsow_plugin.records import Message

_KEYS = 1 << 64


@dataclass(frozen=True)
class RunRow:
    """One row of a run: responses to one prompt, of which some are the best.

    Attributes:
        prompt: The messages.
        responses: The texts.
        rewards: One for each; one that is not finite counts as missing.
        best: Which of them are the best.
        subsets: The parts of the data that it is of.
    """

    prompt: Sequence[Message]
    responses: Sequence[str]
    rewards: Sequence[float]
    best: Sequence[int]
    subsets: Sequence[str]

    def prompt_text(self) -> str:
        """Return the prompt as JSON, the same for the same messages."""
        return json.dumps(list(self.prompt), sort_keys=True, default=str)


class Run(Protocol):
    """Rows of one run, which may be read several times."""

    name: str

    def __len__(self) -> int:
        """Return how many rows there are; 0 where that is not known before they are read."""

    def rows(self, places: Sequence[int] | None = None) -> Iterator[tuple[int, RunRow | None]]:
        """Yield rows with their places; ``None`` for one of which no response is the better one.

        Args:
            places: Which rows, in order; ``None`` for all.
        """

    def names(self, places: Sequence[int]) -> dict[int, str]:
        """Return what rows are called, by their places."""


@dataclass(frozen=True)
class RunTable:
    """The rows of a run as arrays.

    Attributes:
        key: A hash of prompt and responses, and of which are the best, with how often these came
            before, (rows,).
        prompt: A hash of the prompt, (rows,).
        place: Where each row is in its run, (rows,).
        subsets: The parts of the data that each is of.
        first: Place of each row's first response among the rewards, (rows,).
        reward: Nats, (responses,).
        length: Characters, (responses,).
        best: Whether it is one of the best, (responses,).
        missing: Rows that are left out because a reward is missing.
        unlabelled: Rows that are left out because no response is the better one.
    """

    key: np.ndarray
    prompt: np.ndarray
    place: np.ndarray
    subsets: Sequence[Sequence[str]]
    first: np.ndarray
    reward: np.ndarray
    length: np.ndarray
    best: np.ndarray
    missing: int
    unlabelled: int

    def __len__(self) -> int:
        return len(self.key)

    def margins(self, reward: np.ndarray) -> np.ndarray:
        """Return the highest reward of the best minus the highest of the others, (rows,)."""
        if not len(self):
            return np.zeros(0)
        best, others = (
            np.maximum.reduceat(np.where(mask, reward, -np.inf), self.first)
            for mask in (self.best, ~self.best)
        )
        return np.asarray(best - others)

    def row_of(self) -> np.ndarray:
        """Return the row that each response is of, (responses,)."""
        sizes = np.diff([*self.first, len(self.reward)])
        return np.repeat(np.arange(len(self)), sizes)


def read_run(run: Run, share: float = 1.0) -> RunTable:
    """Read a run.

    Args:
        run: The run.
        share: Of its rows, 0 to 1, that are read: the same ones in every run that has them, as a
            hash of them says.
    """
    key, prompt, place, first = array("Q"), array("Q"), array("q"), array("q")
    reward, length, best = array("d"), array("q"), array("b")
    subsets: list[tuple[str, ...]] = []
    seen: dict[int, int] = {}
    missing = unlabelled = 0
    limit = int(share * _KEYS)
    for number, row in run.rows():
        if row is None or not 0 < len(set(row.best)) < len(row.responses):
            unlabelled += 1
            continue
        text = row.prompt_text()
        own = text_key(json.dumps([text, list(row.responses), sorted(set(row.best))]))
        if own >= limit:
            continue
        if not all(map(math.isfinite, row.rewards)):
            missing += 1
            continue
        seen[own] = before = seen.get(own, -1) + 1
        key.append(text_key(f"{own} {before}") if before else own)
        prompt.append(text_key(text))
        place.append(number)
        first.append(len(reward))
        reward.extend(map(float, row.rewards))
        length.extend(map(len, row.responses))
        best.extend(int(at in row.best) for at in range(len(row.responses)))
        subsets.append(tuple(row.subsets))
    return RunTable(
        key=np.array(key),
        prompt=np.array(prompt),
        place=np.array(place),
        subsets=subsets,
        first=np.array(first),
        reward=np.array(reward),
        length=np.array(length),
        best=np.array(best, dtype=bool),
        missing=missing,
        unlabelled=unlabelled,
    )
