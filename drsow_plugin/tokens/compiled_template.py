"""A chat template in its sandbox: conversations to texts, whatever is done with them."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from drsow_plugin.errors import ConfigError
from drsow_plugin.prompts import REASONING
from drsow_plugin.records import Message
from drsow_plugin.tokens.sandbox import BoundedTemplate
from drsow_plugin.tokens.turns import said

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class CompiledTemplate:
    """Renders conversations with one template.

    Attributes:
        date: What it takes for today; ``None`` where it does not ask.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        source: str,
        args: Mapping[str, Any],
        date: datetime.date,
    ) -> None:
        """Compile a template.

        Args:
            tokenizer: The model's tokenizer.
            source: Jinja source.
            args: Variables of the template.
            date: What it takes for today.

        Raises:
            ConfigError: It cannot be compiled, or does not read one of the variables.
        """
        self._tokenizer = tokenizer
        self._source = source
        self._args = args
        self._sandboxed = _compiled(tokenizer, source, date)
        self.date = date if self._sandboxed and self._sandboxed.asks_date else None
        self._check_args()

    def render(self, messages: Sequence[Message], *, prompt: bool) -> str:
        """Return a conversation as text.

        Args:
            messages: The turns.
            prompt: Whether the beginning of the assistant's next turn is written behind them.

        Raises:
            Exception: Whatever a template, which is a program, runs into.
        """
        if self._sandboxed is None:
            rendered = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                chat_template=self._source,
                tokenize=False,
                add_generation_prompt=prompt,
                **self._args,
            )
            return str(rendered)
        return self._sandboxed.render(
            {
                "messages": [_plain(message) for message in messages],
                "tools": None,
                "documents": None,
                "add_generation_prompt": prompt,
                **self._tokenizer.special_tokens_map,
                **self._args,
            }
        )

    def _check_args(self) -> None:
        variables = self._sandboxed.variables if self._sandboxed else self._args
        for name in self._args:
            if name not in variables:
                others = set(variables) - {"messages", "add_generation_prompt"}
                raise ConfigError(
                    f"template_args: the chat template reads no variable {name!r}; it reads "
                    f"{', '.join(sorted(others)) or 'none'}."
                )


def _compiled(
    tokenizer: PreTrainedTokenizerBase, source: str, date: datetime.date
) -> BoundedTemplate | None:
    """Return a template in its sandbox; ``None`` for a tokenizer that renders by itself."""
    from transformers import PreTrainedTokenizerBase

    if type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template:
        return None
    try:
        return BoundedTemplate(source, date)
    except Exception as error:  # Jinja's, or what a template's constants run into
        raise ConfigError(
            f"The chat template cannot be compiled: {said(error)}. Check the template, or use "
            "template=none."
        ) from error


def _plain(message: Message) -> dict[str, Any]:
    """Return a message in plain values, its reasoning under the names that templates read."""
    plain = {key: value for key, value in message.items() if value is not None}
    if not all(type(value) is str for value in plain.values()):
        plain = json.loads(json.dumps(plain, default=_placeholder))
    reasoning = next((plain[name] for name in REASONING if name in plain), None)
    if reasoning is None:
        return plain
    return {"thinking": reasoning, **plain, "reasoning_content": reasoning}


def _placeholder(value: object) -> object:
    """Return what stands for a value that is no text, number, list or mapping."""
    item = getattr(value, "item", None)  # of numpy
    return item() if callable(item) else f"<{type(value).__name__}>"
