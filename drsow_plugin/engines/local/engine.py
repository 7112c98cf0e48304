"""The engine that runs transformers in this process."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from drsow_plugin.engines import TokenLogProbs
from drsow_plugin.engines.local.budget import Budget, fitting_tokens, keep_for_reuse
from drsow_plugin.engines.local.exactness import full_precision
from drsow_plugin.engines.local.masks import UnshareableError
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.packed import score_packed
from drsow_plugin.engines.local.padded import score_padded
from drsow_plugin.engines.local.probe import Sharing, next_sharing
from drsow_plugin.records import OUT_OF_MEMORY, Problem, TokenPair


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
        keep_for_reuse(network.device)

    def logprobs(self, pairs: Sequence[TokenPair]) -> Iterator[tuple[int, TokenLogProbs]]:
        """Score responses; see :class:`drsow_plugin.engines.Engine`.

        Until the last of them is taken, the adapter stays as it is, torch records nothing for
        gradients in this thread, and in no thread it rounds products to TF32.
        """
        _check_ids(pairs, self._network.vocab_size)
        # What is free may have changed since the last call, but not what was too much once.
        tokens = self._tokens or fitting_tokens(self._network)
        budget = Budget(min(tokens, self._maximum), self._rows)
        with torch.inference_mode(), full_precision(), self._adapter():
            for index, scored in self._scored(pairs, budget):
                yield index, _out_of_memory(pairs[index]) if scored is None else scored
        if budget.tokens < tokens:
            self._maximum = budget.tokens

    def _scored(
        self, pairs: Sequence[TokenPair], budget: Budget
    ) -> Iterator[tuple[int, list[float] | None]]:
        """Yield the index of each row with the log-probs of its response tokens."""
        left = dict.fromkeys(range(len(pairs)))  # not yielded, in order
        together = [*left]
        while self._sharing is not None and together:
            longest, refusal = self._sharing.max_length or sys.maxsize, None
            together = [index for index in together if len(pairs[index]) - 1 <= longest]
            rows, done = [pairs[index] for index in together], set()
            try:
                for row, scored in score_packed(self._network, self._sharing.kernel, rows, budget):
                    done.add(together[row])
                    # A NaN among rows that share a prefix may be that of another row.
                    if scored is None or all(map(math.isfinite, scored)):
                        del left[together[row]]
                        yield together[row], scored
            except UnshareableError as error:
                refusal = type(error)(*error.args)  # without what the failed computation holds
            if refusal is None:
                break
            self._sharing = next_sharing(self._network, self._sharing, refusal)
            together = [index for index in together if index not in done]
        apart = [*left]
        for row, scored in score_padded(self._network, [pairs[i] for i in apart], budget):
            yield apart[row], scored


def _check_ids(pairs: Sequence[TokenPair], vocab_size: int) -> None:
    """Check that all tokens are in the vocabulary: a GPU that meets another is of no more use.

    Raises:
        IndexError: One is not.
    """
    for index, pair in enumerate(pairs):
        for ids in (pair.prompt_ids, pair.response_ids):
            if ids and not 0 <= min(ids) <= max(ids) < vocab_size:
                wrong = next(i for i in ids if not 0 <= i < vocab_size)
                raise IndexError(
                    f"pair {index}: the token {wrong} is out of range of the vocabulary of "
                    f"{vocab_size}. The tokenizer does not belong to the model."
                )


def _out_of_memory(pair: TokenPair) -> Problem:
    return Problem(
        OUT_OF_MEMORY,
        f"a single row of {len(pair)} tokens. Lower max_length, use a smaller dtype, or spread "
        "the model with device_map=auto.",
    )
