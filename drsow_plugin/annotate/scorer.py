"""A pair of models that gives rows their rewards, in this process or, pickled, in another."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from drsow_plugin.annotate.items import Item, Rewards
from drsow_plugin.config.in_memory import check_not_in_memory
from drsow_plugin.config.model import ModelConfig
from drsow_plugin.config.pair import PairConfig, as_options, parse_pair
from drsow_plugin.errors import EngineError
from drsow_plugin.hashing import text_sha256
from drsow_plugin.models.devices import check_not_forked, device_names
from drsow_plugin.records import SIDES, Reward
from drsow_plugin.scoring.drsow import DrSoW
from drsow_plugin.scoring.rows import Row


class Scorer:
    """Gives rows their rewards; opens its pair on first use, once in each process.

    It pickles as the pair's configuration and fingerprint. Another process that opens another
    pair than the one that work was begun with gives no reward.

    Attributes:
        pair: The configuration of the pair.
        token_logprobs: Whether rewards hold the log-prob of each response token.
    """

    def __init__(
        self, pair: PairConfig, *, token_logprobs: bool = False, fingerprint: str | None = None
    ) -> None:
        """Remember a pair; opens no model.

        Args:
            pair: The configuration.
            token_logprobs: Whether rewards hold the log-prob of each response token.
            fingerprint: That of the pair that work was begun with; ``None`` for no work yet.
        """
        self.pair = pair
        self.token_logprobs = token_logprobs
        self._fingerprint = fingerprint
        self._opened: DrSoW | None = None

    def open(self, rank: int | None = None) -> DrSoW:
        """Return the pair; opens it on first use, and again for another rank.

        Args:
            rank: Number of the process, which chooses the device; ``None`` for the only one.

        Raises:
            ConfigError: A model is wrong.
            EngineError: It is not the pair that work was begun with, or the process was forked
                from one that uses CUDA.
        """
        placed = self.pair if rank is None else place(self.pair, rank)
        if self._opened is None or (rank is not None and self._opened.config != placed):
            self._opened = None  # the former weights go before others come
            opened = DrSoW.from_config(placed)
            if self._fingerprint not in (None, opened.fingerprint):
                raise EngineError(
                    "The pair that was opened here is not the one that the work was begun with: "
                    "files of a model, a tokenizer or a plugin were changed meanwhile, or this "
                    "machine chooses another dtype (dtype=… sets it). Nothing is kept. Make the "
                    "Annotator again."
                )
            self._opened = opened
        return self._opened

    def read(self, items: Sequence[Item], *, rank: int | None = None) -> list[Row]:
        """Return the responses of some rows as both models read them, for :meth:`rewards`.

        May be called in a thread while others are scored, unless :attr:`routes`.
        """
        pairs = [(item, text) for item in items for text in item.responses if text is not None]
        return self.open(rank).read(
            [item.prompt for item, _ in pairs],
            [text for _, text in pairs],
            domains=[item.domain for item, _ in pairs] if self.routes else None,
            on_error="null",
        )

    def tokens(self, items: Sequence[Item]) -> list[int]:
        """Return how many tokens both models read of each row; asks no model.

        A prompt counts once, however many responses follow it, and without what a domain would
        add to it. What cannot be read, or is too long, does not count.
        """
        pairs = [(item, text) for item in items for text in item.responses if text is not None]
        rows = iter(self.open().read_unrouted([i.prompt for i, _ in pairs], [t for _, t in pairs]))
        return [
            _tokens_of([next(rows) for text in item.responses if text is not None])
            for item in items
        ]

    @property
    def routes(self) -> bool:
        """Whether prompts are sent to domains, which may take one of the models."""
        return self.pair.routing.is_on

    def rewards(
        self,
        items: Sequence[Item],
        *,
        read: list[Row] | None = None,
        rank: int | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Rewards:
        """Return the rewards of the responses of some rows.

        Args:
            items: The rows.
            read: What :meth:`read` returned for them, if it was called.
            rank: Number of the process; it chooses the device.
            progress: See :meth:`drsow_plugin.DrSoW.score`.

        Returns:
            For each row a reward for each response; ``None`` for a missing response. A row
            that could not be read has none.
        """
        rewards: Iterator[Reward] = iter(())
        if any(text is not None for item in items for text in item.responses):
            rows = self.read(items, rank=rank) if read is None else read
            rewards = iter(
                self.open(rank).score_rows(
                    rows,
                    on_error="null",
                    token_logprobs=self.token_logprobs,
                    progress=progress,
                )
            )
        return [
            [None if text is None else next(rewards) for text in item.responses] for item in items
        ]

    @property
    def fingerprint(self) -> str:
        """A hash of everything that changes a reward; see :attr:`DrSoW.fingerprint`."""
        if self._fingerprint is None:
            self._fingerprint = self.open().fingerprint
        return self._fingerprint

    @property
    def work_key(self) -> str:
        """What finished rewards are kept under."""
        described = {
            "fingerprint": self.fingerprint,
            "token_logprobs": self.token_logprobs,
            # These decide the rounding.
            "batching": [self.pair.batch_tokens, self.pair.batch_size],
            "compile": [self.pair.strong.compile, self.pair.weak.compile],
        }
        return text_sha256(json.dumps(described, sort_keys=True))

    @cached_property
    def _pinned(self) -> PairConfig:
        return self.open().pinned_config

    def options(self) -> dict[str, Any]:
        """Return the pair's options, but for defaults, with Hub revisions as commits."""
        return as_options(self._pinned)

    def check_reopens(self) -> None:
        """Check that another process can open the same pair.

        Raises:
            ConfigError: A model, an engine or a tokenizer is in memory.
        """
        for name, value in as_options(self.pair).items():
            check_not_in_memory(name, value)

    def __reduce__(self) -> tuple[Callable[..., Scorer], tuple[object, ...]]:
        return _restore, (self.options(), self.token_logprobs, self.fingerprint)


def _tokens_of(rows: Sequence[Row]) -> int:
    scored = [row.pairs for row in rows if not any(pair.problem for pair in row.pairs.values())]
    sides = ([pairs[side] for pairs in scored] for side in SIDES)
    return sum(
        max((len(pair.prompt_ids) for pair in pairs), default=0)
        + sum(len(pair.response_ids) for pair in pairs)
        for pairs in sides
    )


def _restore(options: Mapping[str, Any], token_logprobs: bool, fingerprint: str) -> Scorer:
    return Scorer(parse_pair(options), token_logprobs=token_logprobs, fingerprint=fingerprint)


def place(pair: PairConfig, rank: int) -> PairConfig:
    """Return the configuration for one of several processes: a device each, in turn.

    Raises:
        EngineError: The process was forked from one that uses CUDA.
    """
    if not pair.computes_here:
        return pair
    check_not_forked()
    devices = device_names()
    if not devices:
        return pair
    device = devices[rank % len(devices)]
    router = pair.routing.router_model
    if isinstance(router, ModelConfig):
        routing = replace(pair.routing, router_model=_placed(router, device))
        pair = replace(pair, routing=routing)
    return replace(pair, strong=_placed(pair.strong, device), weak=_placed(pair.weak, device))


def _placed(model: ModelConfig, device: str) -> ModelConfig:
    """Return a model with a device, unless it was given one, or is in memory or on a server."""
    is_placed = model.device is not None or model.device_map is not None
    if not is_placed and model.computes_here and not model.given.has_model:
        return replace(model, device=device)
    return model
