"""Engines answer the log-probs of token pairs; one method is all there is to provide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from drsow_plugin.records import Problem, TokenPair

TokenLogProbs = Sequence[float] | Problem
"""ln p of each response token, in nats, or why there is none."""


class Engine(Protocol):
    """What computes log-probs: of one model, whatever and wherever it is.

    An engine that is to label data, or to be described in results, has an attribute
    ``identity`` too: a text that is another whenever its log-probs would be others.
    """

    def logprobs(self, pairs: Sequence[TokenPair]) -> Iterable[tuple[int, TokenLogProbs]]:
        """Score responses.

        Args:
            pairs: Prompts and responses as token ids, no two the same and none empty.

        Yields:
            For each pair, in any order and as soon as it is known, its index and the log-prob
            of each of its response tokens; or, where there is none, why. What comes of a pair
            does not depend on the other pairs beyond rounding.

        Raises:
            EngineError: The engine failed, so that nothing more comes.
            IndexError: A token is not in the vocabulary.
        """
        ...


@runtime_checkable
class LazyEngine(Engine, Protocol):
    """An engine that gets ready when it is first used, such as one whose weights are loaded."""

    @property
    def is_loaded(self) -> bool:
        """Whether scoring may begin at once."""
        ...

    @property
    def device(self) -> str:
        """Where it computes, in words."""
        ...

    def load(self) -> None:
        """Get ready, if that was never done.

        Raises:
            ConfigError: That cannot be as it was asked for.
            EngineError: There is not enough memory.
        """
        ...
