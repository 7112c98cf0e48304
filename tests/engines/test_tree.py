"""The tree of token ids, chunk by chunk, against the sequences that it was made of."""

from __future__ import annotations

import pytest
from helpers.engines import rows

from drsow_plugin.engines.local.tree import Chunk, Cursor, TokenTree

Prefix = tuple[int, ...]


def chunks(tree: TokenTree, tokens: int, num_runs: int) -> list[Chunk]:
    found: list[Chunk] = []
    cursor: Cursor | None = tree.start
    while cursor is not None:
        found.append(tree.chunk(cursor, tokens, num_runs))
        cursor = found[-1].next
    return found


def prefixes(chunk: Chunk, cached: list[Prefix]) -> list[Prefix]:
    """Return for each slot, those of the KV cache first, what its token has attended to."""
    ids, slots = [*(prefix[-1] for prefix in cached), *chunk.ids.tolist()], [*cached]
    for run in chunk.runs:
        keys = [slot for span in run.keys for slot in range(*span)]
        own = [len(cached) + token for token in range(run.start, run.stop)]
        assert keys[-len(own) :] == own and len(keys) == run.num_keys
        seen = tuple(ids[slot] for slot in keys)
        before = len(keys) - len(own)
        assert [slots[slot] for slot in keys[:before]] == [seen[: n + 1] for n in range(before)]
        assert chunk.positions[run.start : run.stop].tolist() == [*range(before, len(keys))]
        slots += [seen[: before + n] for n in range(1, len(own) + 1)]
    return slots


@pytest.mark.parametrize(("tokens", "num_runs"), [(1, 9), (7, 9), (37, 2), (64, 1), (9999, 9999)])
def test_each_distinct_prefix_is_computed_once_and_predicts_what_it_should(
    tokens: int, num_runs: int
) -> None:
    pairs = rows(3)
    sequences = [pair.prompt_ids + pair.response_ids for pair in pairs]
    tree, made, cached, finished = TokenTree(pairs), [], [], 0
    predicted: dict[int, tuple[Prefix, int]] = {}
    for chunk in chunks(tree, tokens, num_runs):
        assert len(chunk.ids) <= tokens and len(chunk.runs) <= num_runs
        assert chunk.cache_length == len(cached) < max(map(len, sequences))
        slots = prefixes(chunk, cached)
        new, cached = slots[len(cached) :], [slots[slot] for slot in chunk.next_cache]
        made += new
        predicting = chunk.predicting_positions[chunk.target_positions]
        for index, position, target in zip(
            chunk.target_indices, predicting, chunk.targets, strict=True
        ):
            predicted[int(index)] = new[position], int(target)
        for number in tree.order[finished : chunk.finished]:
            assert sequences[number][:-1] in made
        finished = chunk.finished
    assert finished == len(pairs) and tree.size == len(made)
    assert set(made) == {row[:n] for row in sequences for n in range(1, len(row))}
    assert len(set(made)) == len(made)
    for number, (pair, row) in enumerate(zip(pairs, sequences, strict=True)):
        first = len(pair.prompt_ids)
        expected = [(row[:n], row[n]) for n in range(first, len(row))]
        places = range(len(predicted))[tree.slices[number]]
        assert [predicted[place] for place in places] == expected


def test_a_chunk_can_be_read_again_from_where_it_begins() -> None:
    tree = TokenTree(rows(4))
    first = tree.chunk(tree.start, 40)
    assert first.next is not None
    whole, half = tree.chunk(first.next, 30), tree.chunk(first.next, 15)
    assert half.next is not None
    rest = tree.chunk(half.next, 15)
    assert [*half.ids, *rest.ids] == whole.ids.tolist()
    assert rest.next is not None and whole.next is not None
    assert rest.next == whole.next
