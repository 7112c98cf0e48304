"""The hooks through which a plugin adds domains and routers.

A plugin is a module or an object whose functions are marked with :data:`hookimpl`. It is
found by the entry point group ``drsow``, or named with ``plugin=``. The whole of one::

    from drsow_plugin import Domain, Router, hookimpl


    def route(prompts):
        return ["legal" if "contract" in prompt.text.lower() else None for prompt in prompts]


    @hookimpl
    def drsow_domains():
        return [Domain("legal", "Questions about law.", instruction="You are a lawyer.")]


    @hookimpl
    def drsow_routers():
        return [Router("legal", route)]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pluggy

from drsow_plugin.errors import ConfigError
from drsow_plugin.records import Message, Prompt, Route
from drsow_plugin.routing.domains import Domain

PROJECT = "drsow"
"""pluggy's name of this project, and the entry point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as an implementation of a hook."""


@dataclass(frozen=True)
class RouterInput:
    """A prompt that is to be routed.

    Attributes:
        messages: The conversation.
        known: The domain label in the data, in the column or lm-eval field ``domain_column``;
            ``None`` if there is none, and for a router without ``uses_known``.
    """

    messages: Sequence[Message]
    known: str | None = None

    @property
    def text(self) -> str:
        """The last user turn; empty if there is none."""
        turns = [m.get("content") for m in self.messages if m["role"] == "user"]
        return str(turns[-1] or "") if turns else ""


@dataclass(frozen=True)
class RouterContext:
    """What a router may use.

    Attributes:
        domains: All loaded domains by name.
        logprobs: Given prompts and one response each, returns the summed log-prob of each, in
            nats, under the model that ``router_model=`` names; ``None`` where a prompt is too
            long for it. The model is loaded on first use.
        confidence: ``router_confidence=``: the minimum probability at which a choice is kept;
            ``None`` leaves it to the router.
    """

    domains: Mapping[str, Domain]
    logprobs: Callable[[Sequence[Prompt], Sequence[str]], list[float | None]]
    confidence: float | None = None


@dataclass(frozen=True)
class Router:
    """Decides on the domain of each prompt.

    Attributes:
        name: What ``router=`` chooses it by; unique among all loaded routers.
        route: Given many prompts, returns for each the name of a domain, ``None`` for none, or
            a :class:`Route`, which can say more. The answer for a prompt must not depend on
            the others. May be called from several threads, and in several processes.
        description: One sentence for the people who choose.
        uses_known: Whether it reads the domain label in the data, ``known``.
    """

    name: str
    route: Callable[[Sequence[RouterInput]], Sequence[str | Route | None]]
    description: str = ""
    uses_known: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: One cannot be used.
        """
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"The name of a router is a text, got {self.name!r:.80}.")
        if not callable(self.route):
            raise ConfigError(f"Router {self.name!r}: route is a function, got {self.route!r:.80}.")


class Specs:
    """The hooks; a plugin implements those it needs."""

    @hookspec
    def drsow_domains(self) -> list[Domain]:  # type: ignore[empty-body]
        """Return the domains that the plugin adds.

        Called once whenever routing is set up: when a pair with ``router=`` or ``domains=`` is
        opened, in each process.

        Returns:
            The domains. A name that another plugin offers too is an error.
        """

    @hookspec
    def drsow_routers(self, context: RouterContext) -> list[Router]:  # type: ignore[empty-body]
        """Return the routers that the plugin adds.

        Called once whenever routing is set up, after all domains are known; load what is slow
        when the first prompt comes.

        Args:
            context: The domains, and a model to ask. An implementation that needs neither may
                leave the argument out.

        Returns:
            The routers. A name that another plugin offers too is an error.
        """


HOOKS: Mapping[str, Any] = {
    name: hook for name, hook in vars(Specs).items() if name.startswith(f"{PROJECT}_")
}
