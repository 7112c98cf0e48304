"""A policy on a server with OpenAI's interface: one request for each response."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from drsow_plugin.config.sampling import Sampling
from drsow_plugin.engines.server.background import emitted, result_of
from drsow_plugin.engines.server.client import Client, RefusedError, connected
from drsow_plugin.engines.server.settings import Settings
from drsow_plugin.errors import ConfigError, EngineError
from drsow_plugin.generation.policy import Ask, Finish, Sample
from drsow_plugin.records import REFUSED, Problem

_AT_ONCE = 64  # requests to each server
_FINISHES: dict[Any, Finish] = {"stop": "stop", "length": "length"}


class ServedPolicy:
    """Samples by ``/chat/completions``: tokenizer, template and model are the server's."""

    def __init__(self, settings: Settings, sampling: Sampling) -> None:
        """Find the model, and ask for one token, before any work.

        Args:
            settings: The servers; several share the work.
            sampling: How to sample.

        Raises:
            ConfigError: A server does not serve the model, or does not take the sampling.
            EngineError: A server does not answer.
        """
        self._settings = settings
        self._sampling = sampling

        async def look() -> list[str]:
            async with connected(settings) as client:
                return [await self._open(client, url) for url in settings.urls]

        names = result_of(look)
        if len({*names}) > 1:
            raise ConfigError(
                f"policy_server: {' and '.join(settings.urls)} serve {' and '.join(names)}. Give "
                "servers of one model."
            )
        self._name = names[0]

    def describe(self) -> dict[str, Any]:
        """Return what identifies its responses, as far as the servers tell."""
        return {"served": self._name, "servers": list(self._settings.urls)}

    def samples(self, asks: Iterator[Ask]) -> Iterator[tuple[int, Sample | Problem]]:
        """Yield responses; see :class:`~drsow_plugin.generation.policy.Policy`."""
        numbered = enumerate(asks)  # asked for in one thread, that of the event loop

        async def work(emit: Callable[[tuple[int, Sample | Problem]], None]) -> None:
            async with connected(self._settings) as client:

                async def one(url: str) -> None:
                    for index, ask in numbered:
                        emit((index, await self._answer(client, url, ask)))

                tasks = [
                    asyncio.create_task(one(url))
                    for _ in range(_AT_ONCE)
                    for url in self._settings.urls
                ]
                try:
                    await asyncio.gather(*tasks)
                finally:
                    for task in tasks:
                        task.cancel()

        yield from emitted(work)

    def close(self) -> None:
        """Do nothing: connections are open while it samples."""

    async def _open(self, client: Client, url: str) -> str:
        """Return the name of what is served there, once it has answered."""
        listed = await client.at_first(lambda: client.send(f"{url}/models"))
        cards = listed.get("data") if isinstance(listed, dict) else None
        names = [str(card.get("id")) for card in cards or [] if isinstance(card, dict)]
        wanted = self._settings.model or self._settings.source
        if wanted not in names and len(names) == 1 and self._settings.model is None:
            wanted = names[0]
        if wanted not in names:
            raise ConfigError(
                f"The server at {url} serves {', '.join(names) or 'nothing'}, not {wanted!r}. Name "
                "one of them with server_model=…."
            )
        body = self._body(Ask([{"role": "user", "content": "Hi"}], 0, "a first request"), wanted)
        try:
            await client.at_first(
                lambda: client.send(f"{url}/chat/completions", {**body, "max_tokens": 1})
            )
        except RefusedError as error:
            raise ConfigError(
                f"{error}. Where it does not know top_k, give top_k=0; where it serves no chat, "
                "give it a chat template."
            ) from None
        return wanted

    async def _answer(self, client: Client, url: str, ask: Ask) -> Sample | Problem:
        body = self._body(ask, self._name)

        async def attempt() -> Any:
            return await client.send(f"{url}/chat/completions", body)

        try:
            return _read(await client.patiently(attempt, lambda _error: None), url)
        except RefusedError as error:
            return Problem(REFUSED, str(error))

    def _body(self, ask: Ask, model: str) -> dict[str, Any]:
        sampling = self._sampling
        body: dict[str, Any] = {
            "model": model,
            "messages": [dict(message) for message in ask.messages],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": ask.seed,
        }
        if sampling.top_k:
            body["top_k"] = sampling.top_k  # known to vLLM, SGLang and llama.cpp, not to OpenAI
        return body


def _read(answer: Any, url: str) -> Sample:
    """Return the response in an answer.

    Raises:
        EngineError: There is none.
    """
    try:
        (choice,) = answer["choices"]
        text, finish = choice["message"]["content"], _FINISHES[choice["finish_reason"]]
        usage = answer.get("usage") or {}
        tokens = usage.get("completion_tokens")
        if not isinstance(text, str):
            raise TypeError
    except (KeyError, TypeError, ValueError, AttributeError):
        raise EngineError(
            f"{url}/chat/completions answered no response: {str(answer)[:200]!r}. Is this a server "
            "with OpenAI's interface, without tools?"
        ) from None
    return Sample(text, tokens if isinstance(tokens, int) else None, finish)
