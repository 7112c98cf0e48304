"""Domains: what the models are told before a conversation of a kind."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from drsow_plugin.errors import ConfigError, DataError, unknown_name
from drsow_plugin.prompts import check_text, join_system
from drsow_plugin.records import DomainParts, DomainSide, Message

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Domain:
    """A kind of prompt, and what conditions the reward of the responses to it.

    Attributes:
        name: Letters, digits, ``_``, ``-`` and ``.``; unique among all loaded domains.
        description: One sentence on which prompts belong here; the ``model`` router reads it.
        prompts: Some user turns that belong here, for routers to go by; eight make the ``model``
            router better.
        instruction: Told to the models as a system message; may be empty.
        examples: Conversations of a user and an assistant turn, or more of them, put before
            the prompt; each a sequence of messages.
        shots: How many of the examples a prompt gets, chosen by its content; ``None`` is all.
        parts: What is applied unless ``domain_parts=`` says otherwise.
        side: The models it is applied to unless ``domain_side=`` says otherwise.
    """

    name: str
    description: str
    prompts: Sequence[str] = ()
    instruction: str = ""
    examples: Sequence[Sequence[Message]] = ()
    shots: int | None = None
    parts: DomainParts = "both"
    side: DomainSide = "both"

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
        for field in ("description", "instruction"):
            if not isinstance(getattr(self, field), str):
                raise ConfigError(f"Domain {self.name!r}: {field} is a text.")
        if not self.description.strip():
            raise ConfigError(f"Domain {self.name!r} needs a description, for routers and people.")
        self._check_choices()
        if isinstance(self.prompts, str) or not all(isinstance(p, str) for p in self.prompts):
            raise ConfigError(f"Domain {self.name!r}: prompts is a list of texts.")
        object.__setattr__(self, "prompts", tuple(self.prompts))
        examples = tuple(_example(self.name, example) for example in self.examples)
        object.__setattr__(self, "examples", examples)
        self._check_unicode()

    def _check_unicode(self) -> None:
        told = [self.description, self.instruction, *self.prompts]
        for text in (*told, *(m["content"] for example in self.examples for m in example)):
            try:
                check_text(text, f"Domain {self.name!r}")
            except DataError as error:
                raise ConfigError(str(error)) from error

    def _check_choices(self) -> None:
        for field, valid in (("parts", get_args(DomainParts)), ("side", get_args(DomainSide))):
            if getattr(self, field) not in valid:
                raise ConfigError(
                    f"Domain {self.name!r}: {unknown_name(field, getattr(self, field), valid)}"
                )
        shots = 0 if isinstance(self.shots, bool) else self.shots
        if shots is not None and (not isinstance(shots, int) or shots < 1):
            raise ConfigError(
                f"Domain {self.name!r}: shots is a whole number of at least 1, or None, got "
                f"{self.shots!r}."
            )

    def describe(self) -> dict[str, Any]:
        """Return the domain as plain values."""
        return {
            **asdict(self),
            "prompts": list(self.prompts),
            "examples": [[dict(message) for message in example] for example in self.examples],
        }


def _example(name: str, given: object) -> tuple[Message, ...]:
    """Return an example, checked: turns of user and assistant by turns, the last an assistant's."""
    messages = tuple(given) if isinstance(given, (list, tuple)) else ()
    roles = [m.get("role") if isinstance(m, Mapping) else None for m in messages]
    texts = [m.get("content") if isinstance(m, Mapping) else None for m in messages]
    by_turns = roles == ["user", "assistant"] * (len(roles) // 2)
    if not messages or not by_turns or not all(isinstance(text, str) for text in texts):
        raise ConfigError(
            f"Domain {name!r}: an example is messages of user and assistant by turns, such as "
            "[{'role': 'user', 'content': …}, {'role': 'assistant', 'content': …}], got "
            f"{given!r:.80}."
        )
    return tuple({"role": m["role"], "content": m["content"]} for m in messages)


def condition(
    messages: Sequence[Message],
    domain: Domain,
    *,
    parts: DomainParts | None = None,
    shots: int | None = None,
) -> list[Message]:
    """Return a conversation with a domain's instruction and examples before it.

    The instruction becomes the system message; where the conversation has one, that follows
    after a blank line. Then come the examples, then the conversation.

    Args:
        messages: The prompt.
        domain: What to apply.
        parts: Which parts of it; ``None`` is the domain's own default.
        shots: Most examples; ``None`` is the domain's own number. Where a domain has more, the
            prompt's content decides which are taken: always the same for the same prompt. They
            keep their order.
    """
    parts = parts or domain.parts
    examples: list[Message] = []
    if parts in ("examples", "both"):
        for example in _chosen(messages, domain, shots or domain.shots):
            examples.extend(example)
    if parts in ("instruction", "both"):
        messages = join_system(messages, domain.instruction)
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
