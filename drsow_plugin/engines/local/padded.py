"""Sequences one by one, prompts and all, in padded batches of similar length.

For models whose sequences cannot share what they have in common.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch

from drsow_plugin.engines.local.budget import Budget, give_back, unless_out_of_memory
from drsow_plugin.engines.local.head import logprobs_of
from drsow_plugin.engines.local.network import Network
from drsow_plugin.records import TokenPair


def score_padded(
    network: Network, pairs: Sequence[TokenPair], budget: Budget
) -> Iterator[tuple[int, list[float] | None]]:
    """Yield each sequence's index and the log-probs of its response tokens, longest first.

    Up to rounding, for each pair::

        ids = torch.tensor([[*pair.prompt_ids, *pair.response_ids]])
        table = model(input_ids=ids).logits[0, len(pair.prompt_ids) - 1 : -1].log_softmax(-1)
        [row[token].item() for row, token in zip(table, pair.response_ids)]

    Args:
        network: The model.
        pairs: Sequences with at least one prompt and one response token each, all in the
            vocabulary.
        budget: How much is computed at once; it shrinks where memory runs out.

    Yields:
        The log-probs in nats; ``None`` for a sequence that does not fit into memory alone.
    """
    waiting = sorted(range(len(pairs)), key=lambda index: (-len(pairs[index]), index))
    while waiting:
        indices = _first_batch(network, waiting, pairs, budget)
        batch = [pairs[index] for index in indices]
        logprobs = unless_out_of_memory(_score, network, batch)
        give_back(network.device)
        if logprobs is not None:
            yield from zip(indices, logprobs, strict=True)
        else:
            longest = len(batch[0]) - 1
            if len(batch) > 1 and budget.halve(longest * len(batch), longest):
                continue
            yield indices[0], None
        waiting = waiting[len(indices) :]


def _first_batch(
    network: Network, waiting: Sequence[int], pairs: Sequence[TokenPair], budget: Budget
) -> Sequence[int]:
    """Return the longest sequences that fit the budget together; always at least one."""
    length = len(pairs[waiting[0]]) - 1
    count = min(max(1, budget.tokens // max(1, length)), budget.sequences)
    scaling = network.scaling
    if scaling.max_short is None or length <= scaling.max_short:
        return waiting[:count]
    if scaling.by_length:
        return waiting[:1]
    return [index for index in waiting[:count] if len(pairs[index]) - 1 > scaling.max_short]


def _score(network: Network, batch: Sequence[TokenPair]) -> list[list[float]]:
    """Return the log-probs of each sequence's response tokens."""
    ids = [(*pair.prompt_ids, *pair.response_ids) for pair in batch]
    width = len(ids[0]) - 1  # the last token is predicted, never read
    padded = torch.tensor([[*row[:-1], *row[:1] * (width + 1 - len(row))] for row in ids])
    hidden = network.hidden(padded.to(network.device))
    rows = [row for row, pair in enumerate(batch) for _ in pair.response_ids]
    columns = [at for pair in batch for at in range(len(pair.prompt_ids) - 1, len(pair) - 1)]
    targets = [token for pair in batch for token in pair.response_ids]
    selected = hidden[torch.tensor(rows), torch.tensor(columns)]
    del hidden
    values = logprobs_of(network, selected, torch.arange(len(rows)), torch.tensor(targets))
    each = iter(values.tolist())
    return [[*islice(each, len(pair.response_ids))] for pair in batch]
