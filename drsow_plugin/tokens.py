"""Conversations to token ids. Nothing else in the package tokenises.

A response is always scored as: generation prompt, response as given, end of turn. Where
the template's own rendering of the finished conversation says something else (it strips
the response, adds text to the last turn), that rendering is not used and a note says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jinja2

from drsow_plugin.errors import ConfigError, TemplateError
from drsow_plugin.prompts import is_prefill, plain_text
from drsow_plugin.records import Message, TokenPair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SYSTEM_MERGED = "the template has no system role: system message merged into the first user turn"
REWRITTEN = "the template does not keep the prompt and the response as given; scored as given"
LEFT_OUT = "part of the prompt is not in what the model reads, as the template renders it"
SPLIT_APART = "prompt and response merge when tokenised together; tokenised apart"
ALREADY_CLOSED = "the response already ends with the end-of-turn token; none was added"
NO_END_OF_TURN = "the template does not close a turn; the tokenizer's EOS is used"

# What rendering may raise: the template's own complaints, and what it trips over.
_REFUSALS = (jinja2.TemplateError, TypeError, ValueError)

_PROBE_PROMPT, _PROBE_RESPONSE = "What is asked?", "drsow-probe-response"


class Renderer:
    """Renders and tokenises the rows of one side with its own tokenizer and template."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str | None,
        *,
        end_of_turn: bool = True,
    ) -> None:
        """Probe the template.

        Args:
            tokenizer: The side's tokenizer.
            template: Jinja source of the chat template, or ``None`` to score as a plain
                language model: BOS, the texts of the prompt each followed by a blank line,
                the response; such a side has no end of turn.
            end_of_turn: Whether the end-of-turn token is part of the response.

        Raises:
            ConfigError: The template cannot render one user turn and a response, or there
                is no token a plain language model could start from.
        """
        self._tokenizer = tokenizer
        self._template = template
        self._glue = ""
        self._end_ids: tuple[int, ...] = ()
        self._end_note: tuple[str, ...] = ()
        self._last: tuple[list[Message], tuple[str, tuple[int, ...], tuple[str, ...]]] | None = None
        if template is None:
            self._start = self._start_id()
        else:
            self._probe_template(end_of_turn)

    @property
    def end_of_turn_ids(self) -> tuple[int, ...]:
        """Token ids that close a response; empty where none are scored."""
        return self._end_ids

    def encode(self, messages: list[Message], response: str, where: str) -> TokenPair:
        """Return one row as token ids.

        Args:
            messages: The prompt. Where its last message is the assistant's, the response
                continues that message.
            response: Scored as given; never stripped.
            where: How to name the row in an error.

        Raises:
            TemplateError: The template refuses the conversation.
        """
        text, prompt_ids, notes = self._prompt(messages, where)
        prefill = is_prefill(messages)
        continuation = response if prefill else self._glue + response
        joint = self._ids(text + continuation)
        start = (self._start,) if self._template is None else ()
        if (*start, *joint)[: len(prompt_ids)] == prompt_ids:
            response_ids = (*start, *joint)[len(prompt_ids) :]
        else:
            response_ids = self._ids_after(text, continuation)
            notes += (SPLIT_APART,)
        if self._template is not None and not prefill and not self._keeps(messages, text, response):
            notes += (REWRITTEN,)
        if self._end_ids and response_ids[-len(self._end_ids) :] == self._end_ids:
            notes += (ALREADY_CLOSED,)
        else:
            response_ids += self._end_ids
        return TokenPair(prompt_ids, response_ids, notes=notes + self._end_note)

    def _prompt(
        self, messages: list[Message], where: str
    ) -> tuple[str, tuple[int, ...], tuple[str, ...]]:
        """Return the prompt as text, as ids and with notes; the last one is remembered."""
        if self._last is not None and self._last[0] == messages:
            return self._last[1]
        prompt: tuple[str, tuple[int, ...], tuple[str, ...]]
        if self._template is None:
            text = plain_text(messages)
            prompt = (text, (self._start, *self._plain_ids(text)), _left_out(messages, text))
        else:
            text, notes = self._render_prompt(messages, where)
            ids = self._ids(text)
            if not ids:
                raise TemplateError(
                    f"{where}: the chat template renders this prompt as nothing, so the first "
                    "response token has nothing to be predicted from. Give a user message."
                )
            prompt = (text, ids, notes)
        self._last = (messages, prompt)
        return prompt

    def _render_prompt(self, messages: list[Message], where: str) -> tuple[str, tuple[str, ...]]:
        notes: tuple[str, ...] = ()
        if self._must_merge(messages):
            messages, notes = _merge_system(messages, where), (SYSTEM_MERGED,)
        try:
            text = self._render_turns(messages)
        except _REFUSALS as error:
            raise TemplateError(_refusal(where, error)) from error
        return text, notes + _left_out(messages, text)

    def _must_merge(self, messages: Sequence[Message]) -> bool:
        starts_with_system = bool(messages) and messages[0]["role"] == "system"
        return starts_with_system and not self._takes_system

    def _render_turns(self, messages: Sequence[Message]) -> str:
        """Render a prompt up to where the response begins.

        A last message of the assistant's is what a response begins with: it stands behind the
        generation prompt as it is, whatever the template does to finished turns.
        """
        if is_prefill(messages):
            begun = messages[-1].get("content") or ""
            return self._render(messages[:-1], prompt=True) + self._glue + begun
        return self._render(messages, prompt=True)

    def _render(self, messages: Sequence[Message], *, prompt: bool) -> str:
        rendered = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=prompt,
        )
        return str(rendered)

    def _keeps(self, messages: list[Message], text: str, response: str) -> bool:
        """Tell whether the template, given the finished conversation, keeps it as scored."""
        try:
            if self._must_merge(messages):
                messages = _merge_system(messages, "")
            full = self._render(
                [*messages, {"role": "assistant", "content": response}], prompt=False
            )
        except _REFUSALS:
            return False
        return full.startswith(text + self._glue + response)

    def _ids(self, text: str) -> tuple[int, ...]:
        encoding: Any = self._tokenizer(
            text, add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        return tuple(encoding["input_ids"])

    def _plain_ids(self, text: str) -> tuple[int, ...]:
        """Tokenise a plain prompt the way it is tokenised in running text.

        Tokenizers in the manner of GPT-2 write a blank line as two tokens before a word and
        as one at the end of a text; a language model has met the former.
        """
        if not text:
            return ()
        word = "A"
        ids, word_ids = self._ids(text + word), self._ids_after(text, word)
        return ids[: -len(word_ids)] if ids[-len(word_ids) :] == word_ids else self._ids(text)

    def _ids_after(self, before: str, text: str) -> tuple[int, ...]:
        """Tokenise ``text`` apart from ``before``, without a SentencePiece word-start mark.

        A SentencePiece tokenizer marks the start of any text as the start of a word. Behind
        an anchor that ``text`` does not merge with, it does so only where a word starts.
        """
        specials = [t for t in self._tokenizer.all_special_tokens if before.endswith(t)]
        for anchor in (*specials, "\n", *self._tokenizer.all_special_tokens[:1]):
            anchor_ids = self._ids(anchor)
            ids = self._ids(anchor + text)
            if ids[: len(anchor_ids)] == anchor_ids:
                return ids[len(anchor_ids) :]
        return self._ids(text)

    def _start_id(self) -> int:
        for start in (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id):
            if isinstance(start, int):
                return start
        raise ConfigError(
            "template=none needs a token to start from, and the tokenizer has neither a BOS "
            "nor an EOS token. Use a chat template."
        )

    def _probe_template(self, end_of_turn: bool) -> None:
        """Learn what the template writes around a response, and if it has a system role."""
        turn: list[Message] = [{"role": "user", "content": _PROBE_PROMPT}]
        reply: Message = {"role": "assistant", "content": _PROBE_RESPONSE}
        try:
            prompt = self._render(turn, prompt=True)
            full = self._render([*turn, reply], prompt=False)
        except _REFUSALS as error:
            raise ConfigError(
                f"The chat template cannot render a user turn and a response: {error}. "
                "Check the template, or use template=none."
            ) from error
        before, found, after = full.rpartition(_PROBE_RESPONSE)
        if not found:
            raise ConfigError(
                "The chat template leaves the assistant's message out. Give another template."
            )
        glue = before[len(prompt) :] if before.startswith(prompt) else ""
        self._glue = glue if not glue.strip() else ""
        if end_of_turn:
            self._end_ids = self._end_of_turn(after)
        try:
            system = {"role": "system", "content": _PROBE_RESPONSE}
            self._takes_system = _PROBE_RESPONSE in self._render([system, *turn], prompt=True)
        except _REFUSALS:
            self._takes_system = False

    def _end_of_turn(self, after: str) -> tuple[int, ...]:
        """Return the ids of the first special token in ``after`` and what stands before it."""
        tokenizer = self._tokenizer
        specials = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
        specials.update(tokenizer.all_special_tokens)
        found = [(after.index(t), -len(t), t) for t in specials if t and t in after]
        if found:
            start, _, token = min(found)
            lead = after[:start]
            if not lead.strip():
                closing: Any = tokenizer.convert_tokens_to_ids(token)
                return (*(self._ids_after("", lead) if lead else ()), int(closing))
            return self._ids_after("", after[: start + len(token)])
        if after.strip():
            return self._ids_after("", after.rstrip())
        if isinstance(tokenizer.eos_token_id, int):
            self._end_note = (NO_END_OF_TURN,)
            return (tokenizer.eos_token_id,)
        raise ConfigError(
            "The chat template writes nothing after a response and the tokenizer has no EOS "
            "token, so a response has no end. Set end_of_turn=false to score without one."
        )


def _left_out(messages: Sequence[Message], text: str) -> tuple[str, ...]:
    """Return a note if a message's text is not found in a rendered prompt, in its turn."""
    position = 0
    for message in messages:
        content = str(message.get("content") or "").strip()
        position = text.find(content, position)
        if position < 0 or (not content and "tool_calls" in message):
            return (LEFT_OUT,)
        position += len(content)
    return ()


def _merge_system(messages: Sequence[Message], where: str) -> list[Message]:
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


def _refusal(where: str, error: Exception) -> str:
    return (
        f"{where}: the chat template refuses this conversation: {error}. "
        "Check the order of the roles, or give another template."
    )
