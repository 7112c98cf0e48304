"""The servers of one model, opened: what they serve, how they are asked, whether that stays so."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from drsow_plugin.engines.server.background import result_of
from drsow_plugin.engines.server.client import (
    BrokenError,
    Client,
    RefusedError,
    UnavailableError,
    connected,
)
from drsow_plugin.engines.server.forms import Form, FormError, MissingValuesError
from drsow_plugin.engines.server.probe import Probe, ask, find
from drsow_plugin.engines.server.served import Served, look_at
from drsow_plugin.engines.server.settings import Settings
from drsow_plugin.errors import ConfigError, EngineError
from drsow_plugin.records import TokenPair

logger = logging.getLogger(__name__)


class Servers:
    """One model on one server or several.

    Attributes:
        settings: What was asked for.
        served: What they serve; its length limit is the lowest of theirs.
        form: How they are asked.
    """

    def __init__(self, settings: Settings, probe: Probe) -> None:
        """Look at each server, find out how it is asked, and check what it answers.

        Args:
            settings: What was asked for.
            probe: Rows to ask for.

        Raises:
            ConfigError: A server gives no log-probs of prompts or serves another model, or two of
                them do not serve the same.
            EngineError: A server does not answer, or as no server of models does.
        """
        self.settings = settings
        self._probe = probe

        async def look() -> list[tuple[Served, Form]]:
            async with connected(settings) as client:
                return [await find(client, settings, url, probe) for url in settings.urls]

        found = result_of(look)
        served, self.form = found[0]
        for url, (other, _) in zip(settings.urls, found, strict=True):
            if difference := served.changes(other):
                raise ConfigError(
                    f"{settings.name}_server: {url} does not serve the same as "
                    f"{settings.urls[0]}: {difference}. Give servers of one model."
                )
        lengths = [one.max_length for one, _ in found if one.max_length is not None]
        self.served = replace(served, max_length=min(lengths, default=None))

    def __str__(self) -> str:
        version = f" {self.served.version}" if self.served.version else ""
        return f"{self.served.kind}{version} at {', '.join(self.settings.urls)}"

    def is_same_as(self, other: Servers) -> bool:
        """Tell whether both are one model, at one address or under other names."""
        is_there_too = bool(set(self.settings.urls) & set(other.settings.urls))
        named_alike = is_there_too and self.served.model == other.served.model
        asked_alike = self._probe == other._probe
        return named_alike or (asked_alike and self.served.answers_like(other.served))

    def check(self) -> None:
        """Check that the servers serve what they did when they were opened.

        Raises:
            EngineError: One serves another model, another version, or does not answer.
        """

        async def look() -> None:
            async with connected(self.settings) as client:
                watch = Watch(self, client)
                for url in self.settings.urls:
                    await watch.confirmed(url)

        result_of(look)

    async def confirm(self, client: Client, url: str) -> None:
        """Check that a server serves what it did, by one attempt.

        Raises:
            EngineError: It serves something else.
            UnavailableError: It did not answer.
            BrokenError: It failed.
        """
        try:
            now = await look_at(client, self.settings, url)
            rows = self._probe.rows[:1]
            (values,) = await ask(client, url, self.form, now.model, rows, cached=False)
        except BrokenError:
            raise
        except (RefusedError, FormError, ConfigError) as error:
            raise EngineError(f"{url} does not serve what it did: {error}") from None
        now = replace(now, form=self.form.name, logprobs=tuple(values))
        if difference := self.served.changes(now):
            raise EngineError(
                f"{url} does not serve what it did when it was opened: {difference}. Nothing of "
                "this call is kept. Run again, with the server as it was or as it is."
            )


class Watch:
    """What is known of the servers during a call: those that failed to answer are looked at anew.

    A server that was away may have come back with another model.
    """

    def __init__(self, servers: Servers, client: Client) -> None:
        """Begin with servers that are as they were when they were opened."""
        self._servers = servers
        self._client = client
        self._suspects: set[str] = set()

    async def asked(self, pairs: Sequence[TokenPair], server: int) -> list[list[float]]:
        """Return the log-probs of some rows, asking again, and other servers, where need be.

        Args:
            pairs: The rows, of one request.
            server: Number of the server that is asked first.

        Raises:
            RefusedError: The server does not take the request, or fails on it.
            EngineError: Nothing more can come.
        """
        urls = self._servers.settings.urls
        turn = server - 1

        async def attempt() -> list[list[float]]:
            nonlocal turn
            turn += 1
            url = urls[turn % len(urls)]
            if url in self._suspects:
                await self._confirm(url)
            return await self._once(url, pairs)

        return await self._client.patiently(
            attempt, lambda error: self._notice(urls[turn % len(urls)], error)
        )

    async def confirmed(self, url: str) -> None:
        """Check, with patience, that a server serves what it did; see :meth:`Servers.confirm`."""
        try:
            await self._client.patiently(
                lambda: self._confirm(url), lambda error: self._notice(url, error)
            )
        except BrokenError as error:
            raise EngineError(f"{error}. It fails on everything; look at its log.") from None

    async def _once(self, url: str, pairs: Sequence[TokenPair]) -> list[list[float]]:
        form, model = self._servers.form, self._servers.served.model
        try:
            try:
                return await ask(self._client, url, form, model, pairs)
            except MissingValuesError:
                return await ask(self._client, url, form, model, pairs, cached=False)
        except FormError as error:
            raise EngineError(f"{url} answered something else than log-probs: {error}.") from None

    async def _confirm(self, url: str) -> None:
        await self._servers.confirm(self._client, url)
        if url in self._suspects:
            self._suspects.discard(url)
            logger.warning("%s_server: %s answers again.", self._servers.settings.name, url)

    def _notice(self, url: str, error: Exception) -> None:
        """Say that a server does not answer, once until it does."""
        if isinstance(error, UnavailableError) and url not in self._suspects:
            settings = self._servers.settings
            logger.warning(
                "%s_server: %s. It is asked again for up to %g s.",
                *(settings.name, error, settings.wait),
            )
            self._suspects.add(url)
