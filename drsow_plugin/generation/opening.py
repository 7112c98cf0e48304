"""Opens what samples responses, as it was asked for."""

from __future__ import annotations

from drsow_plugin.generation.options import NAME, Setup
from drsow_plugin.generation.policy import Policy
from drsow_plugin.records import Batching, Scoring


def open_policy(setup: Setup) -> Policy:
    """Open what samples; weights are loaded when they are needed.

    Raises:
        ConfigError: The model is not there or cannot be used.
        EngineError: A server does not answer.
    """
    config = setup.policy
    if config.server:
        from drsow_plugin.engines.server.settings import Settings, read_key
        from drsow_plugin.generation.served import ServedPolicy

        settings = Settings(
            name=NAME,
            source=config.source,
            urls=config.server,
            model=config.server_model,
            key=read_key("server_key", config.server_key),
            timeout=config.server_timeout,
            wait=config.server_wait,
        )
        return ServedPolicy(settings, setup.sampling)
    from drsow_plugin.generation.local import LocalPolicy
    from drsow_plugin.generation.vllm import VllmPolicy, import_vllm
    from drsow_plugin.models.language_model import LanguageModel
    from drsow_plugin.models.pool import ModelPool

    vllm = import_vllm() if setup.generate.engine == "vllm" else None  # before any download
    model = LanguageModel.from_config(NAME, config, ModelPool(), Scoring(), Batching())
    if vllm is not None:
        return VllmPolicy(vllm, model, setup.sampling)
    return LocalPolicy(model, setup.sampling, setup.batch_size)
