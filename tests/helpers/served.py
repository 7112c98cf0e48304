"""Engines that ask servers, opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers as tf

from drsow_plugin.engines import TokenLogProbs
from drsow_plugin.engines.server.engine import ServerEngine
from drsow_plugin.engines.server.probe import Probe
from drsow_plugin.engines.server.servers import Servers
from drsow_plugin.engines.server.settings import Settings
from drsow_plugin.records import Batching, TokenPair
from helpers import oracle
from helpers.dialects import ServedModel
from helpers.model_server import ModelServer

PROBE = Probe(tuple(range(40, 10, -1)), 100)


def saved(path: str | Path, name: str, **options: Any) -> ServedModel:
    """Return a model that answers with the log-probs of saved weights, in float64.

    Args:
        path: A folder, or a GGUF file.
        name: What it is served as.
        **options: Of :class:`ServedModel`.
    """
    where = {"pretrained_model_name_or_path": path}
    if Path(path).is_file():
        where = {"pretrained_model_name_or_path": Path(path).parent, "gguf_file": Path(path).name}
    model = tf.AutoModelForCausalLM.from_pretrained(**where, dtype="float64").eval()

    def logprobs(ids: Sequence[int]) -> list[float]:
        return oracle.token_logprobs(model, ids[:1], ids[1:]) if len(ids) > 1 else []

    return ServedModel(name, logprobs, model.config.vocab_size, **options)


def servers(*opened: ModelServer, **settings: Any) -> Servers:
    urls = tuple(server.url for server in opened)
    found = Servers(Settings("strong", "org/strong", urls, **settings), PROBE)
    for server in opened:
        server.forget()
    return found


def engine(
    *opened: ModelServer, tokens: int | None = None, rows: int | None = None, **settings: Any
) -> ServerEngine:
    return ServerEngine(servers(*opened, **settings), Batching(tokens, rows))


def answers(engine: ServerEngine, pairs: Sequence[TokenPair]) -> list[TokenLogProbs]:
    """Return what an engine answers for each pair, in order."""
    found = dict(engine.logprobs(pairs))
    assert sorted(found) == [*range(len(pairs))]
    return [found[index] for index in range(len(pairs))]
