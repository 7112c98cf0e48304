"""Engines answer the log-probs of token pairs; one method is all there is to provide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from drsow_plugin.records import LogProb, TokenPair


class Engine(Protocol):
    """What computes log-probs."""

    def logprobs(self, pairs: Sequence[TokenPair], label: str) -> list[LogProb]:
        """Score responses.

        Args:
            pairs: Prompts and responses as token ids.
            label: What a progress bar calls this work.

        Returns:
            One log-prob, in nats, for each pair, in order. A pair's value does not depend
            on the other pairs beyond rounding.

        Raises:
            NonFiniteError: A log-prob came out as NaN or infinite.
            EngineError: The model failed in another way.
        """
        ...
