"""Rows of token ids, and the local engine that scores them."""

from __future__ import annotations

import random

import torch

from drsow_plugin.engines.local.engine import LocalEngine
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.probe import find_sharing
from drsow_plugin.records import TokenPair


def engine(model: torch.nn.Module | Network, **options: int) -> LocalEngine:
    network = model if isinstance(model, Network) else Network(model)
    return LocalEngine(network, find_sharing(network), **options)


def rows(seed: int, count: int = 12) -> list[TokenPair]:
    """Random rows of very different lengths, longer than the sliding windows.

    Every second row shares its prompt with the one before, every third one more than that.
    """
    rng = random.Random(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(512) for _ in range(rng.randint(low, high)))

    made: list[TokenPair] = []
    for number in range(count):
        prompt = made[-1].prompt_ids if number % 2 else ids(1, 40)
        begun = made[-1].response_ids[: number % 7] if number % 6 == 5 else ()
        made.append(TokenPair(prompt, begun + ids(1, 90)))
    return made
