"""A model whose log-probs come from servers: its tokenizer and limits here, its weights there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drsow_plugin.config.model import ModelConfig
from drsow_plugin.engines.server.probe import Probe
from drsow_plugin.engines.server.servers import Servers
from drsow_plugin.engines.server.settings import Settings, read_key
from drsow_plugin.models.contents import Contents

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

# The tokens of this text, the other way round, have log-probs that few models share.
_TEXT = "The quick brown fox, 7 lazy dogs and 42 numbers: def add(a, b): return a + b"


class ServedContents(Contents):
    """What servers say that they serve, in the place of files.

    Attributes:
        servers: Those that serve it.
    """

    def __init__(self, servers: Servers) -> None:
        """Take servers that are opened."""
        self.servers = servers
        self.adapter = None
        self.adapter_commit = None

    def describe(self) -> dict[str, Any]:
        """Return what identifies the served weights, as far as the servers tell."""
        return {"served": self.servers.served.describe()}

    def is_known_as(self, other: Contents) -> bool | None:
        """Tell whether both are one model, by what their servers say and answered."""
        if not isinstance(other, ServedContents):
            return None
        return self.servers.is_same_as(other.servers)

    def check(self) -> None:
        """Check that the servers serve what they did; see :meth:`Servers.check`.

        Raises:
            EngineError: One does not.
        """
        self.servers.check()


def open_servers(
    name: str,
    config: ModelConfig,
    hf_config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
) -> Servers:
    """Look at a model's servers, and check that they serve one that goes with the tokenizer.

    Args:
        name: The model's name, such as ``strong``.
        config: What was asked for.
        hf_config: The model's configuration.
        tokenizer: Its tokenizer.

    Raises:
        ConfigError: A server does not serve this model, or gives no log-probs of prompts.
        EngineError: A server does not answer, or as no server of models does.
    """
    ids = tokenizer(_TEXT, add_special_tokens=False)["input_ids"]
    vocab_size = int(hf_config.get_text_config().vocab_size)
    probe = Probe(tuple(reversed(ids)), min(vocab_size, len(tokenizer)))
    settings = Settings(
        name=name,
        source=config.source,
        urls=config.server,
        model=config.server_model,
        key=read_key(f"{name}_server_key", config.server_key),
        timeout=config.server_timeout,
        wait=config.server_wait,
    )
    return Servers(settings, probe)
