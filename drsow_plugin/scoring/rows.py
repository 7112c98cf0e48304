"""Rows as both models will read them: checked, routed, conditioned and tokenised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set, Sized
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from drsow_plugin.config.routing import COLUMN
from drsow_plugin.errors import ConfigError, DataError, DrSoWError, OverflowLengthError
from drsow_plugin.prompts import as_messages, check_text, remarks
from drsow_plugin.records import (
    BAD_ROW,
    SIDES,
    TOO_LONG,
    Message,
    Prompt,
    Route,
    SideName,
    TokenPair,
)
from drsow_plugin.routing.hookspecs import RouterInput

if TYPE_CHECKING:
    from drsow_plugin.models.language_model import Side
    from drsow_plugin.routing.routing import Routing

OnError = Literal["raise", "null"]

CUT_DOMAIN = "what was cut from the left is the domain's instruction and examples, or part of them"

_NOTHING = TokenPair((), ())
_NO_ROUTE = Route(None)


@dataclass(frozen=True)
class Row:
    """One row for both sides, or why it cannot be had."""

    messages: list[Message] = field(default_factory=list)
    response: str = ""
    route: Route = _NO_ROUTE
    strong: TokenPair = _NOTHING
    weak: TokenPair = _NOTHING
    problem: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Whether both models can score it."""
        return not (self.problem or self.strong.reason or self.weak.reason)


class Reader:
    """Turns prompts and responses into rows for a pair of models."""

    def __init__(self, sides: Mapping[SideName, Side], routing: Routing | None) -> None:
        """Remember the models and, where prompts are routed, how."""
        self._sides = sides
        self._routing = routing

    def read(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        domains: Sequence[str | None] | None,
        on_error: OnError,
    ) -> list[Row]:
        """Return one row for each response; see :meth:`drsow_plugin.DrSoW.score`."""
        _check_lists(prompts, responses)
        rows = [
            self._read(index, prompt, response, on_error)
            for index, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
        ]
        rows = self._route(rows, domains, on_error)
        return self._tokenise(rows, on_error)

    def _read(self, index: int, prompt: Prompt, response: str, on_error: OnError) -> Row:
        where = f"row {index}"
        try:
            if not isinstance(response, str):
                raise DataError(f"{where}: a response is a string, got {type(response).__name__}.")
            check_text(response, f"{where}, response")
            messages = as_messages(prompt, where)
            return Row(messages, response, notes=remarks(messages, response))
        except DataError as error:
            if on_error == "raise":
                raise
            return Row(problem=_problem(error, where))

    def _route(
        self, rows: list[Row], domains: Sequence[str | None] | None, on_error: OnError
    ) -> list[Row]:
        """Return the rows with the domain of each prompt."""
        if domains is not None and len(domains) != len(rows):
            raise DataError(
                f"domains has {len(domains)} entries for {len(rows)} prompts. Give one, or None, "
                "for each."
            )
        if self._routing is None:
            if domains is not None and any(domains):
                raise ConfigError(
                    "domains were given for the prompts; open the pair with router=…."
                )
            return rows

        if domains is None and self._routing.config.router == COLUMN:
            raise ConfigError("router=column goes by the domains= of the prompts; give them.")
        known = [None] * len(rows) if domains is None else domains
        for index, name in enumerate(known):
            problem = self._routing.problem_with(name)
            if problem and on_error == "raise":
                raise DataError(f"row {index}: {problem}")
            if problem and rows[index].problem is None:
                rows[index] = replace(rows[index], problem=f"{BAD_ROW}: {problem}")
        readable = [index for index, row in enumerate(rows) if row.problem is None]
        inputs = [
            RouterInput(tuple(dict(m) for m in rows[index].messages), known[index] or None)
            for index in readable
        ]
        for index, route in zip(readable, self._routing.route(inputs), strict=True):
            rows[index] = replace(rows[index], route=route)
        return rows

    def _tokenise(self, rows: list[Row], on_error: OnError) -> list[Row]:
        """Return the rows as both sides' tokens; those that read alike tokenise once."""
        readable = [index for index, row in enumerate(rows) if row.problem is None]
        read = {side: [self._messages(side, rows[i]) for i in readable] for side in SIDES}
        made: dict[SideName, list[TokenPair | DataError]] = {}
        for side in SIDES:
            if made and self._sides_tokenise_alike and read["strong"] == read["weak"]:
                made[side] = made["strong"]
                continue
            batch = [
                (messages, rows[index].response, f"row {index}")
                for index, messages in zip(readable, read[side], strict=True)
            ]
            made[side] = self._tokenise_side(side, batch)
        for number, index in enumerate(readable):
            pairs: dict[str, TokenPair] = {}
            for side in SIDES:
                pair = made[side][number]
                if isinstance(pair, DataError):
                    if on_error == "raise":
                        raise pair
                    rows[index] = replace(rows[index], problem=_problem(pair, f"row {index}"))
                    break
                if pair.truncated and read[side][number] != rows[index].messages:
                    pair = replace(pair, notes=(*pair.notes, CUT_DOMAIN))
                pairs[side] = pair
            else:
                rows[index] = replace(rows[index], strong=pairs["strong"], weak=pairs["weak"])
        return rows

    def _tokenise_side(
        self, side: SideName, batch: list[tuple[list[Message], str, str]]
    ) -> list[TokenPair | DataError]:
        """Return rows as tokens; a row that a template or a tokenizer trips over says so."""
        try:
            return self._sides[side].tokenise_all(batch)
        except (DrSoWError, MemoryError):
            raise
        except Exception as error:
            if len(batch) > 1:
                return [pair for row in batch for pair in self._tokenise_side(side, [row])]
            said = f"{type(error).__name__}: {str(error).strip() or 'nothing more is known'}"
            return [
                DataError(
                    f"{batch[0][2]}: the {side} model's template or tokenizer failed: "
                    f"{said.splitlines()[0]}. Fix or remove the row, or give another template."
                )
            ]

    @cached_property
    def _sides_tokenise_alike(self) -> bool:
        return self._sides["strong"].tokenises_like(self._sides["weak"])

    def _messages(self, side: SideName, row: Row) -> list[Message]:
        """Return the conversation as a side's model is to read it."""
        if self._routing is None:
            return row.messages
        return self._routing.conditioned(row.messages, row.route, side)


def _problem(error: DataError, where: str) -> str:
    kind = TOO_LONG if isinstance(error, OverflowLengthError) else BAD_ROW
    return f"{kind}: {str(error).removeprefix(where).lstrip(':, ')}"


def _check_lists(prompts: object, responses: object) -> None:
    for name, given in (("prompts", prompts), ("responses", responses)):
        if isinstance(given, (str, bytes, Mapping, Set)) or not isinstance(given, Sized):
            raise DataError(
                f"{name} is a list with one entry for each row, got {type(given).__name__}."
            )
    assert isinstance(prompts, Sized) and isinstance(responses, Sized)
    if len(prompts) != len(responses):
        raise DataError(
            f"prompts and responses differ in length: {len(prompts)} prompts, "
            f"{len(responses)} responses. Give one prompt for each response."
        )
