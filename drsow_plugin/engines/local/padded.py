"""Rows one by one, prompts and all, in padded batches of similar length.

For models whose rows cannot share what they have in common.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch

from drsow_plugin.engines.local.budget import Budget, is_out_of_memory
from drsow_plugin.engines.local.head import logprobs_of
from drsow_plugin.engines.local.network import Network
from drsow_plugin.records import TokenPair


def score_rows(
    network: Network, pairs: Sequence[TokenPair], budget: Budget
) -> Iterator[tuple[int, list[float] | RuntimeError]]:
    """Yield each row's index and the log-probs of its response tokens, longest rows first.

    A row that does not fit into memory alone comes with the error.
    """
    waiting = sorted(range(len(pairs)), key=lambda index: (-len(pairs[index]), index))
    while waiting:
        batch = _first_batch(network, waiting, pairs, budget)
        rows = [pairs[index] for index in batch]
        scored: list[list[float]] | RuntimeError
        try:
            scored = _score(network, rows)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            scored = error.with_traceback(None)  # lets go of what was computed
        if isinstance(scored, RuntimeError):
            longest = len(rows[0]) - 1
            if len(batch) > 1 and budget.halve(longest * len(batch), longest):
                continue
            yield batch[0], scored
        else:
            yield from zip(batch, scored, strict=True)
        waiting = waiting[len(batch) :]


def _first_batch(
    network: Network, waiting: Sequence[int], pairs: Sequence[TokenPair], budget: Budget
) -> Sequence[int]:
    """Return the longest rows that fit the budget together; always at least one."""
    length = len(pairs[waiting[0]]) - 1
    count = min(max(1, budget.tokens // max(1, length)), budget.rows)
    scaling = network.scaling
    if scaling.long_from is None or length <= scaling.long_from:
        return waiting[:count]
    if scaling.by_length:
        return waiting[:1]
    return [index for index in waiting[:count] if len(pairs[index]) - 1 > scaling.long_from]


def _score(network: Network, batch: Sequence[TokenPair]) -> list[list[float]]:
    """Return the log-probs of each row's response tokens."""
    ids = [(*pair.prompt_ids, *pair.response_ids) for pair in batch]
    width = len(ids[0]) - 1  # the last token is predicted, never read
    padded = torch.tensor([[*row[:-1], *row[:1] * (width + 1 - len(row))] for row in ids])
    hidden = network.hidden(padded.to(network.device))
    rows: list[int] = []
    columns: list[int] = []
    targets: list[int] = []
    for row, pair in enumerate(batch):
        first = len(pair.prompt_ids) - 1
        rows += [row] * len(pair.response_ids)
        columns += range(first, first + len(pair.response_ids))
        targets += pair.response_ids
    selected = hidden[torch.tensor(rows), torch.tensor(columns)]
    del hidden
    values = logprobs_of(network, selected, torch.arange(len(rows)), torch.tensor(targets))
    each = iter(values.tolist())
    return [[*islice(each, len(pair.response_ids))] for pair in batch]
