"""Which parts of a response the reward comes from: log-probs of both models, side by side."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drsow_plugin.records import SIDES, Prompt, Reward, SideName, TokenPair
from drsow_plugin.tokens.spans import Span, Spans

if TYPE_CHECKING:
    from drsow_plugin.scoring.drsow import DrSoW


@dataclass(frozen=True)
class Segment:
    """Characters of a response before and behind which both models have a token's bound.

    Where both models read the same tokens that is one token, or the tokens of one character.

    Attributes:
        start: The first character.
        end: The one after the last; ``start`` for what the template writes around the response.
        strong: Summed log-prob under the strong model, nats.
        weak: The same under the weak model.
        strong_tokens: How many tokens of the strong model that is.
        weak_tokens: How many of the weak model.
    """

    start: int
    end: int
    strong: float
    weak: float
    strong_tokens: int
    weak_tokens: int


@dataclass(frozen=True)
class TokenView:
    """A response and where its reward comes from.

    Attributes:
        text: The response.
        segments: All of it in order, without gaps; first what stands before the response, such as
            a line break, and last what stands after it, such as the end of the turn.
        reward: The reward as it was computed with these log-probs.
    """

    text: str
    segments: tuple[Segment, ...]
    reward: Reward

    def parts(self) -> list[float]:
        """Return how much each segment adds to the reward; the sum is the reward.

        In nats; with ``reduction=mean`` in nats a token, each side's log-probs divided by the
        number of all of its tokens.
        """
        strong, weak = 1, 1
        if self.reward.scoring.reduction == "mean":
            strong, weak = self.reward.strong_tokens, self.reward.weak_tokens
        return [s.strong / strong - s.weak / weak for s in self.segments]

    def label(self, segment: Segment) -> str:
        """Return the characters of a segment, or what else it is."""
        if segment.end > segment.start:
            return self.text[segment.start : segment.end]
        return BEFORE if segment is self.segments[0] and self.text else END


BEFORE, END = "\u2039before the response\u203a", "\u2039end of turn\u203a"


def segments(
    spans: Mapping[SideName, Sequence[Span]],
    logprobs: Mapping[SideName, Sequence[float]],
    length: int,
) -> list[Segment]:
    """Return the shortest segments of a response that both models' tokens can be summed over.

    Args:
        spans: By side the characters of each token, as :meth:`Spans.of` returns them.
        logprobs: By side ln p of each token, nats.
        length: Characters of the response.
    """
    bounds = [{end for start, end in spans[side] if end > start} for side in SIDES]
    # All of a response may be what one of the tokenizers writes nothing for, such as white space.
    ends = sorted((bounds[0] & bounds[1]) | ({length} if bounds[0] | bounds[1] else set()))
    before, after = -1, len(ends)
    sums = {place: {side: [0.0, 0.0] for side in SIDES} for place in range(-1, after + 1)}
    for side in SIDES:
        upcoming = 0
        for (start, end), logprob in zip(spans[side], logprobs[side], strict=True):
            if start < end:
                while ends[upcoming] < end:
                    upcoming += 1
                place = upcoming
            else:
                place = before if length and end == 0 else bisect_left(ends, end)
                place = after if end == length else place
            sums[place][side][0] += logprob
            sums[place][side][1] += 1
    found = []
    for place, of in sums.items():
        first = 0 if place <= 0 else ends[place - 1] if place < after else length
        last = 0 if place < 0 else ends[place] if place < after else length
        strong, weak = of["strong"], of["weak"]
        if strong[1] or weak[1]:
            found.append(Segment(first, last, strong[0], weak[0], int(strong[1]), int(weak[1])))
    return found


class TokenReader:
    """Computes where rewards come from, with an opened pair of models."""

    def __init__(self, drsow: DrSoW) -> None:
        """Remember the pair."""
        self._drsow = drsow
        self._spans = {side: Spans(model.tokenizer) for side, model in drsow.models.items()}

    def read(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        domains: Sequence[str | None] | None = None,
    ) -> list[TokenView]:
        """Return a view of each response; of one that cannot be scored, without segments.

        Args:
            prompts: One for each response; a string is a single user turn.
            responses: The responses.
            domains: See :meth:`drsow_plugin.DrSoW.score`.

        Raises:
            EngineError: A model failed.
        """
        rows = self._drsow.read(prompts, responses, domains=domains, on_error="null")
        rewards = self._drsow.score_rows(rows, on_error="null", token_logprobs=True)
        return [
            TokenView(text, tuple(self._segments(row.pairs, reward, text)), reward)
            for row, reward, text in zip(rows, rewards, responses, strict=True)
        ]

    def _segments(
        self, pairs: Mapping[SideName, TokenPair], reward: Reward, text: str
    ) -> list[Segment]:
        strong, weak = reward.strong_token_logprobs, reward.weak_token_logprobs
        if reward.reward is None or strong is None or weak is None:
            return []
        spans = {side: self._spans[side].of(pairs[side], text) for side in SIDES}
        return segments(spans, {"strong": strong, "weak": weak}, len(text))


def deciding(views: Iterable[tuple[TokenView, int]], top: int) -> list[tuple[str, int, float]]:
    """Return the segments that a comparison hangs on, the weightiest first.

    Args:
        views: Each response, and 1 where its reward counts for the decision or -1 against it.
        top: How many at most.

    Returns:
        The text, 1 or -1, and what the segment adds to the margin, nats.
    """
    found = [
        (view.label(segment), sign, sign * part)
        for view, sign in views
        for segment, part in zip(view.segments, view.parts(), strict=True)
    ]
    return sorted(found, key=lambda entry: -abs(entry[2]))[:top]
