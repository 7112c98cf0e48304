"""Sequences as one packed tree, in which no token is computed twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from drsow_plugin.engines.local.attention import Kernel, KeyValue, Packing
from drsow_plugin.engines.local.budget import Budget, give_back, unless_out_of_memory
from drsow_plugin.engines.local.head import logprobs_of
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.tree import Cursor, TokenTree
from drsow_plugin.records import TokenPair


def score_packed(
    network: Network, kernel: Kernel, pairs: Sequence[TokenPair], budget: Budget
) -> Iterator[tuple[int, list[float] | None]]:
    """Yield each sequence's index and the log-probs of its response tokens, in the tree's order.

    The same as :func:`~drsow_plugin.engines.local.padded.score_padded`, up to rounding.

    Args:
        network: The model.
        kernel: What attends.
        pairs: Sequences with at least one prompt and one response token each.
        budget: How much is computed at once; it shrinks where memory runs out.

    Yields:
        The log-probs in nats; ``None`` for a sequence that does not fit into memory even in
        small chunks.

    Raises:
        UnshareableError: The model attends in a way that a tree cannot follow.
        IndexError: A token is not in the vocabulary.
    """
    waiting = list(range(len(pairs)))
    while waiting:
        tree, finished = TokenTree([pairs[index] for index in waiting]), 0
        logprobs = np.full(len(tree.predicting_nodes), np.nan)
        cursor: Cursor | None = tree.start
        cache: Sequence[KeyValue] = ()
        fitted = budget.tokens
        while cursor is not None:
            chunk = tree.chunk(cursor, budget.tokens, budget.sequences)
            packing = Packing(chunk, kernel, cache)
            values = unless_out_of_memory(_score, network, packing)
            give_back(network.device)
            if values is not None:
                logprobs[chunk.target_indices] = values
                cursor, cache = chunk.next, packing.next_cache
                if chunk.finished > finished:
                    fitted = budget.tokens
                for sequence in tree.order[finished : chunk.finished]:
                    yield waiting[sequence], logprobs[tree.slices[sequence]].tolist()
                finished = chunk.finished
            elif not budget.halve(len(chunk.ids)):
                yield waiting[tree.order[finished]], None
                finished += 1
                budget.tokens = fitted  # that sequence was too long, not what comes after it
                break
        waiting = [waiting[sequence] for sequence in tree.order[finished:]]


def _score(network: Network, packing: Packing) -> np.ndarray:
    """Return the log-probs of a chunk's targets, (targets,)."""
    chunk = packing.chunk
    hidden = network.hidden_of_chunk(packing)
    if not len(chunk.targets):
        return np.empty(0)
    selected = hidden[torch.from_numpy(chunk.predicting_positions).to(hidden.device)]
    del hidden
    positions, targets = map(torch.from_numpy, (chunk.target_positions, chunk.targets))
    return logprobs_of(network, selected, positions, targets).numpy()
