"""Reads prompts, and refuses those that repeat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import datasets

from drsow_plugin.errors import DataError
from drsow_plugin.hashing import text_sha256
from drsow_plugin.prompts import as_messages
from drsow_plugin.records import Message, Problem

_NAMED = 3


@dataclass(frozen=True)
class AskedPrompt:
    """A prompt of a data set.

    Attributes:
        messages: The prompt; empty where it cannot be read.
        content: The same as a text; the reason where it cannot be read.
        where: What the row is called in an error.
        problem: Why it cannot be read, or ``None``.
    """

    messages: list[Message]
    content: str
    where: str
    problem: Problem | None = None


def read_prompts(data: datasets.Dataset, column: str, first: int = 0) -> Iterator[AskedPrompt]:
    """Yield the prompts of a data set, in order; the first row has that number."""
    for index, value in enumerate(data.select_columns([column]).with_format(None), first):
        where = f"row {index}"
        try:
            messages = as_messages(value[column], where)
            if not messages:
                raise DataError(f"{where}: the prompt has no message. Give one, or remove the row.")
        except DataError as error:
            problem = Problem.of(error, where)
            yield AskedPrompt([], str(problem), where, problem)
        else:
            plain = json.dumps(messages, sort_keys=True, ensure_ascii=True, default=str)
            yield AskedPrompt(messages, plain, where)


def check_prompts(
    data: datasets.Dataset, column: str, name: str, *, may_repeat: bool = False
) -> None:
    """Check that there are prompts, each once unless they may repeat, before anything is sampled.

    Raises:
        DataError: The column is missing, or prompts repeat.
    """
    if column not in data.column_names:
        raise DataError(
            f"{name} has no column {column!r}, only {', '.join(data.column_names)}. Name the one "
            "with the prompts with prompt_column=…."
        )
    if may_repeat:
        return
    seen: dict[str, int] = {}
    repeated: list[str] = []
    count = 0
    for index, prompt in enumerate(read_prompts(data, column)):
        if prompt.problem is None:
            first = seen.setdefault(text_sha256(prompt.content)[:32], index)
            if first != index:
                count += 1
                repeated += [f"row {index} repeats row {first}"][: _NAMED - len(repeated)]
    if count:
        more = f", and {count - len(repeated)} more" if count > len(repeated) else ""
        raise DataError(
            f"{name}: prompts repeat ({'; '.join(repeated)}{more}). Each is asked once: remove the "
            "repeats."
        )
