"""Sequences as a tree of token ids in which no prefix stands twice, cut into chunks to compute.

A node is a distinct prefix, and computes its last token::

    nodes = {sequence[:n] for sequence in sequences for n in range(1, len(sequence))}

Sorted sequences stand in the tree's depth-first order: a sequence shares with the path before it
its longest common prefix, and adds the rest, a *run* of new nodes. All runs one behind the other
are the packed tree; a chunk is any span of it. What a chunk needs of those before it is the path
to its first node alone, at most one sequence, so that memory depends on neither the number of
sequences nor on how much they share.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from drsow_plugin.records import TokenPair

Ids = npt.NDArray[np.int64]
_NO_IDS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Run:
    """Consecutive new tokens of one sequence in a chunk, and what they attend to.

    Attributes:
        start: First token of the run, in the chunk.
        stop: Where the run ends.
        keys: Spans, (start, stop), of slots that hold the sequence up to the end of the run, in
            order. Slots are those of the KV cache followed by those of the chunk.
    """

    start: int
    stop: int
    keys: tuple[tuple[int, int], ...]

    @property
    def num_keys(self) -> int:
        """Number of tokens up to the end of the run."""
        return sum(stop - start for start, stop in self.keys)


@dataclass(frozen=True)
class Varlen:
    """The runs of a chunk as sequences of various lengths, the way flash attention takes them.

    Attributes:
        slots: The slots of the keys of each run, one run behind the other, (keys,).
        cu_seqlens_q: Ends of the runs, after a 0, (runs + 1,), int32.
        cu_seqlens_k: Ends of their keys, after a 0, (runs + 1,), int32.
        max_seqlen_q: Length of the longest run.
        max_seqlen_k: Number of keys of the run that has most.
    """

    slots: Ids
    cu_seqlens_q: npt.NDArray[np.int32]
    cu_seqlens_k: npt.NDArray[np.int32]
    max_seqlen_q: int
    max_seqlen_k: int


@dataclass(frozen=True)
class Cursor:
    """A place between two chunks.

    Attributes:
        node: First node of the next chunk.
        run: Index of the run that it belongs to.
        prefix: Node ids of the path before it, which the KV cache holds.
    """

    node: int
    run: int
    prefix: Ids


@dataclass(frozen=True)
class Chunk:
    """A span of the packed tree.

    Attributes:
        ids: Token ids, (tokens,).
        positions: Depth of each token in its sequence, (tokens,).
        cache_length: Length of the KV cache: the path before the chunk.
        runs: What attends to what.
        next_cache: Slots that the next chunk needs as its KV cache.
        predicting_positions: Tokens of the chunk that predict a response token, (positions,).
        target_positions: For each target the token that predicts it, as an index into
            ``predicting_positions``, ascending, (targets,).
        targets: The predicted token ids, (targets,).
        target_indices: Which of the tree's ``predicting_nodes`` they are, (targets,).
        finished: Number of sequences that end in this chunk or before.
        next: Where the next chunk begins; ``None`` after the last one.
    """

    ids: Ids
    positions: Ids
    cache_length: int
    runs: tuple[Run, ...]
    next_cache: Ids
    predicting_positions: Ids
    target_positions: Ids
    targets: Ids
    target_indices: Ids
    finished: int
    next: Cursor | None

    @cached_property
    def varlen(self) -> Varlen:
        """The runs as flash attention takes them."""
        queries = [run.stop - run.start for run in self.runs]
        keys = [run.num_keys for run in self.runs]
        return Varlen(
            np.concatenate([np.arange(*span) for run in self.runs for span in run.keys]),
            np.array([0, *accumulate(queries)], dtype=np.int32),
            np.array([0, *accumulate(keys)], dtype=np.int32),
            max(queries),
            max(keys),
        )


class TokenTree:
    """Sequences in depth-first order, read chunk by chunk.

    Attributes:
        order: The sequences, as indices, in the tree's order.
        size: Number of nodes.
        predicting_nodes: For each response token of the sequences, in the tree's order, the node
            that predicts it.
        slices: For each sequence where its response tokens stand in ``predicting_nodes``.
    """

    def __init__(self, pairs: Sequence[TokenPair]) -> None:
        """Lay sequences out.

        Args:
            pairs: Sequences with at least one prompt and one response token each.
        """
        rows = [np.array(pair.prompt_ids + pair.response_ids, dtype=np.int64) for pair in pairs]
        # The bytes of big-endian numbers sort as the numbers do.
        self.order = sorted(range(len(rows)), key=lambda i: rows[i].astype(">u4").tobytes())
        self._first: list[int] = []  # of each run: its first node; and the size of the tree
        self._depth: list[int] = []  # of each run: the depth of its first node
        runs, nodes, targets, ends = [], [], [], []
        path_ids, path, size = _NO_IDS, _NO_IDS, 0
        for index in self.order:
            row, inputs = rows[index], rows[index][:-1]  # the last token is predicted, never read
            shared = _common(path_ids, inputs)
            new = len(inputs) - shared
            if new:
                self._first.append(size)
                self._depth.append(shared)
                runs.append(inputs[shared:])
            path = np.concatenate([path[:shared], np.arange(size, size + new)])
            path_ids, size = inputs, size + new
            begin = len(pairs[index].prompt_ids)
            nodes.append(path[begin - 1 :])
            targets.append(row[begin:])
            ends.append(path[-1])
        self.size = size
        self._first.append(size)
        self._ids = np.concatenate(runs)
        self._ends = np.maximum.accumulate(ends)
        self.predicting_nodes = np.concatenate(nodes)
        stops = np.cumsum([len(each) for each in nodes]).tolist()
        self.slices = {
            index: slice(start, stop)
            for index, start, stop in zip(self.order, [0, *stops], stops, strict=False)
        }
        self._target_indices = np.argsort(self.predicting_nodes, kind="stable")
        self._target_nodes = self.predicting_nodes[self._target_indices]
        self._targets = np.concatenate(targets)[self._target_indices]

    @property
    def start(self) -> Cursor:
        """Where the first chunk begins."""
        return Cursor(0, 0, _NO_IDS)

    def chunk(self, start: Cursor, tokens: int, num_runs: int = sys.maxsize) -> Chunk:
        """Return the chunk that begins at a place, of at most so many tokens and runs."""
        first, run, path = start.node, start.run, start.prefix
        last, cache_length, node = min(first + tokens, self.size), len(path), first
        runs: list[Run] = []
        positions: list[Ids] = []
        while node < last and len(runs) < num_runs:
            begin, end = self._first[run : run + 2]
            stop = min(end, last)
            depth = self._depth[run] + node - begin
            new = np.arange(node, stop)
            path = np.concatenate([path[:depth], new])
            slots = _slots(path, first, cache_length)
            runs.append(Run(node - first, stop - first, _spans(slots)))
            positions.append(np.arange(depth, depth + len(new)))
            node = stop
            run += stop == end
        last = node
        following, prefix = None, _NO_IDS
        if last < self.size:
            prefix = path[: self._depth[run] + last - self._first[run]]
            following = Cursor(last, run, prefix)
        low, high = np.searchsorted(self._target_nodes, [first, last])
        predicting, target_positions = np.unique(self._target_nodes[low:high], return_inverse=True)
        return Chunk(
            ids=self._ids[first:last],
            positions=np.concatenate(positions),
            cache_length=cache_length,
            runs=tuple(runs),
            next_cache=_slots(prefix, first, cache_length),
            predicting_positions=predicting - first,
            target_positions=target_positions,
            targets=self._targets[low:high],
            target_indices=self._target_indices[low:high],
            finished=int(np.searchsorted(self._ends, last)),
            next=following,
        )


def _common(first: Ids, second: Ids) -> int:
    """Return the length of the longest common prefix."""
    shorter = min(len(first), len(second))
    differ = np.flatnonzero(first[:shorter] != second[:shorter])
    return int(differ[0]) if len(differ) else shorter


def _slots(path: Ids, first: int, cache_length: int) -> Ids:
    """Return the slots of a path's nodes: their depth if in the cache, else behind the cache."""
    return np.where(path < first, np.arange(len(path)), path - first + cache_length)


def _spans(slots: Ids) -> tuple[tuple[int, int], ...]:
    """Return ascending slots as the (start, stop) of their contiguous spans."""
    breaks = np.flatnonzero(np.diff(slots) != 1) + 1
    starts, stops = [0, *breaks.tolist()], [*breaks.tolist(), len(slots)]
    return tuple((int(slots[a]), int(slots[b - 1]) + 1) for a, b in zip(starts, stops, strict=True))
