"""Preference pairs as token ids, in parts: what ``train_pair.py`` trains on.

Rows are split by a hash of the conversation's first message, so that no prompt is in two parts;
the part ``final`` is for a last measurement and is never read here.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from drsow_plugin import DataError, LanguageModel
from drsow_plugin.models.language_model import ModelRow
from drsow_plugin.prompts import Preference, as_messages, as_preference


@dataclass(frozen=True)
class Limits:
    """Which rows are used.

    Attributes:
        prompt_tokens: The oldest turns of a longer prompt are left out.
        response_tokens: Rows with a longer response are left out.
        row_tokens: Rows with more tokens (prompt and both responses) are left out.
    """

    prompt_tokens: int = 144
    response_tokens: int = 160
    row_tokens: int = 220


@dataclass(frozen=True)
class Tokens:
    """A prompt and the two responses that follow it, as one side's token ids."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.chosen) + len(self.rejected)


@dataclass(frozen=True)
class Row:
    """A pair as both sides read it, the file it is from, and its part."""

    source: str
    part: str
    strong: Tokens
    weak: Tokens


def part_of(pair: Preference) -> str:
    """Return the part a row belongs to: 70 % train, 10 % tune, 20 % final."""
    first = str(pair.prompt[0]["content"]).encode()
    percent = int(hashlib.sha256(first).hexdigest(), 16) % 100
    return "train" if percent < 70 else "tune" if percent < 80 else "final"


def read_pairs(path: Path) -> Iterator[Preference]:
    """Yield the preference pairs of a JSON Lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            yield as_preference(json.loads(line), f"{path.name}, row {number}")


def tokenize(side: LanguageModel, pair: Preference) -> Tokens:
    """Return a pair as a side scores it."""
    asked = [
        ModelRow.read(list(pair.prompt), text, "a row") for text in (pair.chosen, pair.rejected)
    ]
    chosen, rejected = side.tokenize(asked)
    if isinstance(chosen, DataError) or isinstance(rejected, DataError):
        raise DataError(f"A row cannot be scored: {chosen}, {rejected}.")
    return Tokens(chosen.prompt_ids, chosen.response_ids, rejected.response_ids)


def shortened(strong: LanguageModel, pair: Preference, limit: int) -> Preference:
    """Return a pair without the oldest turns of a prompt of more tokens than the limit."""
    while len(tokenize(strong, pair).prompt) > limit and len(pair.prompt) > 2:
        turns = as_messages(list(pair.prompt[2:]), "a row")  # without a question and its answer
        pair = replace(pair, prompt=turns)
    return pair


def read_rows(paths: Sequence[Path], settings: Limits) -> list[Row]:
    """Return the rows of the parts train and tune that are not too long."""
    strong, weak = LanguageModel("demo"), LanguageModel("demo", template="none")
    rows = []
    for path in paths:
        for pair in read_pairs(path):
            part = part_of(pair)
            if part == "final":
                continue
            pair = shortened(strong, pair, settings.prompt_tokens)
            row = Row(path.name, part, tokenize(strong, pair), tokenize(weak, pair))
            longest = max(len(row.strong.chosen), len(row.strong.rejected))
            if len(row.strong) <= settings.row_tokens and longest <= settings.response_tokens:
                rows.append(row)
    return rows
