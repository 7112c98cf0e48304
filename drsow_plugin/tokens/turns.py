"""What is done to the turns of a conversation around a chat template."""

from __future__ import annotations

from collections.abc import Sequence

import jinja2

from drsow_plugin.errors import TemplateError
from drsow_plugin.records import Message

SYSTEM_MERGED = "the template has no system role: system message merged into the first user turn"
LEFT_OUT = "part of the prompt is not in what the model reads, as the template renders it"


def left_out(messages: Sequence[Message], text: str) -> tuple[str, ...]:
    """Return a note if a message's text is not found in a rendered prompt, in its turn."""
    position = 0
    for message in messages:
        content = str(message.get("content") or "").strip()
        position = text.find(content, position)
        if position < 0 or (not content and "tool_calls" in message):
            return (LEFT_OUT,)
        position += len(content)
    return ()


def merge_system(messages: Sequence[Message], where: str) -> list[Message]:
    """Return the messages with the system text put before the first user turn's text."""
    system, rest = messages[0], list(messages[1:])
    for position, message in enumerate(rest):
        if message["role"] == "user":
            texts = (system.get("content"), message.get("content"))
            rest[position] = {**message, "content": "\n\n".join(filter(None, texts))}
            return rest
    raise TemplateError(
        f"{where}: the chat template takes no system message, and there is no user turn to "
        "merge it into. Add a user message."
    )


def said(error: Exception) -> str:
    """Return an error of a template's in one line; of others than Jinja's with their kind."""
    line = " ".join(str(error).split())[:300].rstrip(".")
    if isinstance(error, jinja2.TemplateError):
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
