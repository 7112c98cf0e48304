"""Opens a router with the model that it may ask."""

from __future__ import annotations

from collections.abc import Mapping

from drsow_plugin.config.model import ModelConfig
from drsow_plugin.config.routing import RoutingConfig
from drsow_plugin.models.pool import ModelPool
from drsow_plugin.records import Batching
from drsow_plugin.routing.router_model import RouterModel
from drsow_plugin.routing.routing import Routing


def open_routing(
    config: RoutingConfig, pair: Mapping[str, ModelConfig], pool: ModelPool, batching: Batching
) -> Routing:
    """Load the plugins, and the router with its model.

    Args:
        config: What was asked for.
        pair: The models that ``router_model=strong`` and ``weak`` name; such a model is opened
            when it is asked first. Another one is opened now, so that what is wrong with it shows.
        pool: What the models of the pair have loaded.
        batching: How the work of the router's model is batched.

    Raises:
        ConfigError: The model cannot be opened, or there is no such router or domain.
        PluginError: A plugin cannot be used.
    """
    named = config.router_model
    if not isinstance(named, ModelConfig):
        return Routing(config, RouterModel(pair.get(named), pool, batching).logprobs)
    model = RouterModel(named, pool, batching)
    routing = Routing(config, model.logprobs, model)
    _ = model.model  # after the plugins, which cost less to look at
    return routing
