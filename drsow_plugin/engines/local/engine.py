"""The engine that runs transformers in this process."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from drsow_plugin.engines import TokenLogProbs
from drsow_plugin.engines.local.budget import Budget, fitting_tokens
from drsow_plugin.engines.local.masks import UnshareableError
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.packed import score_packed
from drsow_plugin.engines.local.padded import score_padded
from drsow_plugin.engines.local.probe import Sharing
from drsow_plugin.records import OUT_OF_MEMORY, Problem, TokenPair

logger = logging.getLogger(__name__)


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
            batch_tokens: Maximum of tokens computed at once; ``None`` fits the free memory. It is
                halved whenever the device runs out of memory.
            batch_size: Maximum of rows at once; ``None`` is no limit.
            adapter: Returns a context in which the model's adapter is the right one.
        """
        self._network = network
        self._sharing = sharing
        self._tokens, self._rows = batch_tokens, batch_size
        self._maximum = network.max_tokens or sys.maxsize
        self._adapter = adapter

    def logprobs(self, pairs: Sequence[TokenPair]) -> Iterator[tuple[int, TokenLogProbs]]:
        """Score responses; see :class:`drsow_plugin.engines.Engine`.

        Until the last of them is taken, the adapter stays as it is and torch records nothing
        for gradients in this thread.
        """
        # What is free may have changed since the last call, but not what was too much once.
        tokens = self._tokens or fitting_tokens(self._network)
        budget = Budget(min(tokens, self._maximum), self._rows)
        with torch.inference_mode(), self._adapter():
            for index, scored in self._scored(pairs, budget):
                yield index, _out_of_memory(pairs[index]) if scored is None else scored
        if budget.tokens < tokens:
            self._maximum = budget.tokens

    def _scored(
        self, pairs: Sequence[TokenPair], budget: Budget
    ) -> Iterator[tuple[int, list[float] | None]]:
        """Yield the index of each row with the log-probs of its response tokens."""
        sharing, apart = self._sharing, [*range(len(pairs))]
        if sharing is not None:
            longest = sharing.max_length or sys.maxsize
            together = [index for index in apart if len(pairs[index]) - 1 <= longest]
            apart = [index for index in apart if len(pairs[index]) - 1 > longest]
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


def _out_of_memory(pair: TokenPair) -> Problem:
    return Problem(
        OUT_OF_MEMORY,
        f"a single row of {len(pair)} tokens. Lower max_length, use a smaller dtype, or spread "
        "the model with device_map=auto.",
    )
