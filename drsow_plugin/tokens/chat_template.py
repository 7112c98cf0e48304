"""A chat template and what is known of it: what it writes around a response, and its roles."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from drsow_plugin.errors import ConfigError, TemplateError
from drsow_plugin.prompts import is_prefill
from drsow_plugin.records import Message
from drsow_plugin.tokens.compiled_template import CompiledTemplate
from drsow_plugin.tokens.turns import SYSTEM_MERGED, merge_system, said

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPT, RESPONSE = "What is asked?", "drsow-probe-response"
_TURN: list[Message] = [{"role": "user", "content": PROMPT}]
_REASONED = f"<think>\ndrsow-probe-thought\n</think>\n\n{RESPONSE}"

_ADVICE = (
    "Set what the template has for that, such as template_args='{\"enable_thinking\": false}' for "
    "responses without reasoning (true for those with their own), or give a template whose "
    "generation prompt ends where a response begins: template=FILE."
)


class ChatTemplate:
    """Renders conversations with one template.

    Attributes:
        glue: White space between the generation prompt and a response.
        closing: What the template writes after a response.
        turns: What it renders of a prompt, and of a conversation that goes on.
        date: What it takes for today; ``None`` where it does not ask.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        source: str,
        args: Mapping[str, Any],
        date: datetime.date,
    ) -> None:
        """Probe the template.

        Args:
            tokenizer: The model's tokenizer.
            source: Jinja source.
            args: Variables of the template.
            date: What it takes for today.

        Raises:
            ConfigError: It cannot render one user turn and a response, does not read one of
                the variables, or does not write a response where its generation prompt ends.
        """
        self._template = CompiledTemplate(tokenizer, source, args, date)
        self.date = self._template.date
        prompt, before, self.closing = self._probe(RESPONSE)
        glue = before[len(prompt) :] if before.startswith(prompt) else ""
        self.glue = glue if not glue.strip() else ""
        if _differ(prompt, before) and not (args and self._takes_reasoning()):
            raise ConfigError(
                f"The chat template's generation prompt ends in {_tail(prompt)[-40:]!r}, and a "
                f"finished response stands behind {_tail(before)[-60:]!r}: it would be scored "
                f"where it never stands. {_ADVICE}"
            )
        self.turns = self._probe_turns(prompt)
        self._takes_system = self._probe_system()

    def prompt(
        self, messages: Sequence[Message], where: str
    ) -> tuple[list[Message], tuple[str, ...]]:
        """Return a prompt's messages as the template takes them, and notes.

        Raises:
            TemplateError: There is a system message, no role and no turn for it.
        """
        if messages and messages[0]["role"] == "system" and not self._takes_system:
            return merge_system(messages, where), (SYSTEM_MERGED,)
        return list(messages), ()

    def render_prompt(self, messages: Sequence[Message], where: str) -> str:
        """Render a prompt up to where the response begins.

        A last message of the assistant's is what a response begins with: it stands behind the
        generation prompt as it is, whatever the template does to finished turns.

        Raises:
            TemplateError: The template refuses the conversation.
        """
        try:
            if is_prefill(messages):
                begun = messages[-1].get("content") or ""
                return self._template.render(messages[:-1], prompt=True) + self.glue + begun
            return self._template.render(messages, prompt=True)
        except Exception as error:  # whatever a template, which is a program, runs into
            raise TemplateError(
                f"{where}: the chat template refuses this conversation: {said(error)}. Check the "
                "order of the roles, or give another template."
            ) from error

    def keeps(self, messages: Sequence[Message], text: str, response: str, where: str) -> bool:
        """Tell whether the template, given the finished conversation, keeps it as scored.

        Args:
            messages: The prompt, as :meth:`prompt` returned it.
            text: The prompt, rendered.
            response: What is to follow.
            where: How to name the row in an error.

        Raises:
            TemplateError: It writes something between the prompt and this response.
        """
        answer = {"role": "assistant", "content": response}
        try:
            whole = self._template.render([*messages, answer], prompt=False)
        except Exception:  # as above; the prompt alone was rendered
            return False
        if whole.startswith(text + self.glue + response):
            return True
        between, match, _ = whole.removeprefix(text).partition(response)
        if whole.startswith(text) and response.strip() and match and between.strip():
            raise TemplateError(
                f"{where}: between the prompt and this response the template writes "
                f"{between!r:.60}. {_ADVICE}"
            )
        return False

    def _probe(self, response: str) -> tuple[str, str, str]:
        """Return a rendered prompt, and what the finished conversation has around a response."""
        try:
            prompt = self._template.render(_TURN, prompt=True)
            answer = {"role": "assistant", "content": response}
            whole = self._template.render([*_TURN, answer], prompt=False)
        except Exception as error:  # as above
            raise ConfigError(
                f"The chat template cannot render a user turn and a response: {said(error)}. "
                "Check the template, or use template=none."
            ) from error
        before, match, after = whole.rpartition(response)
        if not match:
            raise ConfigError(
                "The chat template leaves the assistant's message out. Give another template."
            )
        return prompt, before, after

    def _takes_reasoning(self) -> bool:
        """Tell whether a response that begins with its reasoning stands where it is scored."""
        try:
            prompt, before, _ = self._probe(_REASONED)
        except ConfigError:
            return False
        return not _differ(prompt, before)

    def _probe_turns(self, prompt: str) -> tuple[str, ...]:
        answer = {"role": "assistant", "content": RESPONSE}
        try:
            return prompt, self._template.render([*_TURN, answer, *_TURN], prompt=False)
        except Exception:  # as above; a template for one turn
            return ()

    def _probe_system(self) -> bool:
        try:
            system = {"role": "system", "content": RESPONSE}
            return RESPONSE in self._template.render([system, *_TURN], prompt=True)
        except Exception:  # as above; a template without a system role
            return False


def _differ(prompt: str, before: str) -> bool:
    """Tell whether a response is not where the prompt ends, in more than white space.

    What the template does to the user's turn once it is answered does not count.
    """
    short, long = sorted(("".join(_tail(text).split()) for text in (prompt, before)), key=len)
    return short != long and not (short and long.endswith(short))


def _tail(text: str) -> str:
    return text.rpartition(PROMPT)[2]
