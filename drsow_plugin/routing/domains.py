"""Domains: system prompt and few-shot examples that are put before prompts of one category."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from drsow_plugin.config.parse import parse_positive
from drsow_plugin.errors import ConfigError, DataError, unknown_name
from drsow_plugin.prompts import check_text, join_system
from drsow_plugin.records import SIDES, DomainParts, DomainSide, Message, SideName

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_ANY: list[Message] = [{"role": "user", "content": "any"}]


@dataclass(frozen=True)
class Domain:
    """A category of prompts, and what conditions the rewards of the responses to them.

    Attributes:
        name: Letters, digits, ``_``, ``-`` and ``.``; unique among all loaded domains.
        description: One sentence on which prompts belong here; the ``model`` router reads it.
        prompts: Some user turns that belong here, which routers may compare with; eight make the
            ``model`` router better.
        instruction: The system prompt; may be empty.
        examples: Few-shot examples: conversations of user and assistant turns, each a sequence
            of messages.
        shots: How many of the examples a prompt gets, chosen by its content; ``None`` is all.
        parts: What is applied unless ``domain_parts=`` says otherwise.
        side: The models it is applied to unless ``domain_side=`` says otherwise.
        weak_instruction: The system prompt of the weak model instead of ``instruction``, so that
            the two stand in contrast; may be empty. ``None`` is the same as the strong model's.
    """

    name: str
    description: str
    prompts: Sequence[str] = ()
    instruction: str = ""
    examples: Sequence[Sequence[Message]] = ()
    shots: int | None = None
    parts: DomainParts = "both"
    side: DomainSide = "both"
    weak_instruction: str | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: One cannot be used.
        """
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"The name of a domain is made of letters, digits, '_', '-' and '.', got "
                f"{self.name!r}."
            )
        where = f"Domain {self.name!r}"
        for field in ("description", "instruction"):
            if not isinstance(getattr(self, field), str):
                raise ConfigError(f"{where}: {field} is a text.")
        if not isinstance(self.weak_instruction, str | None):
            raise ConfigError(f"{where}: weak_instruction is a text, or None.")
        if not self.description.strip():
            raise ConfigError(f"{where} needs a description, for routers and people.")
        for field, valid in (("parts", get_args(DomainParts)), ("side", get_args(DomainSide))):
            if getattr(self, field) not in valid:
                raise ConfigError(f"{where}: {unknown_name(field, getattr(self, field), valid)}")
        object.__setattr__(self, "shots", parse_positive(f"{where}: shots", self.shots))
        if isinstance(self.prompts, str) or not all(isinstance(p, str) for p in self.prompts):
            raise ConfigError(f"{where}: prompts is a list of texts.")
        object.__setattr__(self, "prompts", tuple(self.prompts))
        object.__setattr__(self, "examples", tuple(_example(e, where) for e in self.examples))
        self._check_unicode(where)

    def _check_unicode(self, where: str) -> None:
        contents = [message["content"] for example in self.examples for message in example]
        try:
            told = (self.instruction, self.weak_instruction or "")
            for text in (self.description, *told, *self.prompts, *contents):
                check_text(text, where)
        except DataError as error:
            raise ConfigError(str(error)) from error

    def describe(self) -> dict[str, Any]:
        """Return the domain as plain values; without ``weak_instruction`` where there is none."""
        described = {
            **asdict(self),
            "prompts": list(self.prompts),
            "examples": [[dict(message) for message in example] for example in self.examples],
        }
        if self.weak_instruction is None:
            del described["weak_instruction"]
        return described

    def tells_apart(self, parts: DomainParts | None, side: DomainSide | None) -> bool:
        """Whether the two models are told different things before the same prompt.

        Args:
            parts: What is applied of it; ``None`` is the domain's own default.
            side: The models that it is applied to; ``None`` is the domain's own default.
        """
        read = [
            condition(_ANY, self, parts=parts, model=model) if self.is_for(model, side) else _ANY
            for model in SIDES
        ]
        return read[0] != read[1]

    def is_for(self, model: SideName, side: DomainSide | None) -> bool:
        """Whether a model is told of it; see :meth:`tells_apart`."""
        return model == "strong" or (side or self.side) == "both"


def _example(example: object, where: str) -> tuple[Message, ...]:
    """Return an example, checked: user and assistant turns alternate, the assistant's is last."""
    messages = example if isinstance(example, (list, tuple)) else ()
    turns = [message if isinstance(message, Mapping) else {} for message in messages]
    roles = [turn.get("role") for turn in turns]
    alternates = roles == ["user", "assistant"] * (len(roles) // 2)
    if not turns or not alternates or not all(isinstance(t.get("content"), str) for t in turns):
        raise ConfigError(
            f"{where}: an example is messages of user and assistant by turns, such as "
            "[{'role': 'user', 'content': …}, {'role': 'assistant', 'content': …}], got "
            f"{example!r:.80}."
        )
    return tuple({"role": turn["role"], "content": turn["content"]} for turn in turns)


def condition(
    messages: Sequence[Message],
    domain: Domain,
    *,
    parts: DomainParts | None = None,
    shots: int | None = None,
    model: SideName = "strong",
) -> list[Message]:
    """Return a conversation with a domain's instruction and examples before it.

    The instruction becomes the system message; where the conversation has one, that follows
    after a blank line. Then come the examples, then the conversation.

    Args:
        messages: The prompt.
        domain: What to apply.
        parts: Which parts of it; ``None`` is the domain's own default.
        shots: Maximum number of examples; ``None`` is the domain's own number. Where a domain has
            more, the prompt's content decides which are taken: always the same for the same
            prompt. They keep their order.
        model: Who is to read it.
    """
    parts = parts or domain.parts
    examples: list[Message] = []
    if parts in ("examples", "both"):
        for example in _chosen(messages, domain, shots or domain.shots):
            examples.extend(example)
    if parts in ("instruction", "both"):
        own = domain.weak_instruction if model == "weak" else None
        messages = join_system(messages, domain.instruction if own is None else own)
    start = 1 if messages and messages[0]["role"] == "system" else 0
    return [*messages[:start], *examples, *messages[start:]]


def _chosen(
    messages: Sequence[Message], domain: Domain, shots: int | None
) -> list[Sequence[Message]]:
    available = list(domain.examples)
    if shots is None or shots >= len(available):
        return available
    content = json.dumps([domain.name, [dict(m) for m in messages]], sort_keys=True, default=str)
    seed = int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big")
    picked = random.Random(seed).sample(range(len(available)), shots)
    return [available[index] for index in sorted(picked)]
