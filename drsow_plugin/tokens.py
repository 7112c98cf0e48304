"""Conversations to token ids. Nothing else in the package tokenises.

A response is always scored as: generation prompt, response as given, end of turn. Where
the template's own rendering of the finished conversation says something else (it strips
the response, adds text to the last turn), that rendering is not used and a note says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2

from drsow_plugin.errors import ConfigError, TemplateError
from drsow_plugin.prompts import is_prefill, plain_text
from drsow_plugin.records import Message, TokenPair
from drsow_plugin.turns import SYSTEM_MERGED, left_out, merge_system, refusal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REWRITTEN = "the template does not keep the prompt and the response as given; scored as given"
SPLIT_APART = "prompt and response merge when tokenised together; tokenised apart"
ALREADY_CLOSED = "the response already ends with the end-of-turn token; none was added"
NO_END_OF_TURN = "the template does not close a turn; the tokenizer's EOS is used"

# What rendering may raise: the template's own complaints, and what it trips over.
_REFUSALS = (jinja2.TemplateError, TypeError, ValueError)

_WORD = "A"
_PROBE_PROMPT, _PROBE_RESPONSE = "What is asked?", "drsow-probe-response"


@dataclass(frozen=True)
class _Draft:
    """A row as text: the prompt, what continues it, and the prompt as it is to be tokenised."""

    text: str
    continuation: str
    ahead: str
    notes: tuple[str, ...]

    @property
    def texts(self) -> tuple[str, str]:
        return self.ahead, self.text + self.continuation


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
        self._start: tuple[int, ...] = ()
        self._word_ids: tuple[int, ...] | None = None
        if template is None:
            self._start = (self._start_id(),)
        else:
            self._probe_template(end_of_turn)

    @property
    def end_of_turn_ids(self) -> tuple[int, ...]:
        """Token ids that close a response; empty where none are scored."""
        return self._end_ids

    def encode(self, messages: list[Message], response: str, where: str) -> TokenPair:
        """Return one row as token ids; see :meth:`encode_all`.

        Raises:
            TemplateError: The template refuses the conversation.
        """
        pair = self.encode_all([(messages, response, where)])[0]
        if isinstance(pair, TemplateError):
            raise pair
        return pair

    def encode_all(
        self, rows: Sequence[tuple[list[Message], str, str]]
    ) -> list[TokenPair | TemplateError]:
        """Return rows as token ids, tokenised together, each text once.

        Args:
            rows: Messages of the prompt, response, and how to name the row in an error. Where
                the last message is the assistant's, the response continues it. A response is
                scored as given; never stripped.

        Returns:
            For each row its tokens, or why the template refuses the conversation.
        """
        drafts: list[_Draft | TemplateError] = []
        rendered: tuple[list[Message], tuple[str, tuple[str, ...]]] | None = None
        for messages, response, where in rows:
            try:
                if rendered is None or rendered[0] != messages:
                    rendered = messages, self._render_prompt(messages, where)
                drafts.append(self._draft(messages, response, *rendered[1]))
            except TemplateError as error:
                drafts.append(error)
        texts = {text for draft in drafts if isinstance(draft, _Draft) for text in draft.texts}
        ids = self._ids_of(list(texts))
        places = (where for _, _, where in rows)
        return [self._pair(draft, ids, where) for draft, where in zip(drafts, places, strict=True)]

    def _draft(
        self, messages: list[Message], response: str, text: str, notes: tuple[str, ...]
    ) -> _Draft:
        prefill = is_prefill(messages)
        continuation = response if prefill else self._glue + response
        if self._template is not None and not prefill and not self._keeps(messages, text, response):
            notes += (REWRITTEN,)
        ahead = text + _WORD if self._template is None and text else text
        return _Draft(text, continuation, ahead, notes)

    def _pair(
        self, draft: _Draft | TemplateError, ids: Mapping[str, tuple[int, ...]], where: str
    ) -> TokenPair | TemplateError:
        if isinstance(draft, TemplateError):
            return draft
        prompt_ids, notes = self._prompt_ids(draft, ids), draft.notes
        if not prompt_ids:
            return TemplateError(
                f"{where}: the chat template renders this prompt as nothing, so the first "
                "response token has nothing to be predicted from. Give a user message."
            )
        joint = (*self._start, *ids[draft.text + draft.continuation])
        if joint[: len(prompt_ids)] == prompt_ids:
            response_ids = joint[len(prompt_ids) :]
        else:
            response_ids = self._ids_after(draft.text, draft.continuation)
            notes += (SPLIT_APART,)
        if self._end_ids and response_ids[-len(self._end_ids) :] == self._end_ids:
            notes += (ALREADY_CLOSED,)
        else:
            response_ids += self._end_ids
        return TokenPair(prompt_ids, response_ids, notes=notes + self._end_note)

    def _prompt_ids(self, draft: _Draft, ids: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        """Return a prompt's tokens; a plain one's as they are in running text.

        Tokenizers in the manner of GPT-2 write a blank line as two tokens before a word and
        as one at the end of a text; a language model has met the former.
        """
        if draft.ahead == draft.text:
            return (*self._start, *ids[draft.text])
        if self._word_ids is None:
            self._word_ids = self._ids_after("\n", _WORD)
        ended = draft.text.endswith("\n")
        word_ids = self._word_ids if ended else self._ids_after(draft.text, _WORD)
        ahead = ids[draft.ahead]
        cut = ahead[-len(word_ids) :] == word_ids
        return (*self._start, *(ahead[: -len(word_ids)] if cut else self._ids(draft.text)))

    def _render_prompt(self, messages: list[Message], where: str) -> tuple[str, tuple[str, ...]]:
        """Return a prompt as text, and notes."""
        if self._template is None:
            text = plain_text(messages)
            return text, left_out(messages, text)
        notes: tuple[str, ...] = ()
        if self._must_merge(messages):
            messages, notes = merge_system(messages, where), (SYSTEM_MERGED,)
        try:
            text = self._render_turns(messages)
        except _REFUSALS as error:
            raise TemplateError(refusal(where, error)) from error
        return text, notes + left_out(messages, text)

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
                messages = merge_system(messages, "")
            full = self._render(
                [*messages, {"role": "assistant", "content": response}], prompt=False
            )
        except _REFUSALS:
            return False
        return full.startswith(text + self._glue + response)

    def _ids(self, text: str) -> tuple[int, ...]:
        return self._ids_of([text])[text]

    def _ids_of(self, texts: list[str]) -> dict[str, tuple[int, ...]]:
        if not texts:
            return {}
        encoding: Any = self._tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        return dict(zip(texts, map(tuple, encoding["input_ids"]), strict=True))

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
