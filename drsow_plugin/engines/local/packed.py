"""Rows as one packed tree, in which no token is computed twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from drsow_plugin.engines.local.attention import Kernel, KeyValue, Packing
from drsow_plugin.engines.local.budget import Budget, give_back, is_out_of_memory
from drsow_plugin.engines.local.head import logprobs_of
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.tree import TokenTree
from drsow_plugin.records import TokenPair


def score_tree(
    network: Network, kernel: Kernel, pairs: Sequence[TokenPair], budget: Budget
) -> Iterator[tuple[int, list[float] | RuntimeError]]:
    """Yield each row's index and the log-probs of its response tokens, in the tree's order.

    A row that does not fit into memory even in small chunks comes with the error.
    """
    waiting = list(range(len(pairs)))
    while waiting:
        tree, finished = TokenTree([pairs[index] for index in waiting]), 0
        values = np.full(len(tree.predictions), np.nan)
        kept: list[KeyValue] = []
        fitted = budget.tokens
        while not tree.is_done:
            packing = Packing(tree.chunk(budget.tokens, budget.rows), kernel, kept)
            chunk = packing.chunk
            error = _score(network, packing, values)
            give_back(network.device)
            if error is None:
                kept = packing.keep
                if chunk.done > finished:
                    fitted = budget.tokens
                tree.advance(chunk)
                for row in tree.order[finished : chunk.done]:
                    yield waiting[row], values[tree.spans[row]].tolist()
                finished = chunk.done
            elif not budget.halve(len(chunk.ids)):
                yield waiting[tree.order[finished]], error
                finished += 1
                budget.tokens = fitted  # that row was too long, not what comes after it
                break
        waiting = [waiting[row] for row in tree.order[finished:]]


def _score(network: Network, packing: Packing, values: np.ndarray) -> RuntimeError | None:
    """Fill in a chunk's predictions; return the error if memory ran out."""
    chunk = packing.chunk
    try:
        hidden = network.hidden_of_tree(packing)
        heads, predicting, targets = (
            torch.from_numpy(x) for x in (chunk.heads, chunk.entry_heads, chunk.targets)
        )
        if len(heads):
            selected = hidden[heads.to(hidden.device)]
            del hidden
            values[chunk.entries] = logprobs_of(network, selected, predicting, targets).numpy()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return error.with_traceback(None)  # lets go of what was computed
    return None
