"""Routes prompts to domains, and conditions conversations on them: the one place that does."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any

from drsow_plugin.config.routing import COLUMN, RoutingConfig
from drsow_plugin.errors import ConfigError, DrSoWError, PluginError, unknown_name
from drsow_plugin.records import Message, Prompt, Route, SideName
from drsow_plugin.routing.domains import Domain, condition
from drsow_plugin.routing.hookspecs import Router, RouterContext, RouterInput
from drsow_plugin.routing.plugins import Offer, Plugins

if TYPE_CHECKING:
    from drsow_plugin.routing.router_model import RouterModel

LogProbs = Callable[[Sequence[Prompt], Sequence[str]], list[float | None]]


class Routing:
    """The router and the domains that are in force.

    Attributes:
        config: What was asked for.
        domains: All loaded domains by name.
        own_model: The model that the router asks; ``None`` where it asks one of the pair.
    """

    def __init__(
        self, config: RoutingConfig, logprobs: LogProbs, own_model: RouterModel | None = None
    ) -> None:
        """Load the plugins and find the router and the domains by name.

        Args:
            config: What was asked for.
            logprobs: Asks the router's model; see :class:`RouterContext`.
            own_model: That model, where it is none of the pair's.

        Raises:
            ConfigError: There is no such router or domain, or a router is needed.
            PluginError: A plugin cannot be used.
        """
        plugins = Plugins(config.plugin)
        self.config = config
        self.own_model = own_model
        self._offers = plugins.domains
        self.domains: dict[str, Domain] = {n: o.value for n, o in plugins.domains.items()}
        for name in config.domains or ():
            _require("domain", name, self.domains)
        self._applied = set(config.domains or self.domains)
        self._router: Offer | None = None
        self._only_domain = _only_domain(config) if config.router is None else None
        if config.router is not None:
            context = RouterContext(dict(self.domains), logprobs, config.router_confidence)
            routers = plugins.routers(context)
            _require("router", config.router, routers)
            self._router = routers[config.router]

    @property
    def uses_known(self) -> bool:
        """Whether routes depend on what the data names, not on the prompts alone."""
        return self._router is not None and bool(self._router.value.uses_known)

    @property
    def tells_apart(self) -> bool:
        """Whether some domain that is applied tells the two models different things."""
        asked = (self.config.domain_parts, self.config.domain_side)
        return any(self.domains[name].tells_apart(*asked) for name in self._applied)

    def problem_with(self, known: str | None) -> str | None:
        """Return why the router cannot use a domain label in the data, or ``None`` if it can."""
        if not isinstance(known, str | None):
            return f"domains are names or None, got {known!r:.80}."
        if self.config.router != COLUMN or not known or known in self.domains:
            return None
        return unknown_name("domain", known, self.domains)

    def route(self, inputs: Sequence[RouterInput]) -> list[Route]:
        """Return where each prompt goes; the same prompt is asked about once.

        Raises:
            PluginError: The router raised, gave another number of answers than it was asked
                for, or named a domain that is not loaded.
        """
        if self._router is None:
            return [Route(self._only_domain)] * len(inputs)
        if not self.uses_known:
            inputs = [RouterInput(prompt.messages) for prompt in inputs]
        keys = [_key(prompt) for prompt in inputs]
        distinct = dict(zip(keys, inputs, strict=True))
        if not distinct:
            return []
        answers = self._ask(self._router, list(distinct.values()))
        routes = dict(zip(distinct, answers, strict=True))
        return [routes[key] for key in keys]

    def _ask(self, offer: Offer, inputs: Sequence[RouterInput]) -> list[Route]:
        router: Router = offer.value
        name = f"The router {router.name!r} of the plugin {offer.plugin}"
        try:
            answers = router.route(inputs)
            if isinstance(answers, (str, Mapping)):
                raise TypeError(f"it returned a {type(answers).__name__} instead of a list")
            answers = list(answers)
        except DrSoWError as error:
            raise PluginError(f"{name}: {error}") from error
        except (Exception, SystemExit) as error:
            raise PluginError(f"{name} failed: {type(error).__name__}: {error}") from error
        if len(answers) != len(inputs):
            raise PluginError(
                f"{name} gave {len(answers)} answers to {len(inputs)} prompts. It is to return "
                "one for each."
            )
        return [self._checked(name, answer) for answer in answers]

    def _checked(self, name: str, answer: object) -> Route:
        route = answer if isinstance(answer, Route) else Route(answer)  # type: ignore[arg-type]
        confidence = route.confidence
        if confidence is not None:
            if not isinstance(confidence, Real) or not 0 <= float(confidence) <= 1:
                raise PluginError(f"{name} gave {confidence!r} as a confidence; it is from 0 to 1.")
            route = replace(route, confidence=float(confidence))
        if not isinstance(route.note, str):
            raise PluginError(f"{name} gave {route.note!r:.80} as a note; it is a text.")
        if not isinstance(route.domain, str | None):
            raise PluginError(
                f"{name} answered with a {type(route.domain).__name__}. It is to return the name "
                "of a domain, None or a Route for each prompt."
            )
        if route.domain is not None and route.domain not in self.domains:
            raise PluginError(f"{name}: {unknown_name('domain', route.domain, self.domains)}")
        return route

    def conditioned(
        self, messages: Sequence[Message], route: Route, side: SideName
    ) -> list[Message]:
        """Return a conversation as a side's model is to read it; see :func:`condition`."""
        if route.domain is None or route.domain not in self._applied:
            return list(messages)
        domain = self.domains[route.domain]
        if not domain.is_for(side, self.config.domain_side):
            return list(messages)
        parts, shots = self.config.domain_parts, self.config.domain_shots
        return condition(messages, domain, parts=parts, shots=shots, model=side)

    def describe(self) -> dict[str, Any]:
        """Return the router, the domains and where they came from, as plain values."""
        return {
            "router": self._router and self._router.value.name,
            "plugin": self._router and self._router.plugin.describe(),
            "router_confidence": self.config.router_confidence,
            "domain_parts": self.config.domain_parts,
            "domain_side": self.config.domain_side,
            "domain_shots": self.config.domain_shots,
            "domains": [
                {
                    **self.domains[name].describe(),
                    "parts": self.config.domain_parts or self.domains[name].parts,
                    "side": self.config.domain_side or self.domains[name].side,
                    "shots": self.config.domain_shots or self.domains[name].shots,
                    "plugin": self._offers[name].plugin.describe(),
                }
                for name in sorted(self._applied)
            ],
        }

    def fingerprint(self) -> dict[str, Any]:
        """Return all that decides a route and what it does, but for the router's model."""
        plugin = self._router.plugin.describe() if self._router else {}
        if not plugin.get("origin"):
            plugin.pop("name", None)  # a file counts by its content, wherever it is located
        return {
            **self.describe(),
            "plugin": plugin,
            "domains": {
                name: domain.describe()
                for name, domain in sorted(self.domains.items())
                if self._only_domain in (None, name)  # a router may look at all of them
            },
            "on": sorted(self._applied),
        }


def _only_domain(config: RoutingConfig) -> str:
    """Return the domain of every prompt, where there is no router."""
    names = config.domains or ()
    if len(names) != 1:
        raise ConfigError(
            "Which prompt belongs to which domain? Give router=…, such as router=keyword, or "
            f"one domain for all prompts, such as domains={names[0] if names else 'safety'}."
        )
    return names[0]


def _require(kind: str, name: str, valid: Collection[str]) -> None:
    if name not in valid:
        raise ConfigError(unknown_name(kind, name, valid))


def _key(prompt: RouterInput) -> str:
    messages = [dict(message) for message in prompt.messages]
    return json.dumps([messages, prompt.known], sort_keys=True, default=str)
