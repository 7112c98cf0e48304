"""What a document of a preference task holds: responses to one prompt, and which are better.

    pair          chosen, rejected            two texts, the better one first
    candidates    responses, num_correct      that many correct ones first, then the others
    rated         responses, ratings          a number for each response, higher is better

All have a ``prompt``. Each response is one request to the model, in this order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

Document = Mapping[str, Any]


def responses_of(doc: Document) -> list[str]:
    """Return the responses of a document, in the order of its requests."""
    return [doc["chosen"], doc["rejected"]] if "chosen" in doc else list(doc["responses"])


def best_of(doc: Document) -> list[int]:
    """Return which responses are the best ones: the correct ones, or the best rated."""
    if "ratings" in doc:
        best = max(doc["ratings"])
        return [index for index, rating in enumerate(doc["ratings"]) if rating == best]
    return list(range(_correct(doc)))


def comparisons(doc: Document) -> list[tuple[int, int]]:
    """Return all (better, worse) among the responses: one for a pair."""
    if "ratings" in doc:
        rated = list(enumerate(doc["ratings"]))
        return [(i, j) for (i, more), (j, less) in product(rated, rated) if more > less]
    correct = _correct(doc)
    return list(product(range(correct), range(correct, len(responses_of(doc)))))


def share_won(rewards: Sequence[float], pairs: Sequence[tuple[int, int]]) -> float:
    """Return the share of (better, worse) in which the better one has the higher reward.

    A tie is lost, and so is a comparison with a reward missing (NaN).
    """
    return sum(rewards[better] > rewards[worse] for better, worse in pairs) / len(pairs)


def lead(rewards: Sequence[float], best: Sequence[int]) -> float:
    """Return the highest reward of the best responses minus that of the others, in nats.

    NaN where a reward is missing.
    """
    if any(map(math.isnan, rewards)):
        return math.nan
    others = set(range(len(rewards))) - set(best)
    return max(rewards[i] for i in best) - max(rewards[i] for i in others)


def top_of(values: Sequence[float]) -> list[int]:
    """Return which responses have the highest value: more than one where they tie."""
    highest = max(values)
    return [index for index, value in enumerate(values) if value == highest]


def share_on_top(values: Sequence[float], best: Sequence[int]) -> float:
    """Return the chance that one of those with the highest value, drawn at random, is the best.

    1 or 0 where none tie; half for two that tie, of which one is among the best.
    """
    top = top_of(values)
    return len(set(top) & set(best)) / len(top)


def _correct(doc: Document) -> int:
    return 1 if "chosen" in doc else int(doc["num_correct"])
