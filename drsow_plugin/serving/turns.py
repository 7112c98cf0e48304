r"""Rendered conversations, taken apart into turns again: exactly, or not at all.

A prompt of a known format is headers, texts and closings in turn, and ends with the header of the
answer::

    <|im_start|>user\nName a prime.<|im_end|>\n<|im_start|>assistant\n

What is taken apart is therefore, put together again, the prompt to the last character. A text in
which a header or a closing is left over is refused: whose it is cannot be known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from drsow_plugin.errors import DataError, unknown_name
from drsow_plugin.prompts import KNOWN_ROLES
from drsow_plugin.records import Message

UNFINISHED = "the response does not end its turn; its end is scored with it all the same"


@dataclass(frozen=True)
class Format:
    """How a chat template writes turns.

    Attributes:
        opens: What headers begin with; none stands in a text.
        header: A pattern of the whole header, with the role as its group.
        closing: What ends a turn; without white space around it, it stands in no text.
        ends: What a response may end with: the closing's token, or the end of the text.
        start: What may stand before the first turn.
        begun: What the template may write behind the header of the answer.
        preamble: A pattern of what the template itself writes first into a system message.
    """

    opens: tuple[str, ...]
    header: str
    closing: str
    ends: tuple[str, ...]
    start: str = ""
    begun: tuple[str, ...] = ("",)
    preamble: str = ""


_CHATML = Format(
    opens=("<|im_start|>",),
    header=r"<\|im_start\|>(\w+)\n",
    closing="<|im_end|>\n",
    ends=("<|im_end|>", "<|endoftext|>"),
)
_LLAMA3 = Format(
    opens=("<|start_header_id|>",),
    header=r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n",
    closing="<|eot_id|>",
    ends=("<|eot_id|>", "<|end_of_text|>"),
    start="<|begin_of_text|>",
)
_BARE = ("<|system|>", "<|user|>", "<|assistant|>")
FORMATS = {
    "chatml": _CHATML,
    "qwen3": replace(_CHATML, begun=("", "<think>\n\n</think>\n\n")),
    "llama3": _LLAMA3,
    "llama3.1": replace(
        _LLAMA3, preamble=r"Cutting Knowledge Date: December 2023\nToday Date: [^\n]+\n\n"
    ),
    "gemma": Format(
        opens=("<start_of_turn>",),
        header=r"<start_of_turn>(\w+)\n",
        closing="<end_of_turn>\n",
        ends=("<end_of_turn>", "<eos>"),
        start="<bos>",
    ),
    "phi3": Format(
        opens=_BARE,
        header=r"<\|(system|user|assistant)\|>\n",
        closing="<|end|>\n",
        ends=("<|end|>", "<|endoftext|>"),
        start="<s>",
    ),
    "zephyr": Format(
        opens=_BARE,
        header=r"<\|(system|user|assistant)\|>\n",
        closing="</s>\n",
        ends=("</s>",),
        start="<s>",
    ),
}
"""The formats that are known, by name."""

_ROLES = {"model": "assistant"}


def turns_of(text: str, name: str) -> list[Message]:
    """Return the turns of a rendered prompt.

    Args:
        text: The prompt as the template rendered it, up to where the answer begins.
        name: One of ``FORMATS``.

    Raises:
        DataError: It is not a prompt of that format, to the last character.
    """
    form = _format(name)
    position = len(form.start) if text.startswith(form.start) else 0
    turns: list[Message] = []
    while True:
        header = re.compile(form.header).match(text, position)
        if header is None:
            raise _unlike(name, f"no turn begins at {text[position:]!r:.60}", position)
        role = _ROLES.get(header[1], header[1])
        if role not in KNOWN_ROLES:
            raise _unlike(name, f"a turn has the unknown role {header[1]!r}", position)
        end = text.find(form.closing, header.end())
        content = text[header.end() : None if end < 0 else end]
        if end < 0:
            _check_last(form, name, role, content, position)
            break
        _check_text(form, name, content, position)
        turns.append({"role": role, "content": content})
        position = end + len(form.closing)
    if not turns:
        raise _unlike(name, "there is no turn before the answer", 0)
    return _without_preamble(form, name, turns)


def response_of(text: str, name: str) -> tuple[str, tuple[str, ...]]:
    """Return a response without the end of its turn, and notes.

    Args:
        text: The response, as its token ids read with control tokens.
        name: One of ``FORMATS``.

    Raises:
        DataError: More than one turn is in it.
    """
    form = _format(name)
    end = next((end for end in form.ends if text.endswith(end)), "")
    response = text.removesuffix(end)
    for token in (*form.opens, *form.ends):
        if token in response:
            raise DataError(
                f"the response holds {token!r}, so that it is more than one turn of {name}. Send "
                "the response alone."
            )
    return response, () if end else (UNFINISHED,)


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise DataError(unknown_name("format of turns", name, FORMATS))
    return FORMATS[name]


def _check_last(form: Format, name: str, role: str, content: str, position: int) -> None:
    if role != "assistant":
        raise _unlike(name, f"the last turn is of the {role} and is not closed", position)
    if content not in form.begun:
        raise _unlike(name, f"the answer is begun already, with {content!r:.60}", position)


def _check_text(form: Format, name: str, content: str, position: int) -> None:
    for token in (*form.opens, form.closing.strip()):
        if token in content:
            raise _unlike(name, f"a turn holds {token!r} in its text", position)


def _without_preamble(form: Format, name: str, turns: list[Message]) -> list[Message]:
    if not form.preamble:
        return turns
    first = turns[0]
    written = re.match(form.preamble, first["content"]) if first["role"] == "system" else None
    if written is None:
        raise _unlike(name, "it does not begin with the dates that the template writes", 0)
    system = first["content"][written.end() :]
    return [{"role": "system", "content": system}, *turns[1:]] if system else turns[1:]


def _unlike(name: str, why: str, position: int) -> DataError:
    return DataError(
        f"the prompt is not one of {name}: {why} (character {position}). Name the template that "
        "rendered it, or score it as it stands with --prompts rendered."
    )
