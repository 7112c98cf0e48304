"""The server's life: listen, load, answer, and stop when what was accepted is answered."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from drsow_plugin.cache import reason
from drsow_plugin.errors import ConfigError
from drsow_plugin.progress import tell
from drsow_plugin.serving.app import Service
from drsow_plugin.serving.batcher import Batcher
from drsow_plugin.serving.metrics import Metrics
from drsow_plugin.serving.options import ServeConfig

if TYPE_CHECKING:
    from drsow_plugin.scoring.drsow import DrSoW

_CONNECTIONS = 65_536
_BACKLOG = 2048


def listen(config: ServeConfig) -> socket.socket:
    """Return a socket that listens on the address: who connects is kept until the server runs.

    Raises:
        ConfigError: The address is not there, or taken.
    """
    host = config.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, config.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"{config.host} port {config.port} cannot be listened on: {reason(error)}. Give "
            "another --port, or 0 for any that is free."
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the address of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class RewardServer:
    """Serves the rewards of one pair."""

    def __init__(self, drsow: DrSoW, config: ServeConfig, key: str | None = None) -> None:
        """Put the parts together; nothing is loaded or answered yet.

        Args:
            drsow: The pair.
            config: How it is served.
            key: What requests have to bring, or ``None``.
        """
        metrics = Metrics()
        self._batcher = Batcher(drsow, config, metrics)
        service = Service(self._batcher, config, drsow.config.routing, key, metrics)
        connection = type("Connection", (_Connection,), {"seconds": config.client_timeout})
        self._server = _Uvicorn(
            uvicorn.Config(
                service.app(),
                http=connection,
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_keep_alive=config.client_timeout,
            )
        )

    def run(self, listener: socket.socket) -> None:
        """Answer requests until a signal or :meth:`stop`, then finish what was accepted.

        Raises:
            DrSoWError: The models cannot be loaded.
        """
        _allow_connections()
        asyncio.run(self._run(listener))

    def stop(self) -> None:
        """Accept nothing more, and end :meth:`run` once all is answered."""
        self._server.should_exit = True

    async def _run(self, listener: socket.socket) -> None:
        scoring = asyncio.create_task(self._batcher.run())
        scoring.add_done_callback(lambda _task: self.stop())  # the models cannot be loaded
        await self._server.serve(sockets=[listener])
        if not scoring.done():
            scoring.cancel()
        with suppress(asyncio.CancelledError):
            await scoring


class _Uvicorn(uvicorn.Server):
    """Stops in peace at the first signal, without raising it again, and at once at the second."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = True
        tell(f"{signal.Signals(sig).name}: finishing what was accepted; again stops at once")


class _Connection(H11Protocol):
    """A connection that is closed when a request's head does not come in time."""

    seconds = 30

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)

    def _wait_for_request(self) -> None:
        self._deadline = self.loop.call_later(self.seconds, self._expire)

    def _expire(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def _allow_connections() -> None:
    """Let the process open as many files as it may: each connection is one."""
    with suppress(ImportError, ValueError, OSError):  # not on Windows, or not allowed
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _CONNECTIONS if hard == resource.RLIM_INFINITY else min(hard, _CONNECTIONS)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
