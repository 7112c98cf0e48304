"""Prompts, and preference rows in the shapes that TRL defines, as checked plain values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set, Sized
from dataclasses import dataclass
from typing import Any

from drsow_plugin.errors import DataError
from drsow_plugin.records import Message, Prompt

KNOWN_ROLES = ("system", "user", "assistant", "tool", "developer", "function", "ipython")
REASONING = ("reasoning_content", "thinking", "reasoning")  # transformers reads all of them
_CALLS = ("tool_calls", "function_call")
_SHAREGPT = {"human": "user", "gpt": "assistant", "function_call": "assistant"}
_DIALOGUE = re.compile(r"(?:\A|\n\n)(?:Human|Assistant):")


class Messages(list[Message]):
    """Messages that :func:`as_messages` has checked; given them again, it returns them as such.

    A slice of them is a plain list.
    """


def as_messages(prompt: Prompt, where: str) -> Messages:
    """Return a prompt as a list of messages, checked once on the way down.

    Args:
        prompt: A string, which becomes one user turn, or a list of messages.
        where: How to name the row in an error, such as ``row 3``.

    Returns:
        The messages; nothing is stripped. Keys without a value, which Arrow adds where the
        messages of a data set differ in their keys, are left out.

    Raises:
        DataError: The prompt is neither, or a message lacks a role or text.
    """
    if isinstance(prompt, Messages):
        return prompt
    if isinstance(prompt, str):
        check_text(prompt, f"{where}, prompt")
        return Messages([{"role": "user", "content": prompt}])
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes):
        raise DataError(
            f"{where}: a prompt is a string or a list of messages, "
            f"got {type(prompt).__name__}. Give a string for a single user turn."
        )
    messages = (_message(turn, f"{where}, message {n}") for n, turn in enumerate(prompt))
    return Messages({k: v for k, v in turn.items() if v is not None} for turn in messages)


def _message(turn: object, where: str) -> Message:
    """Return a message with a role and a text, of whatever shape it is given in."""
    message: Mapping[str, Any] = turn if isinstance(turn, Mapping) else {}
    if isinstance(message.get("from"), str) and "value" in message and not message.get("role"):
        others = {key: value for key, value in message.items() if key not in ("from", "value")}
        role = _SHAREGPT.get(message["from"], message["from"])
        message = {**others, "role": role, "content": message["value"]}
    if not isinstance(message.get("role"), str):
        raise DataError(f"{where}: a message is {{'role': ..., 'content': ...}}, got {turn!r:.80}.")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_text_of_part(part, where) for part in content)
        message = {**message, "content": content}
    if not isinstance(content, str) and not message.get("tool_calls"):
        raise DataError(
            f"{where}: the content of a message is a string, "
            f"got {type(content).__name__}. Only text can be scored."
        )
    check_text(content or "", where)
    return message


def _text_of_part(part: object, where: str) -> str:
    """Return the text of a part of a message's content, ``{"type": "text", "text": ...}``."""
    values = part if isinstance(part, Mapping) else {"type": part}
    text, kind = values.get("text"), values.get("type")
    if not isinstance(text, str) or kind != "text":
        raise DataError(
            f"{where}: the content has a part of type {kind!r:.40}. Only text can be scored."
        )
    return text


def remarks(messages: Sequence[Message], response: str) -> tuple[str, ...]:
    """Return what about a row may not be read as it was meant, as notes."""
    roles = dict.fromkeys(m["role"] for m in messages if m["role"] not in KNOWN_ROLES)
    texts = [str(message.get("content") or "") for message in messages]
    notes = [f"the role {role!r} is none that chat templates know" for role in roles]
    if not any(text.strip() for text in texts):
        notes.append("the prompt is empty")
    if not response.strip():
        notes.append("the response is empty")
    if any(_DIALOGUE.search(text) for text in (*texts, response)):
        notes.append("'Human:' and 'Assistant:' in a text are read as text, not as turns")
    return tuple(notes)


def unscored(response: object) -> tuple[str, ...]:
    """Return what a response, a message or a list that ends with it, has beside what is scored.

    Returns:
        Notes; none where the response is a text.
    """
    last = response[-1] if isinstance(response, list) and response else response
    if not isinstance(last, Mapping):
        return ()
    return tuple(
        f"the response has a {name!r} beside its text, which is not scored"
        for name in REASONING
        if last.get(name)
    )


def check_lists(prompts: object, responses: object) -> None:
    """Check that there is one prompt for each response, both in a list.

    Raises:
        DataError: There is not.
    """
    for name, value in (("prompts", prompts), ("responses", responses)):
        if isinstance(value, (str, bytes, Mapping, Set)) or not isinstance(value, Sized):
            raise DataError(
                f"{name} is a list with one entry for each row, got {type(value).__name__}."
            )
    assert isinstance(prompts, Sized) and isinstance(responses, Sized)
    if len(prompts) != len(responses):
        raise DataError(
            f"prompts and responses differ in length: {len(prompts)} prompts, "
            f"{len(responses)} responses. Give one prompt for each response."
        )


def check_text(text: str, where: str) -> None:
    """Check that a text is Unicode that a tokenizer can read.

    Raises:
        DataError: It has half of a surrogate pair, as text that was cut by bytes has.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: not valid Unicode at character {error.start} ({text[error.start]!r}). "
            "Fix the text, for example with text.encode('utf-16', 'surrogatepass')."
            "decode('utf-16', 'replace')."
        ) from error


def plain_text(messages: Sequence[Message]) -> str:
    """Return a conversation as a model without a chat template reads it.

    The contents of all messages, each followed by a blank line, without role names. A last
    message of the assistant's is continued itself, so no blank line follows it.
    """
    text = "".join(f"{m['content']}\n\n" for m in messages if m.get("content"))
    prefill = is_prefill(messages) and messages[-1].get("content")
    return text.removesuffix("\n\n") if prefill else text


def join_system(messages: Sequence[Message], instruction: str | None) -> list[Message]:
    """Return a conversation with an instruction before what its own system message says.

    Args:
        messages: The conversation.
        instruction: Becomes the system message; where there is one, that follows after a blank
            line. Nothing is done without one.
    """
    if not instruction:
        return list(messages)
    if messages and messages[0]["role"] == "system":
        text = "\n\n".join(filter(None, (instruction, messages[0].get("content"))))
        return [{**messages[0], "content": text}, *messages[1:]]
    return [{"role": "system", "content": instruction}, *messages]


def is_prefill(messages: Sequence[Message]) -> bool:
    """Tell whether a response continues the last message, which is the assistant's."""
    return bool(messages) and messages[-1]["role"] == "assistant"


@dataclass(frozen=True)
class Preference:
    """One preference row: a prompt and two responses to it."""

    prompt: Messages
    chosen: str
    rejected: str


def as_preference(row: Mapping[str, Any], where: str) -> Preference:
    """Return a preference row in any of TRL's shapes as a prompt and two responses.

    Accepted are explicit prompts (``prompt``, ``chosen``, ``rejected``) and implicit ones
    (the prompt is the common beginning of ``chosen`` and ``rejected``), each as strings or
    as messages; see TRL's "Dataset formats and types". Where ``prompt`` is a string beside
    whole conversations, as in UltraFeedback binarized, the conversations count.

    Args:
        row: Has ``chosen`` and ``rejected``, and for an explicit prompt ``prompt``.
        where: How to name the row in an error.

    Raises:
        DataError: A value is missing or of the wrong type, the two responses do not follow
            one prompt, or a response has more than one turn.
    """
    chosen: Any = row.get("chosen")
    rejected: Any = row.get("rejected")
    prompt = row.get("prompt")
    _check_pair(chosen, rejected, where)
    if "prompt" in row and prompt is None:
        raise DataError(f"{where}: the prompt is missing. Give one, or leave the row out.")
    is_in_responses = isinstance(prompt, str) and isinstance(chosen, list) and len(chosen) > 1
    if prompt is None or is_in_responses:
        cut = _common_length(chosen, rejected, where)
        prompt, chosen, rejected = chosen[:cut], chosen[cut:], rejected[cut:]
    return Preference(
        prompt=as_messages(prompt, where),
        chosen=response_text(chosen, f"{where}, chosen"),
        rejected=response_text(rejected, f"{where}, rejected"),
    )


def _check_pair(chosen: Any, rejected: Any, where: str) -> None:
    """Check that two responses are two texts or two lists of messages."""
    if type(chosen) is not type(rejected) or not isinstance(chosen, (str, list)):
        raise DataError(
            f"{where}: chosen and rejected are two strings or two lists of messages, "
            f"got {type(chosen).__name__} and {type(rejected).__name__}."
        )
    values = [*chosen, *rejected] if isinstance(chosen, list) else []
    if values and all(isinstance(value, str) for value in values):
        raise DataError(
            f"{where}: chosen and rejected are lists of texts ({len(chosen)} and "
            f"{len(rejected)}), as in RewardBench 2 and RM-Bench, and a row is to hold one "
            "pair. Make a row of each chosen with each rejected text."
        )


def _common_length(chosen: str | list[Message], rejected: str | list[Message], where: str) -> int:
    """Return the length of the common beginning; a text's last space belongs to the response."""
    pairs = zip(chosen, rejected, strict=False)
    cut = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(chosen), len(rejected)))
    if isinstance(chosen, str) and cut and chosen[cut - 1] == " ":
        cut -= 1
    if isinstance(chosen, list) and cut == len(chosen) == len(rejected):
        cut -= 1  # identical conversations: the last turn is the response of both
    if cut <= 0:
        raise DataError(
            f"{where}: there is no prompt column, and chosen and rejected have no common "
            "beginning that could be the prompt. Add a prompt column."
        )
    return cut


def response_text(response: str | list[Message], where: str) -> str:
    """Return the text of a response, given as a string or as a list of one assistant message.

    Raises:
        DataError: It is a message of another role, more than one, without text, or with tool
            calls, of which the text would be a part alone.
    """
    if isinstance(response, str):
        return response
    turns = [_message(turn, where) for turn in response]
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        raise DataError(
            f"{where}: a response is one assistant message, got roles "
            f"{[turn['role'] for turn in turns]}. Move the earlier turns into the prompt."
        )
    check_no_calls(turns[0], where)
    content: str = turns[0]["content"]
    return content


def check_no_calls(response: Mapping[str, Any], where: str) -> None:
    """Check that a response calls no tools beside what its text says.

    Raises:
        DataError: It does.
    """
    if any(response.get(name) for name in _CALLS):
        raise DataError(
            f"{where}: the response has tool calls, and only text can be scored. Give all that "
            "the model is to write as a text."
        )
