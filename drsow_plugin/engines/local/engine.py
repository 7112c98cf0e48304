"""The engine that runs transformers in this process."""

from __future__ import annotations

import logging
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from drsow_plugin.engines.local.budget import Budget, fitting_tokens
from drsow_plugin.engines.local.masks import UnshareableError
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.packed import score_packed
from drsow_plugin.engines.local.padded import score_padded
from drsow_plugin.engines.local.probe import Sharing
from drsow_plugin.errors import EngineError, NonFiniteError
from drsow_plugin.records import NOT_FINITE, OUT_OF_MEMORY, LogProb, TokenPair

logger = logging.getLogger(__name__)

_Row = tuple[tuple[int, ...], tuple[int, ...]]


def _ignore(_tokens: int) -> None:
    """Take no notice of progress."""


class LocalEngine:
    """Scores token pairs with one causal language model of transformers."""

    def __init__(
        self,
        network: Network,
        sharing: Sharing | None,
        *,
        batch_tokens: int | None = None,
        batch_size: int | None = None,
        adapter: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Wrap a loaded model.

        Args:
            network: The model.
            sharing: How rows share prefixes, by
                :func:`~drsow_plugin.engines.local.probe.find_sharing`; ``None`` if they do not.
            batch_tokens: Most tokens computed at once; ``None`` fits the free memory. It is
                halved whenever the device runs out of memory.
            batch_size: Most rows at once; ``None`` is no limit.
            adapter: Returns a context in which the model's adapter is the right one.
        """
        self._network = network
        self._sharing = sharing
        self._tokens, self._rows = batch_tokens, batch_size
        self._most = network.max_tokens or sys.maxsize
        self._adapter = adapter

    def logprobs(
        self,
        pairs: Sequence[TokenPair],
        advance: Callable[[int], object] = _ignore,
        *,
        per_token: bool = False,
        strict: bool = True,
    ) -> list[LogProb]:
        """Score responses; see :class:`drsow_plugin.engines.Engine`."""
        distinct: dict[_Row, int] = {}
        repeats: Counter[_Row] = Counter()
        for index, pair in enumerate(pairs):
            if pair.response_ids:
                distinct.setdefault((pair.prompt_ids, pair.response_ids), index)
                repeats[pair.prompt_ids, pair.response_ids] += 1
            else:
                advance(len(pair))
        done: dict[int, LogProb] = {}
        # What is free may have changed since the last call, but not what was too much once.
        tokens = self._tokens or fitting_tokens(self._network)
        budget = Budget(min(tokens, self._most), self._rows)
        with torch.inference_mode(), self._adapter():
            for index, scored in self._scored(pairs, [*distinct.values()], budget):
                logprob = _summed(scored, pairs[index], per_token)
                if logprob.failure and strict:
                    raise _error(logprob.failure, index)
                done[index] = logprob
                pair = pairs[index]
                advance(len(pair) * repeats[pair.prompt_ids, pair.response_ids])
        if budget.tokens < tokens:
            self._most = budget.tokens
        empty = LogProb(0.0, 0, () if per_token else None)
        return [
            done[distinct[pair.prompt_ids, pair.response_ids]] if pair.response_ids else empty
            for pair in pairs
        ]

    def _scored(
        self, pairs: Sequence[TokenPair], indices: Sequence[int], budget: Budget
    ) -> Iterator[tuple[int, list[float] | None]]:
        """Yield the index of each row with the log-probs of its response tokens."""
        sharing, apart = self._sharing, indices
        if sharing is not None:
            longest = sharing.max_length or sys.maxsize
            together = [index for index in indices if len(pairs[index]) - 1 <= longest]
            apart = [index for index in indices if len(pairs[index]) - 1 > longest]
            left = set(together)
            try:
                rows = [pairs[index] for index in together]
                for row, scored in score_packed(self._network, sharing.kernel, rows, budget):
                    # A NaN among rows that share a prefix may be that of another row.
                    if scored is None or all(map(math.isfinite, scored)):
                        left.discard(together[row])
                        yield together[row], scored
            except UnshareableError as error:
                self._sharing = None
                logger.warning(
                    "%s: from here on rows are scored one by one: %s.", self._network.name, error
                )
            apart = [*apart, *(index for index in together if index in left)]
        for row, scored in score_padded(self._network, [pairs[i] for i in apart], budget):
            yield apart[row], scored


def _summed(scored: list[float] | None, pair: TokenPair, per_token: bool) -> LogProb:
    """Return the log-prob of a response from those of its tokens."""
    count = len(pair.response_ids)
    if scored is None:
        failure = (
            f"{OUT_OF_MEMORY}: a single row of {len(pair)} tokens. Lower max_length, use a smaller "
            "dtype, or spread the model with device_map=auto."
        )
        return LogProb(math.nan, count, failure=failure)
    unusual = next((value for value in scored if not math.isfinite(value)), None)
    if unusual is not None:
        failure = f"{NOT_FINITE}: the log-prob came out as {unusual}"
        return LogProb(math.nan, count, failure=failure)
    return LogProb(math.fsum(scored), count, tuple(scored) if per_token else None)


def _error(failure: str, index: int) -> EngineError:
    kind, _, message = failure.partition(": ")
    if kind == NOT_FINITE:
        return NonFiniteError(message, index)
    return EngineError(f"Out of memory on {message}")
