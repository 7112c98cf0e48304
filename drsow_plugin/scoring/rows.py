"""Rows as both models will read them: checked, routed, conditioned and tokenized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from drsow_plugin.config.routing import COLUMN
from drsow_plugin.errors import ConfigError, DataError
from drsow_plugin.models.language_model import LanguageModel
from drsow_plugin.models.row import ModelRow
from drsow_plugin.prompts import check_lists, remarks
from drsow_plugin.records import (
    BAD_ROW,
    SIDES,
    Message,
    OnError,
    Problem,
    Prompt,
    Route,
    SideName,
    TokenPair,
)
from drsow_plugin.routing.hookspecs import RouterInput

if TYPE_CHECKING:
    from drsow_plugin.routing.routing import Routing

CUT_DOMAIN = "what was cut from the left is the domain's instruction and examples, or part of them"

_NOTHING = TokenPair((), ())
_NO_ROUTE = Route(None)


@dataclass
class Row:
    """One prompt and response, tokenized for both models, or why it cannot be scored.

    Attributes:
        messages: The prompt.
        response: The response.
        route: Where the prompt was sent.
        pairs: Both as token ids, for each model; one that cannot score them says why.
        problem: Why there is neither.
        notes: What was unusual about the texts.
    """

    messages: list[Message] = field(default_factory=list)
    response: str = ""
    route: Route = _NO_ROUTE
    pairs: dict[SideName, TokenPair] = field(default_factory=lambda: dict.fromkeys(SIDES, _NOTHING))
    problem: Problem | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Whether both models can score it."""
        return not (self.problem or any(pair.problem for pair in self.pairs.values()))

    def __len__(self) -> int:
        return sum(map(len, self.pairs.values()))


class Reader:
    """Turns prompts and responses into rows for a pair of models."""

    def __init__(
        self,
        models: Mapping[SideName, LanguageModel],
        routing: Routing | None,
        *,
        is_one_model: bool = False,
    ) -> None:
        """Remember the models, whether they are one, and where prompts are routed, how."""
        self._models = models
        self._is_one_model = is_one_model
        self._routing = routing

    def read(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        domains: Sequence[str | None] | None,
        on_error: OnError,
    ) -> list[Row]:
        """Return one row for each response; see :meth:`drsow_plugin.DrSoW.score`."""
        check_lists(prompts, responses)
        self._check_domains(domains, len(prompts))
        labels = [None] * len(prompts) if domains is None else domains
        rows: list[Row] = []
        for index, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            row = self._read(f"row {index}", prompt, response, on_error)
            problem = self._routing and self._routing.problem_with(labels[index])
            if problem and on_error == "raise":
                raise DataError(f"row {index}: {problem}")
            if problem and row.problem is None:
                row.problem = Problem(BAD_ROW, problem)
            rows.append(row)
        self._route(rows, labels)
        self._tokenize(rows, on_error)
        return rows

    def read_unrouted(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Row]:
        """Return rows as they are read where no domain says anything, without asking a router."""
        texts = zip(prompts, responses, strict=True)
        rows = [self._read(f"row {n}", *of, "null") for n, of in enumerate(texts)]
        self._tokenize(rows, "null")
        return rows

    def _check_domains(self, domains: Sequence[str | None] | None, count: int) -> None:
        if domains is not None and len(domains) != count:
            raise DataError(
                f"domains has {len(domains)} entries for {count} prompts. Give one, or None, "
                "for each."
            )
        if self._routing is None and domains is not None and any(domains):
            raise ConfigError("domains were given for the prompts; open the pair with router=….")
        if self._routing is not None and domains is None and self._routing.config.router == COLUMN:
            raise ConfigError("router=column goes by the domains= of the prompts; give them.")

    def _read(self, where: str, prompt: Prompt, response: str, on_error: OnError) -> Row:
        try:
            messages = ModelRow.read(prompt, response, where).messages
        except DataError as error:
            if on_error == "raise":
                raise
            return Row(problem=Problem.of(error, where))
        return Row(messages, response, notes=remarks(messages, response))

    def _route(self, rows: Sequence[Row], labels: Sequence[str | None]) -> None:
        """Set the domain of each prompt."""
        if self._routing is None:
            return
        readable = [index for index, row in enumerate(rows) if row.problem is None]
        inputs = [
            RouterInput(tuple(dict(m) for m in rows[index].messages), labels[index] or None)
            for index in readable
        ]
        for index, route in zip(readable, self._routing.route(inputs), strict=True):
            rows[index].route = route

    def _tokenize(self, rows: Sequence[Row], on_error: OnError) -> None:
        """Set both models' tokens; models that read rows alike tokenize them once."""
        readable = [index for index, row in enumerate(rows) if row.problem is None]
        read = {
            side: [
                ModelRow(self._conditioned(side, rows[index]), rows[index].response, f"row {index}")
                for index in readable
            ]
            for side in SIDES
        }
        made = {"strong": self._models["strong"].tokenize(read["strong"])}
        is_alike = self._models_tokenize_alike and read["strong"] == read["weak"]
        made["weak"] = made["strong"] if is_alike else self._models["weak"].tokenize(read["weak"])
        for number, index in enumerate(readable):
            row, pairs = rows[index], dict.fromkeys(SIDES, _NOTHING)
            for side in SIDES:
                pair = made[side][number]
                if isinstance(pair, DataError):
                    if on_error == "raise":
                        raise pair
                    row.problem = Problem.of(pair, f"row {index}")
                    break
                if pair.truncated and read[side][number].messages != row.messages:
                    pair = replace(pair, notes=(*pair.notes, CUT_DOMAIN))
                pairs[side] = pair
            else:
                row.pairs = pairs
                if self._is_one_model and pairs["strong"].prompt_ids == pairs["weak"].prompt_ids:
                    self._refuse(row, index, on_error)

    def _refuse(self, row: Row, index: int, on_error: OnError) -> None:
        """Refuse a row that the one model of both sides reads in the same way.

        Raises:
            DataError: ``on_error`` is ``raise``.
        """
        said = (
            f"row {index}: strong and weak are one model, which reads the same tokens on both "
            f"sides (domain {row.route.domain!r}), so the reward would be 0. Give that domain a "
            "weak_instruction that the chat template shows, or route the prompt to one with it."
        )
        if on_error == "raise":
            raise DataError(said)
        row.problem = Problem.of(DataError(said), f"row {index}")

    @cached_property
    def _models_tokenize_alike(self) -> bool:
        return self._models["strong"].identity.tokenizes_like(self._models["weak"].identity)

    def _conditioned(self, side: SideName, row: Row) -> list[Message]:
        """Return the conversation as a side's model is to read it."""
        if self._routing is None:
            return row.messages
        return self._routing.conditioned(row.messages, row.route, side)
