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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import chain

import numpy as np

from drsow_plugin.engines.local.spans import Ids, Path, Span, numbers, slots_of
from drsow_plugin.records import TokenPair

_ROWS_COMPARED = 1024  # at once: their tokens stand in memory a few times


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
    keys: tuple[Span, ...]

    @property
    def num_keys(self) -> int:
        """Number of tokens up to the end of the run."""
        return sum(stop - start for start, stop in self.keys)


@dataclass(frozen=True)
class Cursor:
    """A place between two chunks.

    Attributes:
        node: First node of the next chunk.
        run: Index of the run that it belongs to.
        depth: Its depth: the length of the path before it, which the KV cache holds.
    """

    node: int
    run: int
    depth: int


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
        lengths = np.array([len(pair) for pair in pairs])
        parts = (part for pair in pairs for part in (pair.prompt_ids, pair.response_ids))
        ids = np.fromiter(chain.from_iterable(parts), np.int64, lengths.sum())
        starts = lengths.cumsum() - lengths
        self.order = _sorted(ids, starts.tolist(), lengths.tolist())

        starts, inputs = starts[self.order], lengths[self.order] - 1  # the last is never read
        prompts = np.array([len(pairs[index].prompt_ids) for index in self.order])
        responses = inputs + 1 - prompts
        shared = _shared_with_former(ids, starts, inputs)
        new = inputs - shared
        self.size = int(new.sum())
        firsts = new.cumsum() - new
        self._first = [*firsts[new > 0].tolist(), self.size]  # of each run: its first node …
        self._depth = shared[new > 0].tolist()  # … and its depth
        self._ids = ids[numbers(starts + shared, new)]

        stops = responses.cumsum()
        self.predicting_nodes = np.empty(stops[-1], dtype=np.int64)
        nodes, path, ends = np.arange(self.size), np.empty(inputs.max(), dtype=np.int64), []
        rows = np.stack([shared, inputs, firsts, prompts, stops], axis=1).tolist()
        for depth, length, first, prompt, stop in rows:
            path[depth:length] = nodes[first : first + length - depth]
            self.predicting_nodes[stop - (length + 1 - prompt) : stop] = path[prompt - 1 : length]
            ends.append(path[length - 1])
        self._ends = np.maximum.accumulate(ends)
        spans = map(slice, (stops - responses).tolist(), stops.tolist())
        self.slices = dict(zip(self.order, spans, strict=True))

        self._target_indices = np.argsort(self.predicting_nodes, kind="stable")
        self._target_nodes = self.predicting_nodes[self._target_indices]
        self._targets = ids[numbers(starts + prompts, responses)][self._target_indices]
        is_new = np.diff(self._target_nodes, prepend=-1) > 0
        self._distinct_nodes = self._target_nodes[is_new]
        self._distinct = is_new.cumsum() - 1  # of each target: where its node stands in these

    @property
    def start(self) -> Cursor:
        """Where the first chunk begins."""
        return Cursor(0, 0, 0)

    def chunk(self, start: Cursor, tokens: int, num_runs: int = sys.maxsize) -> Chunk:
        """Return the chunk that begins at a place, of at most so many tokens and runs."""
        first, run, cached = start.node, start.run, start.depth
        last, node = min(first + tokens, self.size), first
        path = Path(cached)
        runs: list[Run] = []
        depths: list[int] = []
        while node < last and len(runs) < num_runs:
            begin, end = self._first[run : run + 2]
            stop = min(end, last)
            depths.append(self._depth[run] + node - begin)
            path.cut(depths[-1])
            path.add(node - first + cached, stop - first + cached)
            runs.append(Run(node - first, stop - first, path.spans()))
            node = stop
            run += stop == end
        last, following = node, None
        if last < self.size:
            following = Cursor(last, run, self._depth[run] + last - self._first[run])
        path.cut(0 if following is None else following.depth)
        low, high = np.searchsorted(self._target_nodes, [first, last])
        distinct = slice(*np.searchsorted(self._distinct_nodes, [first, last]))
        return Chunk(
            ids=self._ids[first:last],
            positions=numbers(np.array(depths), np.array([run.stop - run.start for run in runs])),
            cache_length=cached,
            runs=tuple(runs),
            next_cache=slots_of(path.spans()),
            predicting_positions=self._distinct_nodes[distinct] - first,
            target_positions=self._distinct[low:high] - distinct.start,
            targets=self._targets[low:high],
            target_indices=self._target_indices[low:high],
            finished=int(np.searchsorted(self._ends, last)),
            next=following,
        )


_held: ContextVar[list[tuple[Sequence[TokenPair], TokenTree]]] = ContextVar("held")


@contextmanager
def shared_trees() -> Iterator[None]:
    """Let :func:`tree_of` keep its last tree, in this thread, until this context is left."""
    token = _held.set([])
    try:
        yield
    finally:
        _held.reset(token)


def tree_of(pairs: Sequence[TokenPair]) -> TokenTree:
    """Return the tree of some sequences; see :func:`shared_trees`."""
    held = _held.get([])
    if held and held[0][0] == pairs:
        return held[0][1]
    held.clear()  # before another comes
    tree = TokenTree(pairs)
    held.append((pairs, tree))
    return tree


def _sorted(ids: Ids, starts: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """Return the rows, as indices, in lexicographic order."""
    data = ids.astype(">u4").tobytes()  # the bytes of big-endian numbers sort as the numbers do
    rows = [data[4 * a : 4 * (a + n)] for a, n in zip(starts, lengths, strict=True)]
    return sorted(range(len(rows)), key=rows.__getitem__)


def _shared_with_former(ids: Ids, starts: Ids, lengths: Ids) -> Ids:
    """Return the length of the longest common prefix of each row with the one before it."""
    shared = [np.zeros(1, dtype=np.int64)]
    for row in range(1, len(starts), _ROWS_COMPARED):
        end = min(row + _ROWS_COMPARED, len(starts))
        here, former = slice(row, end), slice(row - 1, end - 1)
        shorter = np.minimum(lengths[here], lengths[former])
        one, other = (ids[numbers(starts[rows], shorter)] for rows in (here, former))
        begins = shorter.cumsum() - shorter
        differ = np.append(np.flatnonzero(one != other), len(one))
        shared.append(np.minimum(differ[np.searchsorted(differ, begins)] - begins, shorter))
    return np.concatenate(shared)
