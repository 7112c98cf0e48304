"""Token ids back to texts: which characters of a response each token stands for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from drsow_plugin.records import TokenPair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONTEXT = 6  # tokens before a response that decide how its first one is written
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what the bytes of half a character are written as

Span = tuple[int, int]
"""First character, and the one after the last."""


class Spans:
    """Finds the characters of tokens with one tokenizer; remembers the texts of its tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Remember the tokenizer."""
        self._tokenizer: Any = tokenizer
        self._texts: dict[int, str] = {}

    def of(self, pair: TokenPair, response: str) -> list[Span]:
        """Return the characters of each response token.

        Tokens of one character, which is made of several where they are bytes, all have it. A token
        before the response, such as a line break of the template, has ``(0, 0)``, and one after it,
        such as the end of the turn, the length of the response twice.

        Args:
            pair: The tokens.
            response: What they were made of.

        Returns:
            One span a token, in order; together those of the response are the whole of it.
        """
        ends = list(self._ends(pair.prompt_ids[-_CONTEXT:], pair.response_ids))
        written = self._decode([*pair.prompt_ids[-_CONTEXT:], *pair.response_ids])
        written = written[len(written) - ends[-1] :] if ends else ""
        places = _places(written, response)
        return [(places[first], places[last]) for first, last in _whole_characters(ends)]

    def _ends(self, before: Sequence[int], ids: Sequence[int]) -> Iterator[int]:
        """Yield how many characters are written with each token, from the response's first on."""
        alone = [self._alone(token) for token in ids]
        together = self._decode([*before, *ids])
        if together.endswith("".join(alone)) and not any(_UNFINISHED in text for text in alone):
            ahead = len(together) - sum(map(len, alone))
            if together[:ahead] == self._decode(before):
                length = 0
                for text in alone:
                    length += len(text)
                    yield length
                return
        # The end of a text decides how it is written: what a token adds is seen with those before.
        tokens = [*before, *ids]
        first = read = len(before)
        start = length = 0
        for place in range(first, len(tokens)):
            known = self._decode(tokens[start:read])
            more = self._decode(tokens[start : place + 1])
            if len(more) > len(known) and not more.endswith(_UNFINISHED):
                length += len(more) - len(known)
                start, read = read, place + 1
            elif place + 1 == len(tokens):
                length += max(0, len(more) - len(known))
            yield length

    def _alone(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = self._decode([token])
        return self._texts[token]

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text


def _places(written: str, response: str) -> list[int]:
    """Return where in a response each character stands that its tokens are written with.

    Args:
        written: What the tokens say: the response, and what the template has around it.
        response: The response.

    Returns:
        One place for each character of ``written`` and one for its end, none smaller than the one
        before. Where a tokenizer changes texts, characters that are no longer there have the place
        of the next that is.
    """
    ahead = written.find(response)
    if ahead < 0 and len(written.casefold()) == len(written):
        ahead = written.casefold().find(response.casefold())
    if ahead >= 0:
        return [min(max(place - ahead, 0), len(response)) for place in range(len(written) + 1)]
    places = [0] * (len(written) + 1)
    last = 0
    matcher = SequenceMatcher(None, written, response, autojunk=False)
    for first, second, size in matcher.get_matching_blocks():
        for place in range(last, first):
            places[place] = second
        for offset in range(size):
            places[first + offset] = second + offset
        last = first + size
    places[last:] = [len(response)] * (len(places) - last)
    return places


def _whole_characters(ends: Sequence[int]) -> list[Span]:
    """Return from where to where each token writes; those of one character all have it."""
    spans: list[Span] = []
    start = waiting = 0
    for end in ends:
        waiting += 1
        if end > start:
            spans += [(start, end)] * waiting
            start, waiting = end, 0
    return [*spans, *[(start, start)] * waiting]
