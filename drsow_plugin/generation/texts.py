"""Prompts to token ids and back to responses, with a policy's own template and tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from drsow_plugin.errors import DataError, OverflowLengthError
from drsow_plugin.generation.policy import Ask, Sample
from drsow_plugin.models.language_model import LanguageModel
from drsow_plugin.models.row import ModelRow
from drsow_plugin.records import TOO_LONG, Problem

if TYPE_CHECKING:
    from drsow_plugin.models.sampling import Sampled

_ANY = "A"  # stands for the response while a prompt is tokenized


def prompt_ids(
    model: LanguageModel, asks: Sequence[Ask], room: int
) -> Iterator[tuple[int, ...] | Problem]:
    """Yield the tokens of each prompt, or why it cannot be answered.

    Args:
        model: The policy.
        asks: What is asked for.
        room: Tokens that a response may take.
    """
    rows = [ModelRow(ask.messages, _ANY, ask.where) for ask in asks]
    limit = model.identity.max_length
    for ask, pair in zip(asks, model.tokenize(rows), strict=True):
        if isinstance(pair, DataError) and not isinstance(pair, OverflowLengthError):
            yield Problem.of(pair, ask.where)
        elif isinstance(pair, DataError) or (
            limit is not None and len(pair.prompt_ids) + room > limit
        ):
            yield Problem(
                TOO_LONG,
                f"the prompt leaves no room for max_tokens={room}: the policy reads {limit} "
                "tokens. Shorten it, or lower max_tokens",
            )
        else:
            yield tuple(pair.prompt_ids)


def as_sample(model: LanguageModel, sampled: Sampled) -> Sample:
    """Return generated tokens as a response."""
    text = model.tokenizer.decode(sampled.ids, skip_special_tokens=True)
    return Sample(str(text), len(sampled.ids), "stop" if sampled.stopped else "length")
