"""The engine of a model whose weights are on this machine: in memory when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from drsow_plugin.engines import TokenLogProbs
from drsow_plugin.engines.local.engine import LocalEngine
from drsow_plugin.errors import ConfigError
from drsow_plugin.models.identity import ModelIdentity
from drsow_plugin.models.pool import ModelPool
from drsow_plugin.models.weights import Weights, resolve_device, resolve_dtype, weight_bytes
from drsow_plugin.records import Batching, TokenPair


class PooledEngine:
    """Scores with weights of a pool, which loads them and may let them go in between."""

    def __init__(
        self,
        name: str,
        identity: ModelIdentity,
        hf_config: Any,
        pool: ModelPool,
        batching: Batching,
    ) -> None:
        """Remember what to load.

        Args:
            name: The model's name, such as ``strong``.
            identity: The model.
            hf_config: Its transformers configuration.
            pool: Where its weights are, or will be.
            batching: How the work is batched.
        """
        self._name = name
        self._identity = identity
        self._config = identity.config
        self._hf_config = hf_config
        self._device = resolve_device(name, self._config)
        self._pool = pool
        self._batching = batching

    def logprobs(self, pairs: Sequence[TokenPair]) -> Iterator[tuple[int, TokenLogProbs]]:
        """Score responses, with the weights loaded; see :class:`drsow_plugin.engines.Engine`."""
        return self.loaded.logprobs(pairs)

    @property
    def loaded(self) -> LocalEngine:
        """The engine with its weights, which are loaded when they are not in memory."""
        room = (self._device, self._weight_bytes)
        return self._pool.engine(self._name, self._identity.weights, room, self._open)

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._pool.is_resident(self._name)

    @property
    def device(self) -> str:
        """Where the weights go: a device, or how a device map spreads them."""
        return self._config.device_map or str(self._device)

    def load(self) -> None:
        """Load the weights unless they were loaded before; see :class:`.LazyEngine`."""
        if not self._pool.was_loaded(self._name):
            _ = self.loaded

    @property
    def weight_bytes(self) -> int | None:
        """Bytes that the weights take; ``None`` where that cannot be told."""
        given = self._config.given.model
        if given is None:
            return self._weight_bytes()
        return sum(p.numel() * p.element_size() for p in given.parameters())

    def _weight_bytes(self) -> int | None:
        """Return the bytes that loading the weights takes."""
        config = self._config
        if config.given.model is not None:
            return 0
        if config.device_map is not None or config.quantization is not None:
            return None
        dtype = resolve_dtype(config, self._device)
        return weight_bytes(self._hf_config, dtype, config.trust_remote_code)

    def _open(self, weights: Weights | None) -> tuple[Weights, LocalEngine]:
        if weights is None or self._config.adapter is None or not weights.has_adapter:
            return self._open_on(weights)
        try:
            return self._open_on(weights)
        except ConfigError:  # not any two adapters go together on one model
            weights, engine = self._open_on(None)
            weights.owner = self._name
            return weights, engine

    def _open_on(self, weights: Weights | None) -> tuple[Weights, LocalEngine]:
        if weights is None:
            weights = Weights(self._name, self._config, self._identity.source)
        adapter = None if self._config.adapter is None else self._name
        if adapter is not None:
            weights.add_adapter(adapter, self._identity.pinned_config)
        network, sharing = weights.ready(adapter)
        self._identity.contents.check()  # before hours of work, not only after it
        return weights, LocalEngine(
            network,
            sharing,
            batch_tokens=self._batching.tokens,
            batch_size=self._batching.rows,
            adapter=partial(weights.use, adapter),
        )
