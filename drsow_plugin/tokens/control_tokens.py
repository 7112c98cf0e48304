"""Control tokens in the texts of a row: found, and kept apart from those of the template.

The control tokens of a tokenizer are its special tokens, and the added tokens that its chat
template opens and closes turns with. Others, such as ``<think>`` where it is not special, are
what models write themselves, and stay what they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from drsow_plugin.errors import TemplateError
from drsow_plugin.records import Message
from drsow_plugin.tokens.codec import TextCodec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AS_TEXT = "control tokens in the prompt or the response are read as ordinary text"
PARSED = "control tokens in the prompt or the response are read as control tokens"

# Private characters: around a control token that a text holds, and for each of the template's.
_OPEN, _CLOSE = "\U000f0000", "\U000f0001"
_FIRST_DISGUISE = 0x100000


class ControlTokens:
    """The control tokens of one model."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, turns: Sequence[str] = ()) -> None:
        """Collect the control tokens.

        Args:
            tokenizer: The model's tokenizer.
            turns: Conversations as the template renders them; added tokens that stand in all
                of them open and close turns.
        """
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.values()
        names = {token.content for token in added if token.special or _in_all(token.content, turns)}
        names.update(tokenizer.all_special_tokens)
        longest_first = sorted((n for n in names if n.strip()), key=lambda n: (-len(n), n))
        self._disguises = {n: chr(_FIRST_DISGUISE + i) for i, n in enumerate(longest_first)}
        self._beginnings = sorted({name[:2] for name in longest_first})
        either = "|".join(map(re.escape, longest_first)) or "(?!)"
        self._pattern = re.compile(either)
        self._own_or_marked = re.compile(f"{_OPEN}({either}){_CLOSE}|{either}")
        self._longest = max(map(len, longest_first), default=0)
        self._prefixes = {name[:size] for name in names for size in range(1, len(name))}
        # Added tokens may be looked for once the text is normalized, lower-cased for example.
        self._normalizer = getattr(
            getattr(tokenizer, "backend_tokenizer", None), "normalizer", None
        )
        self._normalized: re.Pattern[str] | None = None
        late = [t.content for t in added if t.normalized and t.content in self._disguises]
        if late and self._normalizer is not None:
            late += [self._normalizer.normalize_str(name) for name in late]
            self._normalized = re.compile("|".join(map(re.escape, late)))

    @cached_property
    def codec(self) -> TextCodec:
        """What encodes texts that :meth:`disguise` returned."""
        return TextCodec(self._tokenizer, self._disguises)

    def in_text(self, text: str) -> str | None:
        """Return the first control token that a text holds, or ``None``."""
        match = None
        if any(beginning in text for beginning in self._beginnings):
            match = self._pattern.search(text)
        if match is None and self._normalizer is not None and self._normalized is not None:
            match = self._normalized.search(self._normalizer.normalize_str(text))
        return match.group() if match else None

    def across(self, before: str, text: str) -> str | None:
        """Return a control token that begins in one text and ends in the next, or ``None``."""
        for size in range(1, min(self._longest, len(before) + 1)):
            if before[-size:] in self._prefixes:
                match = self._pattern.match(before[-size:] + text[: self._longest])
                if match and match.end() > size:
                    return match.group()
        return None

    def in_messages(self, messages: Iterable[Message]) -> str | None:
        """Return a control token in any text of a conversation, roles and names included."""
        return next(filter(None, map(self.in_text, _texts(list(messages)))), None)

    def mark(self, messages: Sequence[Message]) -> list[Message]:
        """Return a conversation with marks around the control tokens in its texts."""
        marked: list[Message] = self._marked(list(messages))
        return marked

    def _marked(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._pattern.sub(f"{_OPEN}\\g<0>{_CLOSE}", value)
        if isinstance(value, Mapping):
            return {self._marked(key): self._marked(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._marked(item) for item in value]
        return value

    def disguise(self, rendered: str) -> str:
        """Return a rendered text with disguises for the template's own control tokens.

        Args:
            rendered: A conversation that was marked, as the template renders it.
        """
        disguised = self._own_or_marked.sub(
            lambda match: match.group(1) or self._disguises[match.group()], rendered
        )
        return unmarked(disguised)  # a template may cut a control token out between its marks


def check_private(messages: Iterable[Message], response: str, where: str) -> None:
    """Check that no text holds characters that would be taken for marks or disguises.

    Raises:
        TemplateError: One does.
    """
    if any(max(text, default="") >= _OPEN for text in (*_texts(list(messages)), response)):
        raise TemplateError(
            f"{where}: private characters (U+F0000 and above) stand beside a control token, so "
            "the row cannot be read as text. Take one of them out, or set control_tokens=parse."
        )


def unmarked(rendered: str) -> str:
    """Return a rendered text without marks."""
    return rendered.replace(_OPEN, "").replace(_CLOSE, "")


def is_marked(rendered: str) -> bool:
    """Tell whether a rendered text has marks."""
    return _OPEN in rendered or _CLOSE in rendered


def _in_all(token: str, turns: Sequence[str]) -> bool:
    return bool(turns) and not token.isalnum() and all(token in text for text in turns)


def _texts(value: object) -> Iterable[str]:
    """Yield all texts in a value, the names of fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
