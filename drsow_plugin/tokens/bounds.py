"""What a chat template may do in one rendering, and what its operations would make.

Sizes are in characters, or items of a list. An operation that can make much out of little is
asked for its size before it runs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import jinja2
from jinja2.utils import Namespace

MAX_STEPS = 2_000_000  # passes of loops, calls and filters
MAX_SECONDS = 2.0  # of the thread's own processor time
MAX_CHARACTERS = 1_000_000  # and ten times what the conversation has
MAX_BITS = 65_536  # of a whole number


class BoundsError(jinja2.TemplateError):
    """A template runs for too long or makes too much."""


class Budget:
    """What one rendering may still do."""

    def __init__(self, characters: int) -> None:
        """Begin, for a conversation of so many characters."""
        self._characters = MAX_CHARACTERS + 10 * characters
        self._steps = 0
        self._end = time.thread_time() + MAX_SECONDS

    def step(self) -> None:
        """Count a step.

        Raises:
            BoundsError: It is one too many.
        """
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise BoundsError(f"it takes more than {MAX_STEPS:,} steps")
        if not self._steps % 64 and time.thread_time() > self._end:
            raise BoundsError(f"it takes more than {MAX_SECONDS:g} seconds")

    def fit(self, size: int) -> None:
        """Check a size.

        Raises:
            BoundsError: It is too much.
        """
        if size > self._characters:
            raise BoundsError(f"it makes a text or a list longer than {self._characters:,}")


current: ContextVar[Budget] = ContextVar("budget")
"""The budget of the rendering that is under way."""


def size_of(value: Any, budget: Budget | None = None) -> int:
    """Return how long a value is as a text, about; a list inside of others as often as met.

    Raises:
        BoundsError: It is longer than the budget, where there is one.
    """
    if isinstance(value, (str, bytes)):
        return len(value)
    total, left = 0, [value]
    while left:
        item = left.pop()
        total += 1
        if isinstance(item, (str, bytes)):
            total += len(item)
        elif isinstance(item, dict):
            left.extend((*item, *item.values()))
        elif isinstance(item, (list, tuple, set, frozenset)):
            left.extend(item)
        elif isinstance(item, Namespace):
            left.append(getattr(item, "_Namespace__attrs"))  # noqa: B009 (not of this class)
        elif isinstance(item, int):
            total += item.bit_length() // 3
        if budget is not None:
            budget.fit(total)
    return total


def fit_operation(operator: str, left: Any, right: Any) -> None:
    """Check what ``+``, ``*``, ``**`` or ``%`` would make."""
    budget = current.get()
    if operator == "%":
        if isinstance(left, (str, bytes)):
            _fit_format(str(left), right if isinstance(right, tuple) else (right,))
    elif isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * (abs(right) if operator == "**" else 1) + right.bit_length()
        if bits > MAX_BITS:
            raise BoundsError(f"it makes a number of more than {MAX_BITS:,} bits")
    elif operator == "+":
        budget.fit(size_of(left, budget) + size_of(right, budget))
    elif operator == "*":
        budget.fit(size_of(left, budget) * right if isinstance(right, int) else 0)
        budget.fit(size_of(right, budget) * left if isinstance(left, int) else 0)


def fit_call(name: str, value: Any, args: Sequence[Any]) -> Any:
    """Check what a filter, or a method of a text or a number, would make of a value.

    Args:
        name: The filter's or the method's.
        value: What it is put to; the parts of a ``join``.
        args: Its arguments; the separator of a ``join``.

    Returns:
        The value; a list in place of an iterator.
    """
    budget = current.get()
    if isinstance(value, Iterator):
        value = list(value)
    size, texts, number = size_of(value, budget), sum(map(_length, args)), _largest(args)
    if name in ("format", "format_map"):
        _fit_format(str(value), args)
    elif name == "replace" and len(args) > 1:
        is_bytes = isinstance(value, bytes)
        times = value.count(args[0]) if is_bytes else str(value).count(str(args[0]))
        budget.fit(size + times * _length(args[1]))
    elif name == "join":
        budget.fit(size + _length(value) * texts)
    elif name == "indent":
        budget.fit(size + (str(value).count("\n") + 1) * (texts + number))
    elif name == "translate":
        budget.fit(size * size_of(args, budget))
    elif name == "tojson":
        budget.fit(size * (1 + number + texts))
    elif name == "expandtabs":
        budget.fit(size * (8 + number))
    else:  # others may pad, cut or repeat to a length
        budget.fit(number)
    return value


def _fit_format(text: str, values: Sequence[Any]) -> None:
    """Check a text with places for values, each of which may be repeated and padded."""
    budget = current.get()
    width = max((int(digits[:9]) for digits in re.findall(r"\d+", text)), default=0)
    if "*" in text or re.search(r"\{[^}]*\{", text):  # a value may be a width
        width = max(width, _largest(values))
    places = text.count("%") + text.count("{")
    budget.fit(len(text) + places * (size_of(values, budget) + width))


def _largest(values: Sequence[Any]) -> int:
    return max((abs(number) for number in values if isinstance(number, int)), default=0)


def _length(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 0
