"""Whole conversations to token ids, as trained reward models read them.

A trained reward model gives one number for a conversation that its template has rendered to the
end. What the template does to the response counts then: it is part of what the model was trained
on, and there is no boundary to score from. Prompts for log-probs are rendered by
:mod:`~drsow_plugin.tokens.renderer`.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drsow_plugin.errors import ConfigError, TemplateError
from drsow_plugin.prompts import is_prefill
from drsow_plugin.records import Message
from drsow_plugin.tokens.compiled_template import CompiledTemplate
from drsow_plugin.tokens.turns import left_out, said

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_RESPONSE = "drsow-probe-response"
_TURN: Message = {"role": "user", "content": "What is asked?"}


@dataclass(frozen=True)
class Conversation:
    """A rendered conversation.

    Attributes:
        ids: Its token ids; never empty.
        notes: What was unusual about it.
    """

    ids: tuple[int, ...]
    notes: tuple[str, ...] = ()


class Conversations:
    """Renders and tokenizes conversations with the tokenizer and the template of one model."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        *,
        add_special_tokens: bool = True,
        template_args: Mapping[str, Any] | None = None,
        template_date: datetime.date,
    ) -> None:
        """Compile the template and try it.

        Args:
            tokenizer: The model's tokenizer.
            template: Jinja source of the chat template.
            add_special_tokens: Whether a conversation gets what the tokenizer adds to any text.
            template_args: Variables of the template.
            template_date: What the template takes for today.

        Raises:
            ConfigError: The template cannot render one user turn and a response.
        """
        self._tokenizer = tokenizer
        self._add = add_special_tokens
        self._template = CompiledTemplate(tokenizer, template, template_args or {}, template_date)
        try:
            text = self._render([_TURN], _RESPONSE)
        except Exception as error:  # whatever a template, which is a program, runs into
            raise ConfigError(
                f"The chat template cannot render a user turn and a response: {said(error)}. "
                "Check the template."
            ) from error
        if _RESPONSE not in text:
            raise ConfigError(
                "The chat template leaves the assistant's message out. Give another template."
            )

    @property
    def date(self) -> datetime.date | None:
        """What the template takes for today; ``None`` where it does not ask."""
        return self._template.date

    def encode(
        self, messages: Sequence[Message], response: str, where: str
    ) -> Conversation | TemplateError:
        """Return a finished conversation as token ids, or why the template refuses it.

        Args:
            messages: The prompt. Where the last message is the assistant's, the response
                continues it.
            response: What follows.
            where: How to name the row in an error.
        """
        try:
            text = self._render(messages, response)
        except Exception as error:  # as above
            return TemplateError(
                f"{where}: the chat template refuses this conversation: {said(error)}. Check the "
                "order of the roles, or give another template."
            )
        ids = self._ids(text)
        if not ids:
            return TemplateError(
                f"{where}: the chat template renders this conversation as nothing. Give a message."
            )
        return Conversation(ids, left_out(_finished(messages, response), text))

    def _render(self, messages: Sequence[Message], response: str) -> str:
        return self._template.render(_finished(messages, response), prompt=False)

    def _ids(self, text: str) -> tuple[int, ...]:
        """Return the tokens of a text, with one BOS where template and tokenizer write one each."""
        encoded: Any = self._tokenizer(
            text,
            add_special_tokens=self._add,
            return_attention_mask=False,
            truncation=False,
            padding=False,
            verbose=False,
        )
        ids, bos = tuple(encoded["input_ids"]), self._tokenizer.bos_token
        if self._add and bos and text.startswith(bos):
            twice = (self._tokenizer.bos_token_id,) * 2
            return ids[1:] if ids[:2] == twice else ids
        return ids


def _finished(messages: Sequence[Message], response: str) -> list[Message]:
    if is_prefill(messages):
        begun = str(messages[-1].get("content") or "")
        return [*messages[:-1], {**messages[-1], "content": begun + response}]
    return [*messages, {"role": "assistant", "content": response}]
