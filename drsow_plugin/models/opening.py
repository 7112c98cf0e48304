"""Opens a model: what is read of it at once, and the one place that chooses its engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from drsow_plugin.config.model import ModelConfig
from drsow_plugin.engines import Engine
from drsow_plugin.models.contents import Contents
from drsow_plugin.models.identity import ModelIdentity, weights_key
from drsow_plugin.models.pickles import check_weights
from drsow_plugin.models.sources import Source, load_config, load_tokenizer, locate
from drsow_plugin.records import Batching

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from drsow_plugin.engines.server.servers import Servers
    from drsow_plugin.models.pool import ModelPool


@dataclass(frozen=True)
class Found:
    """What is known of a model before anything is computed.

    Attributes:
        source: Where it is located.
        contents: What is in its files, as they were before anything was read.
        tokenizer: Its tokenizer.
        hf_config: Its transformers configuration; ``None`` where an engine was given.
        dtype: Dtype of the weights; empty where an engine was given, or a server does not tell.
        servers: Those that compute its log-probs, if any do.
    """

    source: Source
    contents: Contents
    tokenizer: PreTrainedTokenizerBase
    hf_config: PretrainedConfig | None
    dtype: str
    servers: Servers | None = None

    @property
    def architecture(self) -> str:
        """The class that transformers has for it, or ``engine``."""
        config = self.hf_config
        return "engine" if config is None else (config.architectures or [config.model_type])[0]

    @property
    def vocab_size(self) -> int:
        """Number of token ids that it knows."""
        if self.hf_config is None:
            return len(self.tokenizer)
        return int(self.hf_config.get_text_config().vocab_size)

    @property
    def max_length(self) -> int | None:
        """Maximum of tokens that it reads; ``None`` where that is not told."""
        if self.hf_config is None:
            return None
        own = getattr(self.hf_config.get_text_config(), "max_position_embeddings", None)
        served = None if self.servers is None else self.servers.served.max_length
        limits = [limit for limit in (own, served) if limit is not None]
        return min(limits, default=None)


def read_model(name: str, config: ModelConfig, pool: ModelPool) -> Found:
    """Read a model's configuration and tokenizer, or take those that were read already.

    Raises:
        ConfigError: The model or its tokenizer is not there or cannot be read, or a server does
            not serve it.
        EngineError: A server does not answer.
    """
    source = locate(name, config)
    if config.given.engine is not None:
        contents = Contents(name, config, source, None)
        return Found(source, contents, load_tokenizer(name, config, source), None, "")
    if config.server:
        from drsow_plugin.models.served import ServedContents, open_servers

        hf_config, tokenizer = _read_texts(name, config, source, pool)
        servers = open_servers(name, config, hf_config, tokenizer)
        dtype = servers.served.dtype or ""
        return Found(source, ServedContents(servers), tokenizer, hf_config, dtype, servers)
    from drsow_plugin.models.adapters import find_adapter
    from drsow_plugin.models.weights import dtype_of, resolve_device

    if source.local:  # on the Hub weights are not looked for before they are needed
        check_weights(name, config, source)
    device = resolve_device(name, config)
    contents = Contents(name, config, source, find_adapter(name, config))
    hf_config, tokenizer = _read_texts(name, config, source, pool)
    return Found(source, contents, tokenizer, hf_config, dtype_of(config, device, hf_config))


def _read_texts(
    name: str, config: ModelConfig, source: Source, pool: ModelPool
) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
    """Return a model's configuration and tokenizer, read unless they were before."""
    from drsow_plugin.models.converted import loads_fast

    where = partial(loads_fast, name, config, source)
    return pool.read(
        replace(weights_key(config, source), tokenizer=config.tokenizer, given=config.given),
        lambda: (
            load_config(name, config, where("config")),
            load_tokenizer(name, config, where("tokenizer")),
        ),
    )


def open_engine(
    name: str, identity: ModelIdentity, found: Found, pool: ModelPool, batching: Batching
) -> Engine:
    """Return what computes the log-probs of a model; nothing is loaded yet.

    Args:
        name: The model's name, such as ``strong``.
        identity: The model.
        found: What was read of it.
        pool: The weights that are in memory already, and room for more.
        batching: How the work is batched.
    """
    if identity.config.given.engine is not None:
        return identity.config.given.engine
    if found.servers is not None:
        from drsow_plugin.engines.server.engine import ServerEngine

        return ServerEngine(found.servers, batching)
    from drsow_plugin.models.pooled import PooledEngine

    return PooledEngine(name, identity, found.hf_config, pool, batching)
