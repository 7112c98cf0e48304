"""The engine: rows in bounded requests to one server or several, log-probs as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence

from drsow_plugin.engines import TokenLogProbs
from drsow_plugin.engines.server.background import emitted
from drsow_plugin.engines.server.batches import Limits, Queue
from drsow_plugin.engines.server.client import BrokenError, RefusedError, connected
from drsow_plugin.engines.server.servers import Servers, Watch
from drsow_plugin.records import REFUSED, Batching, Problem, TokenPair

_ROWS, _TOKENS = 64, 16_384  # of a request, unless batch_size and batch_tokens say otherwise
_REQUESTS = 4  # under way at one server; as many as a request's rows where each holds one only

_Emit = Callable[[tuple[int, TokenLogProbs]], None]


class ServerEngine:
    """Scores with a model that one or several servers have."""

    def __init__(self, servers: Servers, batching: Batching) -> None:
        """Use servers that are opened.

        Args:
            servers: They are asked.
            batching: Maximum of tokens and of rows in a request; ``None`` is a moderate number.
        """
        self._servers = servers
        rows, most = batching.rows or _ROWS, servers.form.max_rows
        self._limits = Limits(min(rows, most), batching.tokens or _TOKENS)
        self._requests = rows if most == 1 else _REQUESTS

    @property
    def is_loaded(self) -> bool:
        """Whether scoring may begin at once: it may."""
        return True

    @property
    def device(self) -> str:
        """Where it computes, in words."""
        return str(self._servers)

    def load(self) -> None:
        """Do nothing: the server has the weights."""

    def logprobs(
        self, pairs: Sequence[TokenPair]
    ) -> Generator[tuple[int, TokenLogProbs], None, None]:
        """Score responses; see :class:`drsow_plugin.engines.Engine`. Closing it cancels the rest.

        Raises:
            EngineError: A server serves something else than before, or did not answer for longer
                than it is waited for.
        """

        async def work(emit: _Emit) -> None:
            async with connected(self._servers.settings) as client:
                await self._score(pairs, Watch(self._servers, client), emit)

        return emitted(work)

    async def _score(self, pairs: Sequence[TokenPair], watch: Watch, emit: _Emit) -> None:
        """Ask for all rows, and emit what comes of each."""
        servers = range(len(self._servers.settings.urls))
        queue = Queue(pairs, len(servers), self._limits)

        async def worker(server: int) -> None:
            while (indices := queue.next_for(server)) is not None:
                await self._score_batch(pairs, indices, server, watch, emit)

        workers = min(self._requests, len(queue))
        tasks = [
            asyncio.ensure_future(worker(server)) for server in servers for _ in range(workers)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _score_batch(
        self,
        pairs: Sequence[TokenPair],
        indices: Sequence[int],
        server: int,
        watch: Watch,
        emit: _Emit,
    ) -> None:
        """Ask for some rows; for halves of them where a server does not take them all."""
        try:
            rows: Sequence[TokenLogProbs]
            rows = await watch.asked([pairs[index] for index in indices], server)
        except RefusedError as error:
            if len(indices) > 1:
                half = len(indices) // 2
                await self._score_batch(pairs, indices[:half], server, watch, emit)
                await self._score_batch(pairs, indices[half:], server, watch, emit)
                return
            if isinstance(error, BrokenError):  # because of the row, or at everything?
                await watch.confirmed(self._servers.settings.urls[server])
            rows = [Problem(REFUSED, f"the server does not score it: {error}")]
        for index, row in zip(indices, rows, strict=True):
            emit((index, row))
