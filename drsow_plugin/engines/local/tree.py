"""Rows as a tree of token ids in which no prefix stands twice, cut into chunks to compute.

Sorted rows stand in the tree's depth-first order: a row shares with the path before it its
longest common prefix, and adds the rest, a *run* of new nodes. All runs one behind the other
are the packed sequence; a chunk is any stretch of it. What a chunk needs of those before it is
the path to its first node alone, at most one row, so that memory depends on neither the number
of rows nor on how much they share.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drsow_plugin.records import TokenPair

Ids = npt.NDArray[np.int64]
_NO_IDS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Run:
    """Consecutive new tokens of one row in a chunk, and where the tokens before them lie.

    Attributes:
        start: First token of the run, in the chunk.
        stop: Where the run ends.
        context: Stretches, (start, stop), that hold the tokens before the run, in order:
            slots of the kept path followed by those of the chunk.
    """

    start: int
    stop: int
    context: tuple[tuple[int, int], ...]

    @property
    def context_length(self) -> int:
        """Number of tokens before the run."""
        return sum(stop - start for start, stop in self.context)


@dataclass(frozen=True)
class Chunk:
    """A stretch of the packed sequence.

    Attributes:
        ids: Token ids, (tokens,).
        positions: Depth of each token in its row, (tokens,).
        kept: Length of the path kept from the chunks before.
        runs: What attends to what.
        keep: Slots of the path that the next chunk needs.
        heads: Tokens that predict a response token, (predicting tokens,).
        entries: Which of the tree's ``predictions`` are made here, (predictions,).
        entry_heads: For each prediction its token, as an index into ``heads``.
        targets: For each prediction the predicted token id.
        done: Number of rows that end in this chunk or before.
    """

    ids: Ids
    positions: Ids
    kept: int
    runs: tuple[Run, ...]
    keep: Ids
    heads: Ids
    entries: Ids
    entry_heads: Ids
    targets: Ids
    done: int


class TokenTree:
    """Rows in depth-first order, read chunk by chunk.

    Attributes:
        order: The rows, as indices, in the tree's order.
        size: Number of distinct tokens to compute.
        predictions: For each response token of the rows, in the tree's order, the token that
            predicts it.
        spans: For each row where its response tokens stand in ``predictions``.
    """

    def __init__(self, pairs: Sequence[TokenPair]) -> None:
        """Lay rows out.

        Args:
            pairs: Rows with at least one prompt and one response token each.

        """
        rows = [np.array(pair.prompt_ids + pair.response_ids, dtype=np.int64) for pair in pairs]
        # The bytes of big-endian numbers sort as the numbers do.
        self.order = sorted(range(len(rows)), key=lambda i: rows[i].astype(">u4").tobytes())
        self._first: list[int] = []  # of each run: its first node
        self._depth: list[int] = []  # … and the depth of that node
        runs, nodes, targets, ends = [], [], [], []
        path_ids, path, size = _NO_IDS, _NO_IDS, 0
        for index in self.order:
            row, body = rows[index], rows[index][:-1]  # the last token is predicted, never read
            shared = _common(path_ids, body)
            new = len(body) - shared
            if new:
                self._first.append(size)
                self._depth.append(shared)
                runs.append(body[shared:])
            path = np.concatenate([path[:shared], np.arange(size, size + new)])
            path_ids, size = body, size + new
            begin = len(pairs[index].prompt_ids)
            nodes.append(path[begin - 1 :])
            targets.append(row[begin:])
            ends.append(path[-1])
        self.size = size
        self._ids = np.concatenate(runs)
        self._ends = np.maximum.accumulate(ends)
        self.predictions = np.concatenate(nodes)
        stops = np.cumsum([len(made) for made in nodes]).tolist()
        self.spans = {
            index: slice(start, stop)
            for index, start, stop in zip(self.order, [0, *stops], stops, strict=False)
        }
        self._entries = np.argsort(self.predictions, kind="stable")
        self._nodes = self.predictions[self._entries]
        self._targets = np.concatenate(targets)[self._entries]
        self._cursor, self._run, self._path = 0, 0, _NO_IDS

    @property
    def is_done(self) -> bool:
        """Whether all chunks have been passed."""
        return self._cursor == self.size

    def chunk(self, tokens: int, rows: int = sys.maxsize) -> Chunk:
        """Return the next chunk, of at most so many tokens and runs; see :meth:`advance`."""
        return self._read(tokens, rows)[0]

    def advance(self, chunk: Chunk) -> None:
        """Go on behind a chunk that has been dealt with."""
        _, self._run, self._path = self._read(len(chunk.ids), sys.maxsize)
        self._cursor += len(chunk.ids)

    def _read(self, tokens: int, rows: int) -> tuple[Chunk, int, Ids]:
        """Return the next chunk, the run behind it and the path up to there."""
        first, run, path = self._cursor, self._run, self._path
        last = min(first + tokens, self.size)
        kept, node = len(path), first
        runs: list[Run] = []
        positions: list[Ids] = []
        while node < last and len(runs) < rows:
            begin, end = self._first[run], self._end(run)
            stop = min(end, last)
            depth = self._depth[run] + node - begin
            new = np.arange(node, stop)
            slots = _slots(path[:depth], first, kept)
            runs.append(Run(node - first, stop - first, _stretches(slots)))
            positions.append(np.arange(depth, depth + len(new)))
            path = np.concatenate([path[:depth], new])
            node = stop
            run += stop == end
        last = node
        if run < len(self._first):
            path = path[: self._depth[run] + max(0, last - self._first[run])]
        else:
            path = _NO_IDS
        low, high = np.searchsorted(self._nodes, [first, last])
        heads, entry_heads = np.unique(self._nodes[low:high], return_inverse=True)
        chunk = Chunk(
            ids=self._ids[first:last],
            positions=np.concatenate(positions),
            kept=kept,
            runs=tuple(runs),
            keep=_slots(path, first, kept),
            heads=heads - first,
            entries=self._entries[low:high],
            entry_heads=entry_heads,
            targets=self._targets[low:high],
            done=int(np.searchsorted(self._ends, last)),
        )
        return chunk, run, path

    def _end(self, run: int) -> int:
        return self._first[run + 1] if run + 1 < len(self._first) else self.size


def _common(first: Ids, second: Ids) -> int:
    """Return the length of the longest common prefix."""
    shorter = min(len(first), len(second))
    differ = np.flatnonzero(first[:shorter] != second[:shorter])
    return int(differ[0]) if len(differ) else shorter


def _slots(path: Ids, first: int, kept: int) -> Ids:
    """Return where the nodes of a path lie: at their depth if kept, else behind what is kept."""
    return np.where(path < first, np.arange(len(path)), path - first + kept)


def _stretches(slots: Ids) -> tuple[tuple[int, int], ...]:
    """Return ascending slots as the (start, stop) of their contiguous stretches."""
    if not len(slots):
        return ()
    breaks = np.flatnonzero(np.diff(slots) != 1) + 1
    starts = [0, *breaks.tolist()]
    stops = [*breaks.tolist(), len(slots)]
    return tuple((int(slots[a]), int(slots[b - 1]) + 1) for a, b in zip(starts, stops, strict=True))
