"""Rows of token ids, and the local engine that scores them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from drsow_plugin import DrSoW
from drsow_plugin.engines import Engine
from drsow_plugin.engines.local.engine import LocalEngine
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.probe import find_sharing
from drsow_plugin.engines.results import logprobs_of
from drsow_plugin.models.pool import ModelPool
from drsow_plugin.records import LogProb, SideName, TokenPair


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


def logprobs(engine: Engine, pairs: Sequence[TokenPair]) -> list[LogProb]:
    """Return the log-prob of each pair, in order."""
    found = dict(logprobs_of(engine, pairs))
    return [found[index] for index in range(len(pairs))]


def pool_of(drsow: DrSoW) -> ModelPool:
    """Return what the models of a pair have loaded."""
    return drsow.models["strong"].engine._pool  # type: ignore[attr-defined, no-any-return]


def network_of(drsow: DrSoW, side: SideName) -> Network:
    """Return the network of a side, loaded if need be."""
    return drsow.models[side].engine.loaded._network  # type: ignore[attr-defined, no-any-return]
