"""What turns rewards into columns: the part that all kinds of data have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from drsow_plugin.annotate.columns import (
    CONTROLLED,
    CONTROLLED_MARGIN,
    DOMAIN,
    PROBABILITY,
    STATUS,
    Schema,
    Status,
    conversation,
    domain_values,
    response_columns,
    response_value,
    row_notes,
)
from drsow_plugin.annotate.items import Item
from drsow_plugin.annotate.layout import PAIR, Layout
from drsow_plugin.annotate.options import LabelConfig
from drsow_plugin.errors import DataError
from drsow_plugin.prompts import as_messages
from drsow_plugin.records import Reward
from drsow_plugin.scoring.reward import probability

Batch = Mapping[str, Sequence[Any]]


@dataclass
class Labels:
    """What labelling makes of a batch.

    Attributes:
        columns: The columns that are added or replaced, one value a row.
        usable: For each row, whether it has what it was labelled for: a reward, or a pair.
        swapped: For each row, whether the values of the chosen and the rejected column are
            to be exchanged.
    """

    columns: dict[str, list[Any]] = field(default_factory=dict)
    usable: list[bool] = field(default_factory=list)
    swapped: list[bool] = field(default_factory=list)


@dataclass(frozen=True)
class Label:
    """What labelling makes of one row.

    Attributes:
        values: What is added or replaced, but for the columns that all kinds of data get.
        status: How it went.
        swapped: See :class:`Labels`.
    """

    values: dict[str, Any]
    status: Status
    swapped: bool = False


class Labeller(ABC):
    """Turns rewards into columns; one subclass for each kind of data set."""

    writes_messages = False
    """Whether prompt and responses are written as messages of role and content alone."""

    def __init__(
        self, layout: Layout, config: LabelConfig, batch: Batch, types: pa.Schema | None = None
    ) -> None:
        """Settle which columns are written.

        Args:
            layout: The columns that are read.
            config: How to label.
            batch: Some rows, to see of which shape the columns are.
            types: The Arrow types, where they are known, for columns without a value there.
        """
        self.layout = layout
        self.config = config
        controlled = config.length_slope is not None
        self.per_response = response_columns(config.token_logprobs, controlled)
        self._of_row = (DOMAIN if layout.routed else {}) | STATUS
        prompt = None if layout.prompt is None else _is_text(batch, layout.prompt, types)
        response = _is_text(batch, layout.responses[0], types)
        self.text_prompt = (
            bool(response if prompt is None else prompt) and layout.prompt is not None
        )
        self.text_response = bool(prompt if response is None else response)

    def schema(self) -> Schema:
        """Return the columns that are added or replaced."""
        columns = self._added() | self._of_row | self._written()
        return {self._name(name): column for name, column in columns.items()}

    def renames(self) -> dict[str, str]:
        """Return the columns that are written as they are under another name, with that name."""
        return {}

    def superseded(self) -> list[str]:
        """Return the columns that are there again under another name."""
        return list(self.renames())

    def check_free(self, columns: Sequence[str]) -> None:
        """Check that no column is there that would be added.

        Raises:
            DataError: One is.
        """
        written = {*self.schema(), *self.renames().values()}
        taken = written & set(columns) - set(self.layout.columns)
        if taken:
            keep = ", or keep_names=true" if self.renames() else ""
            raise DataError(
                f"The data has columns that would be written: {', '.join(sorted(taken))}. Remove "
                f"or rename them, or give another prefix=… for ours{keep}."
            )

    def _name(self, name: str) -> str:
        """Return what a column is called in the data."""
        plain = name in self._written() and not (self.layout.prefixed and name in PAIR)
        return name if plain else f"{self.config.prefix}{name}"

    def label(
        self, batch: Batch, items: Sequence[Item], rewards: Sequence[Sequence[Reward | None]]
    ) -> Labels:
        """Return the columns for a batch.

        Args:
            batch: The columns that are read.
            items: The rows of the batch.
            rewards: For each row one for each response; ``None`` for a missing response.
        """
        labels = Labels(columns={name: [] for name in self.schema()})
        names = {name: self._name(name) for name in self._added() | self._of_row | self._written()}
        for index, (item, of_row) in enumerate(zip(items, rewards, strict=True)):
            label = self._label(item, of_row, {n: batch[n][index] for n in self.layout.columns})
            status = label.status if item.problem is None else Status(item.problem)
            values = {
                **label.values,
                **(domain_values(of_row) if self.layout.routed else {}),
                "status": str(status),
                "notes": "; ".join(self._notes(item, of_row)),
            }
            for name, value in values.items():
                labels.columns[names[name]].append(value)
            labels.usable.append(status.failure is None)
            labels.swapped.append(label.swapped)
        return labels

    def _value(self, reward: Reward | None, name: str) -> Any:
        """Return what is written of a response in one of its columns."""
        return response_value(reward, name, self.config.length_slope)

    def _fitted(self) -> Schema:
        """Return the columns of a pair that follow from what was fitted, where that was given."""
        return (PROBABILITY if self.config.margin_temperature is not None else {}) | (
            CONTROLLED_MARGIN if self.config.length_slope is not None else {}
        )

    def _fitted_values(
        self, margin: float | None, chosen: Reward | None, rejected: Reward | None
    ) -> dict[str, Any]:
        """Return the values of these columns."""
        values: dict[str, Any] = {}
        temperature = self.config.margin_temperature
        if temperature is not None:
            known = None if margin is None else float(probability(margin, temperature))
            values["probability"] = known
        if self.config.length_slope is not None:
            first, second = (self._value(reward, CONTROLLED) for reward in (chosen, rejected))
            known = None if margin is None else first - second
            values["controlled_margin"] = known
        return values

    def _notes(self, item: Item, rewards: Sequence[Reward | None]) -> list[str]:
        notes = row_notes(item, rewards)
        if self.writes_messages and any(set(m) - {"role", "content"} for m in item.prompt):
            notes.append("of the prompt's messages only role and content were written")
        if self.layout.unread:
            unread = ", ".join(map(repr, self.layout.unread))
            notes.append(f"only text is scored: {unread} is not read")
        return notes

    @abstractmethod
    def _added(self) -> Schema:
        """Return the columns that get the prefix."""

    def _written(self) -> Schema:
        """Return the columns that are written under TRL's names, unless these are taken."""
        return {}

    @abstractmethod
    def _label(self, item: Item, rewards: Sequence[Reward | None], row: Mapping[str, Any]) -> Label:
        """Return the values of both for one row, and how it went if it could be read."""


def raw_prompt(row: Mapping[str, Any], layout: Layout) -> list[dict[str, Any]] | None:
    """Return the prompt of a bad row as messages, as far as that can be read."""
    prompt: Any = None if layout.prompt is None else row[layout.prompt]
    try:
        return conversation(as_messages(prompt, ""), [])[0]
    except DataError:
        turns = prompt if isinstance(prompt, list) else []
    return [_texts_of(turn) for turn in turns if isinstance(turn, Mapping)] or None


def _texts_of(turn: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: turn.get(name) for name in ("role", "content")}
    return {name: value if isinstance(value, str) else None for name, value in values.items()}


def _is_text(batch: Batch, name: str, types: pa.Schema | None) -> bool | None:
    """Tell whether a column holds texts; ``None`` where nothing shows it."""
    value = next((value for value in batch[name] if value is not None), None)
    if value is None and types is not None:
        kind = types.field(name).type
        return None if pa.types.is_null(kind) else not pa.types.is_nested(kind)
    return None if value is None else isinstance(value, str)
