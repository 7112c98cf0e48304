"""The HTTP side: paths, keys, limits and errors around the rows."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from drsow_plugin.config.routing import RoutingConfig
from drsow_plugin.errors import EngineError
from drsow_plugin.records import Reward
from drsow_plugin.serving.batcher import Batcher, Busy, tell_failure
from drsow_plugin.serving.bodies import WIRES, Refused, Wire, read_query
from drsow_plugin.serving.metrics import Metrics
from drsow_plugin.serving.options import ServeConfig

_Endpoint = Callable[[Request], Awaitable[Response]]
_CLIENT_GONE = 499  # nobody reads it; it is counted


class Service:
    """Answers requests with what a batcher scores."""

    def __init__(
        self,
        batcher: Batcher,
        config: ServeConfig,
        routing: RoutingConfig,
        key: str | None,
        metrics: Metrics,
    ) -> None:
        """Remember what answers.

        Args:
            batcher: Scores rows.
            config: Limits, and what prompts are.
            routing: Whether rows may name domains.
            key: What requests have to bring, or ``None``.
            metrics: Told of requests.
        """
        self._batcher = batcher
        self._config = config
        self._routing = routing
        self._key = key
        self._metrics = metrics

    def app(self) -> Starlette:
        """Return the application."""
        rewards = [
            Route(path, self._counted(path, self._rewards(wire)), methods=["POST"])
            for path, wire in WIRES.items()
        ]
        others = [
            Route("/health", self._health),
            Route("/ready", self._ready),
            Route("/metrics", self._counted("/metrics", self._show_metrics)),
        ]
        return Starlette(
            routes=[*rewards, *others],
            exception_handlers={HTTPException: _no_such},
        )

    async def _health(self, _request: Request) -> Response:
        return _json({"status": "ok"})

    async def _ready(self, _request: Request) -> Response:
        if self._batcher.is_ready:
            return _json({"status": "ready"})
        return _json({"status": "loading"}, 503, {"Retry-After": "5"})

    async def _show_metrics(self, _request: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    def _counted(self, path: str, endpoint: _Endpoint) -> _Endpoint:
        """Return an endpoint that asks for the key, tells what is refused and is counted."""

        async def answer(request: Request) -> Response:
            loop = asyncio.get_running_loop()
            started = loop.time()
            try:
                self._check_key(request)
                response = await endpoint(request)
            except Refused as refused:
                response = _error(refused.code, str(refused), refused.headers)
            except ClientDisconnect:
                response = Response(status_code=_CLIENT_GONE)
            except Exception as error:  # told here: a traceback in a log may quote a text
                tell_failure(error)
                response = _error(500, _fault(error))
            self._metrics.answered(path, response.status_code)
            self._metrics.seconds.labels(path).observe(loop.time() - started)
            return response

        return answer

    def _check_key(self, request: Request) -> None:
        if self._key is None:
            return
        given = _given_key(request.headers.get("authorization", ""))
        if not hmac.compare_digest(given.encode(), self._key.encode()):
            raise Refused(
                401,
                "A key is needed: Authorization: Bearer KEY, or http://drsow:KEY@host.",
                {"WWW-Authenticate": "Bearer"},
            )

    def _rewards(self, wire: Wire) -> _Endpoint:
        async def answer(request: Request) -> Response:
            query = read_query(wire, await self._body(request), self._config, self._routing)
            scored = query.scored
            rewards: Sequence[Reward] = ()
            if scored:
                try:
                    pending = self._batcher.submit(
                        [query.prompts[index] for index in scored],
                        [query.responses[index] for index in scored],
                        [query.domains[index] for index in scored],
                    )
                except Busy as busy:
                    raise Refused(429, str(busy), {"Retry-After": f"{busy.retry_after}"}) from busy
                rewards = await _unless_gone(request, pending)
            return _json(wire.answer(query.outcomes(rewards)))

        return answer

    async def _body(self, request: Request) -> bytes:
        """Return the body of a request.

        Raises:
            Refused: It is too long, or takes too long.
        """
        limit, seconds = self._config.max_body, self._config.client_timeout
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > limit:
            raise _too_long(limit)
        body = bytearray()

        async def read() -> None:
            async for chunk in request.stream():
                body.extend(chunk)
                if len(body) > limit:
                    raise _too_long(limit)

        try:
            await asyncio.wait_for(read(), seconds)
        except asyncio.TimeoutError as error:
            text = f"The body did not come within {seconds} s (--client-timeout)."
            raise Refused(408, text, {"Connection": "close"}) from error
        return bytes(body)


def _too_long(limit: int) -> Refused:
    text = f"A body has at most {limit} bytes (--max-body). Send the rows in several requests."
    return Refused(413, text, {"Connection": "close"})


def _given_key(header: str) -> str:
    """Return the key of a header; of Basic, which clients make of a URL, it is the password."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        with suppress(ValueError):
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
    return ""


async def _unless_gone(request: Request, pending: asyncio.Future[list[Reward]]) -> Sequence[Reward]:
    """Wait for rewards; those of a client that goes away are not scored any more.

    Raises:
        ClientDisconnect: It went away.
        Refused: Scoring failed.
    """
    gone = asyncio.ensure_future(request.receive())
    first: set[asyncio.Future[Any]] = {pending, gone}
    try:
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not pending.done():
            raise ClientDisconnect
        if error := pending.exception():  # the thread that scores has told of it
            raise Refused(500, _fault(error)) from error
        return pending.result()
    finally:
        pending.cancel()
        gone.cancel()


def _json(values: object, code: int = 200, headers: dict[str, str] | None = None) -> Response:
    text = json.dumps(values, allow_nan=False)
    return Response(text, code, headers, media_type="application/json")


def _error(code: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return _json({"error": {"code": code, "message": message}}, code, headers)


async def _no_such(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    paths = ", ".join((*WIRES, "/health", "/ready", "/metrics"))
    text = f"{error.detail}: {request.method} {request.url.path}. There are {paths}."
    return _error(error.status_code, text, dict(error.headers or {}))


def _fault(error: BaseException) -> str:
    if isinstance(error, EngineError):
        return f"Scoring failed: {error}"
    return f"Scoring failed: {type(error).__name__}. The server's log says where."
