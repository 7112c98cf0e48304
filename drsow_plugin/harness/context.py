"""A prompt on its way through lm-eval, which passes strings only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance

from drsow_plugin.prompts import is_prefill, plain_text
from drsow_plugin.records import Message


class ChatContext(str):
    """A prompt as text for any model, which still knows its messages.

    lm-eval hands contexts on as strings, and keys its response cache by them. A model of
    lm-eval reads this one as the text it is; :class:`~drsow_plugin.DrSoWLM` takes the messages
    and renders them for each side.

    Attributes:
        messages: The prompt; what :func:`~drsow_plugin.prompts.as_messages` has checked is not
            checked again.
    """

    messages: Sequence[Message]

    def __new__(cls, text: str, messages: Sequence[Message]) -> ChatContext:
        """Make a context that reads as ``text`` and stands for ``messages``."""
        context = super().__new__(cls, text)
        context.messages = messages
        return context

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the messages when lm-eval pickles requests."""
        return ChatContext, (str(self), self.messages)


def context_text(messages: Sequence[Message]) -> str:
    """Return a prompt as text for a model without a chat template.

    A single user turn is its text and a blank line; the turns of a longer conversation are
    named, so that no two conversations read the same.
    """
    if [message["role"] for message in messages] == ["user"]:
        return plain_text(messages)
    turns = [f"{m['role'].capitalize()}: {m.get('content') or ''}" for m in messages]
    prefill = is_prefill(messages)
    return "\n\n".join(turns) + ("" if prefill else "\n\nAssistant: ")


class PreferenceInstance(Instance):
    """A request of a task that takes NaN for a response without a reward."""
