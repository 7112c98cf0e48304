"""Which rows go into one request, and to which of several servers."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from drsow_plugin.records import TokenPair


@dataclass(frozen=True)
class Limits:
    """What a request may hold.

    Attributes:
        rows: Maximum of rows.
        tokens: Maximum of tokens, prompts included; a longer row goes alone.
    """

    rows: int
    tokens: int


class Queue:
    """The requests that wait, for each of several servers.

    Responses to one prompt stand next to each other and go to one server, which may then compute
    the prompt once; among the servers prompts are spread by their tokens.
    """

    def __init__(self, pairs: Sequence[TokenPair], servers: int, limits: Limits) -> None:
        """Spread the rows.

        Args:
            pairs: The rows.
            servers: How many servers there are.
            limits: What a request may hold.
        """
        self._waiting: list[deque[list[int]]] = [deque() for _ in range(servers)]
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, pair in enumerate(pairs):
            groups.setdefault(pair.prompt_ids, []).append(index)
        shares: list[list[int]] = [[] for _ in range(servers)]
        loads = [0] * servers
        for indices in groups.values():
            server = loads.index(min(loads))
            shares[server] += indices
            loads[server] += sum(len(pairs[index]) for index in indices)
        for waiting, share in zip(self._waiting, shares, strict=True):
            waiting.extend(_batches(pairs, share, limits))

    def __len__(self) -> int:
        return sum(map(len, self._waiting))

    def next_for(self, server: int) -> list[int] | None:
        """Return the rows of a server's next request: its own, else the last of another's."""
        if self._waiting[server]:
            return self._waiting[server].popleft()
        longest = max(self._waiting, key=len)
        return longest.pop() if longest else None


def _batches(pairs: Sequence[TokenPair], indices: Sequence[int], limits: Limits) -> list[list[int]]:
    batches: list[list[int]] = []
    tokens = 0
    for index in indices:
        tokens += len(pairs[index])
        if not batches or tokens > limits.tokens or len(batches[-1]) >= limits.rows:
            batches.append([])
            tokens = len(pairs[index])
        batches[-1].append(index)
    return batches
