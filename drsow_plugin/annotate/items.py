"""One row of a data set as a prompt and the responses to it."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from drsow_plugin.annotate.layout import Layout
from drsow_plugin.errors import DataError
from drsow_plugin.hashing import text_key
from drsow_plugin.prompts import (
    Messages,
    as_messages,
    as_preference,
    check_no_calls,
    check_text,
    response_text,
    unscored,
)
from drsow_plugin.records import BAD_ROW, Message, Problem, Reward

Rewards = list[list[Reward | None]]
"""For each row a reward for each response; ``None`` for a missing response."""

# Where a candidate is a record, the keys of its text and of its rating, as in UltraFeedback.
_RATING_KEYS = ("overall_score", "rating", "score")
_TEXT_KEYS = ("response", "completion", "generation", "text", "content")


@dataclass(frozen=True)
class Item:
    """A prompt and the responses to it.

    Attributes:
        prompt: The messages that the responses follow, checked.
        responses: The texts; ``None`` for a candidate that has none.
        problem: Why the row cannot be read, or ``None``.
        domain: What the data names as the prompt's domain, or ``None``.
        notes: What of the responses is not scored.
    """

    prompt: Sequence[Message] = ()
    responses: tuple[str | None, ...] = ()
    problem: Problem | None = None
    domain: str | None = None
    notes: tuple[str, ...] = ()

    def prompt_key(self, row: int) -> int:
        """Return a hash of the prompt; one that could not be read is that row's own."""
        if self.problem is not None:
            return text_key(f"row {row}")
        return text_key(json.dumps(list(self.prompt), sort_keys=True, default=str))

    def content(self) -> str:
        """Return all that decides the rewards as one text, the same for the same content."""
        domain = [self.domain] if self.domain else []
        whole = [self.prompt, self.responses, *domain]
        return json.dumps(whole, sort_keys=True, ensure_ascii=True, default=str)


class NumberingError(DataError):
    """A label is a number that neither response has, so what the others mean cannot be told."""


def read_rows(batch: Mapping[str, Sequence[Any]], layout: Layout, first_row: int = 0) -> list[Item]:
    """Return the rows of a batch; one that cannot be read says why.

    Args:
        batch: Columns of rows.
        layout: Which of them are read.
        first_row: How to number the rows in an error.

    Raises:
        NumberingError: The labels count the responses otherwise than the columns' names do.
    """
    length = len(batch[layout.responses[0]])
    return [
        _read({name: batch[name][row] for name in layout.columns}, layout, first_row + row)
        for row in range(length)
    ]


def _read(row: Mapping[str, Any], layout: Layout, number: int) -> Item:
    try:
        item = replace(_item(row, layout), notes=_notes(row, layout))
        return item if layout.domain is None else replace(item, domain=_domain(row[layout.domain]))
    except NumberingError as error:
        raise NumberingError(f"row {number}: {error}") from error
    except DataError as error:
        return Item(problem=Problem.of(error, ""))
    except Exception as error:  # whatever a row holds, the others are read
        return Item(problem=Problem(BAD_ROW, f"cannot be read: {type(error).__name__}: {error}"))


def _item(row: Mapping[str, Any], layout: Layout) -> Item:
    if layout.kind == "pairs":
        return _pair(row, layout)
    if layout.kind == "candidates":
        return _candidates(row, layout)
    response = row[layout.responses[0]]
    if layout.prompt is None:
        return _conversation(response)
    prompt = as_messages(_prompt(row, layout), "")
    return Item(prompt, (_text(response, "the response"),))


def _notes(row: Mapping[str, Any], layout: Layout) -> tuple[str, ...]:
    """Return what of a row's responses is not scored."""
    responses = [row[name] for name in layout.responses]
    if layout.kind == "candidates":
        responses = listed(responses[0])
    return tuple(dict.fromkeys(note for response in responses for note in unscored(response)))


def _conversation(turns: Any) -> Item:
    """Return a conversation as a prompt and its last turn, which is the response."""
    if not isinstance(turns, list):
        raise DataError(
            f"without a prompt column the response is a conversation, got {type(turns).__name__}."
        )
    messages = as_messages(turns, "")
    response = response_text(messages[-1:], "the last turn")
    return Item(Messages(messages[:-1]), (response,))


def _domain(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise DataError(f"the domain is the name of one, got {value!r:.80}.")
    return value or None


def _pair(row: Mapping[str, Any], layout: Layout) -> Item:
    first, second = (row[name] for name in layout.responses)
    if layout.label is not None and second_is_better(row[layout.label], layout.responses):
        first, second = second, first
    values = {"chosen": first, "rejected": second}
    if layout.prompt is not None:
        values["prompt"] = _prompt(row, layout)
    pair = as_preference(values, "")
    for name in ("chosen", "rejected"):
        check_text(getattr(pair, name), name)
    return Item(pair.prompt, (pair.chosen, pair.rejected))


def _candidates(row: Mapping[str, Any], layout: Layout) -> Item:
    values = listed(row[layout.responses[0]])
    if not isinstance(values, list):
        raise DataError(f"the responses are a list, got {type(values).__name__}.")
    prompt = as_messages(_prompt(row, layout), "")
    responses = tuple(
        None if value is None else _text(value, f"response {position}")
        for position, value in enumerate(values)
    )
    return Item(prompt, responses)


def listed(value: Any) -> Any:
    """Return a list that stands as JSON in a text, as in the cells of a csv file, as that list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value


def _prompt(row: Mapping[str, Any], layout: Layout) -> Any:
    prompt = row[layout.prompt or "prompt"]
    if prompt is None:
        raise DataError("the prompt is missing.")
    about = row[layout.input] if layout.input is not None else None
    if about is not None and not isinstance(about, str):
        raise DataError(f"the {layout.input} is a text, got {type(about).__name__}.")
    if about and isinstance(prompt, str):
        return f"{prompt}\n\n{about}"
    return prompt


_TIES = ("tie", "tie (bothbad)", "both", "neither", "same", "")
_END = re.compile(r"(?:\d+|.)\Z", re.DOTALL)


def second_is_better(label: Any, responses: Sequence[str]) -> bool:
    """Tell which of two responses a label calls the better one.

    Args:
        label: The name of its column, the end of that (``a`` or ``b``, ``0`` or ``1``), that
            with ``model_`` before it, or ``a>b``.
        responses: The two columns.

    Raises:
        NumberingError: It is a number that no column ends in.
        DataError: It says neither.
    """
    first, other = responses
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    name = str("" if label is None else label).strip(" []").lower()
    name = name.partition(">")[0].strip()
    for second, names in enumerate(_names(first, other)):
        if name in names:
            return bool(second)
    if name.removeprefix("-").isdecimal():
        raise NumberingError(
            f"the label is {label!r:.40}, and neither {first!r} nor {other!r} ends in that number, "
            "so what the numbers of the other rows stand for is not known either. Give labels that "
            f"are names, such as {other!r} (and 'tie' where neither is better), or rename the "
            "columns to end in the numbers."
        )
    why = "says neither" if name in _TIES else f"is {label!r:.40}"
    raise DataError(
        f"the label {why}: needed is {first!r} or {other!r}, or the last letter of one of them."
    )


def _names(first: str, other: str) -> tuple[set[str], set[str]]:
    """Return what each of two columns may be called in a label."""
    names = ({first.lower()}, {other.lower()})
    ends = [_END.findall(column.lower())[0] for column in (first, other)]
    if ends[0] != ends[1]:
        for aliases, end in zip(names, ends, strict=True):
            aliases.update((end, f"model_{end}", f"response_{end}"))
    return names


def _text(value: Any, where: str) -> str:
    """Return a response, given as a text, as a record with a text, or as one message."""
    if isinstance(value, Mapping):
        check_no_calls(value, where)
        key = next((k for k in _TEXT_KEYS if isinstance(value.get(k), str)), None)
        if key is None:
            raise DataError(
                f"{where} is a record without a text; it has {', '.join(value)}, and needed is "
                f"one of {', '.join(_TEXT_KEYS)}."
            )
        value = value[key]
    if not isinstance(value, (str, list)):
        raise DataError(f"{where} is a text, got {type(value).__name__}.")
    text = response_text(value, where)
    check_text(text, where)
    return text


def read_ratings(row: Mapping[str, Any], layout: Layout) -> list[float | None] | None:
    """Return a number for each candidate, from a column of lists or from records.

    Args:
        row: A row of candidates.
        layout: Its columns.

    Returns:
        The numbers, ``None`` where there is none; ``None`` in all where they do not go with
        the candidates.
    """
    responses = listed(row[layout.responses[0]])
    if not isinstance(responses, list):
        return None
    if layout.ratings is not None:
        ratings = listed(row[layout.ratings])
    else:
        records = [value if isinstance(value, Mapping) else {} for value in responses]
        ratings = [next((r[k] for k in _RATING_KEYS if k in r), None) for r in records]
    if not isinstance(ratings, list) or len(ratings) != len(responses):
        return None
    return [_rating(value) for value in ratings]


def _rating(value: object) -> float | None:
    """Return a rating as a number; UltraFeedback has them as texts, some of them ``N/A``."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def raise_first(items: Sequence[Item], rewards: Rewards, first_row: int = 0) -> None:
    """Raise for the first row that could not be scored.

    Args:
        items: The rows.
        rewards: Their rewards.
        first_row: How to number the rows.

    Raises:
        DataError: There is one.
    """
    for row, (item, of_row) in enumerate(zip(items, rewards, strict=True)):
        reasons = [str(item.problem or ""), *(reward.reason for reward in of_row if reward)]
        reason = next(filter(None, reasons), None)
        if reason:
            raise DataError(
                f"row {first_row + row}: {reason.rstrip('.')}. Fix or remove it, or set "
                "on_error=null."
            )
