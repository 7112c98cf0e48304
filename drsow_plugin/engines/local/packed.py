"""Sequences as one packed tree, in which no token is computed twice.

Up to the order of the steps, for each chunk of the tree::

    hidden = network.hidden_of_chunk(packing)
    logprobs[chunk.target_indices] = logprobs_of(network, hidden[predicting], positions, targets)

The values of a chunk are read after the next one was launched, so that a GPU always has
something to compute while rows are handed out and what comes next is laid out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from drsow_plugin.engines.local.attention import Kernel, KeyValue, Packing
from drsow_plugin.engines.local.budget import Budget, give_back, unless_out_of_memory
from drsow_plugin.engines.local.head import logprobs_of
from drsow_plugin.engines.local.kernels import arrays_of
from drsow_plugin.engines.local.masks import UnshareableError
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.transfer import OnTheWay
from drsow_plugin.engines.local.tree import Chunk, Cursor, TokenTree, tree_of
from drsow_plugin.records import TokenPair

_Answer = tuple[int, list[float] | None]


def score_packed(
    network: Network, kernel: Kernel, pairs: Sequence[TokenPair], budget: Budget
) -> Iterator[_Answer]:
    """Yield each sequence's index and the log-probs of its response tokens, in the tree's order.

    The same as :func:`~drsow_plugin.engines.local.padded.score_padded`, up to rounding.

    Args:
        network: The model.
        kernel: What attends.
        pairs: Sequences with at least one prompt and one response token each, all in the
            vocabulary.
        budget: How much is computed at once; it shrinks where memory runs out.

    Yields:
        The log-probs in nats; ``None`` for a sequence that does not fit into memory even in
        small chunks.

    Raises:
        UnshareableError: The model attends in a way that a tree cannot follow; what was computed
            before that has been yielded.
    """
    waiting = list(range(len(pairs)))
    with network.attending():
        while waiting:
            tree, finished = tree_of([pairs[index] for index in waiting]), 0
            for sequence, logprobs in _scored(network, kernel, tree, budget):
                yield waiting[sequence], logprobs
                finished += 1
            waiting = [waiting[sequence] for sequence in tree.order[finished:]]


def _scored(network: Network, kernel: Kernel, tree: TokenTree, budget: Budget) -> Iterator[_Answer]:
    """Yield the sequences of a tree up to the first that does not fit, which has ``None``."""
    results, finished = _Results(tree), 0
    cursor: Cursor | None = tree.start
    cache: Sequence[KeyValue] = ()
    fitted = budget.tokens
    while cursor is not None:
        chunk = tree.chunk(cursor, budget.tokens, budget.sequences)
        try:
            launched = unless_out_of_memory(_launch, network, Packing(chunk, kernel, cache))
        except UnshareableError:
            yield from results.read()
            raise
        give_back(network.device)
        yield from results.read()
        if launched is not None:
            values, cache = launched
            results.pending = chunk, values
            cursor = chunk.next
            if chunk.finished > finished:
                fitted, finished = budget.tokens, chunk.finished
        elif not budget.halve(len(chunk.ids)):
            budget.tokens = fitted  # that sequence was too long, not what comes after it
            yield tree.order[finished], None
            return
    yield from results.read()


def _launch(network: Network, packing: Packing) -> tuple[OnTheWay, Sequence[KeyValue]]:
    """Return the log-probs of a chunk's targets, (targets,), and the KV cache of the next one."""
    chunk = packing.chunk
    packing.move(network.device, arrays_of(packing))
    positions, targets = map(torch.from_numpy, (chunk.target_positions, chunk.targets))
    hidden = network.hidden_of_chunk(packing)
    if not len(targets):
        return OnTheWay(torch.empty(0)), packing.next_cache
    predicting = packing.on("predicting_positions", chunk.predicting_positions, hidden.device)
    selected = hidden[predicting]
    del hidden
    values = logprobs_of(network, selected, positions, targets)
    return OnTheWay(values), packing.next_cache


class _Results:
    """The log-probs of a tree's sequences, which are handed out as soon as they are whole.

    Attributes:
        pending: The last chunk and its values, unless they were read.
    """

    def __init__(self, tree: TokenTree) -> None:
        self._tree = tree
        self._logprobs = np.full(len(tree.predicting_nodes), np.nan)
        self._finished = 0
        self.pending: tuple[Chunk, OnTheWay] | None = None

    def read(self) -> Iterator[tuple[int, list[float]]]:
        """Read what is pending; yield the sequences that it completes."""
        if self.pending is None:
            return
        (chunk, values), self.pending = self.pending, None
        self._logprobs[chunk.target_indices] = values.read()
        done = self._tree.order[self._finished : chunk.finished]
        self._finished = chunk.finished
        for sequence in done:
            yield sequence, self._logprobs[self._tree.slices[sequence]].tolist()
