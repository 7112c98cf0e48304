"""Conversations to token ids. Nothing else in the package tokenizes.

A response is always scored as: generation prompt, response as given, end of turn. Where
the template's own rendering of the finished conversation says something else (it strips
the response, adds text to the last turn), that rendering is not used and a note says so.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drsow_plugin.errors import ConfigError, DataError, TemplateError
from drsow_plugin.prompts import is_prefill, plain_text
from drsow_plugin.records import DEFAULT_DATE, ControlPolicy, Message, TokenPair
from drsow_plugin.tokens.chat_template import ChatTemplate
from drsow_plugin.tokens.codec import Codec, Ids
from drsow_plugin.tokens.control_tokens import (
    AS_TEXT,
    PARSED,
    ControlTokens,
    check_private,
    is_marked,
    unmarked,
)
from drsow_plugin.tokens.turns import left_out

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REWRITTEN = "the template does not keep the prompt and the response as given; scored as given"
SPLIT_APART = "prompt and response merge when tokenised together; tokenised apart"
STRIPPED = "the template's last token would swallow the white space that the response begins with"
SWALLOWED = "the template's last token swallows white space before the begun response"
DATED = "the template asks for the date; it was told {}, see template_date"
ALREADY_CLOSED = "the response already ends with the end-of-turn token; none was added"
NO_END_OF_TURN = "the template does not close a turn; the tokenizer's EOS is used"

_WORD = "A"

Row = tuple[list[Message], str, str]


@dataclass(frozen=True)
class _Prompt:
    """A prompt as text; where it holds control tokens, also with the template's disguised."""

    messages: list[Message]
    text: str
    notes: tuple[str, ...]
    control: str | None
    disguised: str | None
    is_marked: bool


@dataclass(frozen=True)
class _Draft:
    """A row as text: the prompt, what continues it, and the prompt as it is to be tokenized."""

    text: str
    glue: str
    response: str
    ahead: str
    notes: tuple[str, ...]
    codec: Codec

    @property
    def texts(self) -> tuple[str, str]:
        return self.ahead, self.text + self.glue + self.response


class Renderer:
    """Renders and tokenizes rows with the tokenizer and the template of one model.

    Attributes:
        end_of_turn_ids: Token ids that close a response; empty where none are scored.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str | None,
        *,
        end_of_turn: bool = True,
        control_tokens: ControlPolicy = "text",
        template_args: Mapping[str, Any] | None = None,
        template_date: datetime.date = DEFAULT_DATE,
    ) -> None:
        """Probe the template.

        Args:
            tokenizer: The model's tokenizer.
            template: Jinja source of the chat template, or ``None`` for no chat template: BOS,
                the texts of the prompt each followed by a blank line, the response; there is
                no end of turn then.
            end_of_turn: Whether the end-of-turn token is part of the response.
            control_tokens: What control tokens in the texts of a row are; see
                :class:`~drsow_plugin.Scoring`. Those that the template writes always count.
            template_args: Variables of the template.
            template_date: What the template takes for today.

        Raises:
            ConfigError: The template cannot render one user turn and a response, or would
                have a response elsewhere, or there is neither a template nor a token to start
                from.
        """
        self._codec = Codec(tokenizer)
        self._policy = control_tokens
        self._word_ids: Ids | None = None
        self._start: Ids = ()
        self.end_of_turn_ids: Ids = ()
        self._end_note: tuple[str, ...] = ()
        self._template: ChatTemplate | None = None
        if template is None:
            self._start = (_start_id(tokenizer),)
            self._control = ControlTokens(tokenizer)
            return
        self._template = ChatTemplate(tokenizer, template, template_args or {}, template_date)
        self._control = ControlTokens(tokenizer, self._template.turns)
        if end_of_turn:
            self.end_of_turn_ids = self._codec.closing_ids(self._template.closing)
            self._end_note = () if self._template.closing.strip() else (NO_END_OF_TURN,)

    @property
    def template_date(self) -> datetime.date | None:
        """What the template takes for today; ``None`` where it does not ask."""
        return self._template.date if self._template else None

    def encode_all(self, rows: Sequence[Row]) -> list[TokenPair | TemplateError]:
        """Return rows as token ids, tokenized together, each text once.

        Args:
            rows: Messages of the prompt, response, and how to name the row in an error. Where
                the last message is the assistant's, the response continues it. A response is
                scored as given; never stripped.

        Returns:
            For each row its tokens, or why the template refuses the conversation.
        """
        drafts: list[_Draft | TemplateError] = []
        last: tuple[list[Message], _Prompt] | None = None
        for messages, response, where in rows:
            try:
                if last is None or last[0] != messages:
                    last = messages, self._prompt(messages, where)
                drafts.append(self._draft(last[1], response, where))
            except TemplateError as error:
                drafts.append(error)
        ordinary = [d for d in drafts if isinstance(d, _Draft) and d.codec is self._codec]
        ids = self._codec.ids_of(list({text for draft in ordinary for text in draft.texts}))
        return [
            self._pair(draft, ids, where) for draft, (_, _, where) in zip(drafts, rows, strict=True)
        ]

    def _prompt(self, messages: list[Message], where: str) -> _Prompt:
        """Render a prompt."""
        notes: tuple[str, ...] = ()
        if self._template is None:
            text = plain_text(messages)
        else:
            messages, notes = self._template.prompt(messages, where)
            text = self._template.render_prompt(messages, where)
        notes += left_out(messages, text)
        begun = str(messages[-1].get("content") or "") if is_prefill(messages) else ""
        if begun[:1].isspace() and self._codec.strips_after(text.removesuffix(begun)):
            notes += (SWALLOWED,)
        notes += (DATED.format(self.template_date),) if self.template_date else ()
        token = self._control.in_messages(messages)
        if self._policy == "error" and token:
            raise _holds_control("prompt", token, where)
        if self._policy != "text" or not token:
            return _Prompt(messages, text, notes, token, None, False)
        return _Prompt(messages, text, notes, token, *self._disguised(messages, text, where))

    def _disguised(self, messages: list[Message], text: str, where: str) -> tuple[str, bool]:
        """Return a prompt with the template's own control tokens disguised; if others are left.

        Raises:
            TemplateError: The template takes the texts apart, so that whose is whose is lost.
        """
        check_private(messages, "", where)
        if self._template is None:
            return text, True
        marked = self._control.mark(messages)
        rendered = self._template.render_prompt(marked, where)
        if unmarked(rendered) != text:
            raise TemplateError(
                f"{where}: the prompt holds a control token and the template changes such texts, "
                "so it cannot be kept as text. Take it out, or set control_tokens=parse."
            )
        # Without marks it is normalization that makes a control token of a text.
        return self._control.disguise(rendered), is_marked(rendered) or marked == messages

    def _draft(self, prompt: _Prompt, response: str, where: str) -> _Draft:
        text, notes, codec, glue = prompt.text, prompt.notes, self._codec, ""
        if self._template is not None and not is_prefill(prompt.messages):
            glue = self._template.glue
            if not self._template.keeps(prompt.messages, text, response, where):
                notes += (REWRITTEN,)
        token = self._control.in_text(response) or self._control.across(text + glue, response)
        if token and self._policy == "error":
            raise _holds_control("response", token, where)
        if self._policy == "parse" and (token or prompt.control):
            notes += (PARSED,)
        elif token or prompt.is_marked:
            check_private(prompt.messages, response, where)
            own = text if self._template is None else self._control.disguise(text)
            text = prompt.disguised or own
            notes, codec = (*notes, AS_TEXT), self._control.codec
        ahead = text + _WORD if self._template is None and text else text
        return _Draft(text, glue, response, ahead, notes, codec)

    def _pair(
        self, draft: _Draft | TemplateError, ids: Mapping[str, Ids], where: str
    ) -> TokenPair | TemplateError:
        if isinstance(draft, TemplateError):
            return draft
        try:
            ids = ids if draft.codec is self._codec else draft.codec.ids_of(draft.texts)
            return self._encoded(draft, ids, where)
        except TemplateError as error:
            return error
        except DataError as error:
            return TemplateError(f"{where}: {error}")

    def _encoded(self, draft: _Draft, ids: Mapping[str, Ids], where: str) -> TokenPair:
        prompt_ids, notes = self._prompt_ids(draft, ids), draft.notes
        if not prompt_ids:
            raise TemplateError(
                f"{where}: the chat template renders this prompt as nothing, so the first "
                "response token has nothing to be predicted from. Give a user message."
            )
        joint = (*self._start, *ids[draft.texts[1]])
        if draft.response[:1].isspace() and draft.codec.strips_after(draft.text + draft.glue):
            response_ids = draft.codec.ids_after(draft.text, draft.response)
            notes += (STRIPPED,)
        elif joint[: len(prompt_ids)] == prompt_ids:
            response_ids = joint[len(prompt_ids) :]
        else:
            response_ids = draft.codec.ids_after(draft.text, draft.glue + draft.response)
            notes += (SPLIT_APART,)
        end = self.end_of_turn_ids
        if end and response_ids[-len(end) :] == end:
            notes += (ALREADY_CLOSED,)
        else:
            response_ids += end
        return TokenPair(prompt_ids, response_ids, notes=notes + self._end_note)

    def _prompt_ids(self, draft: _Draft, ids: Mapping[str, Ids]) -> Ids:
        """Return a prompt's tokens; without a chat template, as they are in running text.

        Tokenizers in the manner of GPT-2 write a blank line as two tokens before a word and
        as one at the end of a text; a language model has met the former.
        """
        if draft.ahead == draft.text:
            return (*self._start, *ids[draft.text])
        if self._word_ids is None:
            self._word_ids = self._codec.ids_after("\n", _WORD)
        ended = draft.text.endswith("\n")
        word_ids = self._word_ids if ended else draft.codec.ids_after(draft.text, _WORD)
        ahead = ids[draft.ahead]
        cut = ahead[-len(word_ids) :] == word_ids
        return (*self._start, *(ahead[: -len(word_ids)] if cut else draft.codec.ids(draft.text)))


def _start_id(tokenizer: PreTrainedTokenizerBase) -> int:
    for start in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if isinstance(start, int):
            return start
    raise ConfigError(
        "template=none needs a token to start from, and the tokenizer has neither a BOS "
        "nor an EOS token. Use a chat template."
    )


def _holds_control(what: str, token: str, where: str) -> TemplateError:
    return TemplateError(
        f"{where}: the {what} holds the control token {token!r}. Take it out, or set "
        "control_tokens=text to read it as text, or parse."
    )
