"""Engines answer the log-probs of token pairs; one method is all there is to provide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from drsow_plugin.records import LogProb, TokenPair


class Engine(Protocol):
    """What computes log-probs."""

    def logprobs(
        self,
        pairs: Sequence[TokenPair],
        advance: Callable[[int], object] = ...,
        *,
        per_token: bool = False,
        strict: bool = True,
    ) -> list[LogProb]:
        """Score responses.

        Args:
            pairs: Prompts and responses as token ids.
            advance: Called with the number of tokens, prompts included, just dealt with.
            per_token: Whether to return the log-prob of each token too.
            strict: Whether a pair that fails stops the work; else its log-prob says why.

        Returns:
            One log-prob, in nats, for each pair, in order. A pair's value does not depend
            on the other pairs beyond rounding.

        Raises:
            NonFiniteError: A log-prob came out as NaN or infinite, and ``strict``.
            EngineError: There is not enough memory for a row.
            IndexError: A token is not in the vocabulary.
        """
        ...
