"""Shards have as many tokens each, the same for everyone who looks at the same rows."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from helpers import tiny
from helpers.fakes import fake_annotator
from helpers.preferences import candidates, pairs

from drsow_plugin.annotate.layout import find_layout
from drsow_plugin.annotate.parts import plan as plans
from drsow_plugin.annotate.parts.content import ContentHash
from drsow_plugin.annotate.parts.part import Part
from drsow_plugin.annotate.parts.plan import Plan, make_plan
from drsow_plugin.scoring.drsow import DrSoW


def plan(data: Any, part: tuple[int, int], size: int = 4, **labels: Any) -> Plan:
    annotator = fake_annotator(**labels)
    splits = data if isinstance(data, dict) else {"train": data}
    layouts = {n: find_layout(of.column_names, annotator.config) for n, of in splits.items()}
    return make_plan(annotator.scorer, splits, layouts, size, Part(*part))


def uneven(count: int = 200) -> datasets.Dataset:
    """Return pairs that get longer, and from some row on are of other signs."""
    texts = [f"{'naïve 你好 ' if n > 150 else 'lazy '}" * (1 + n // 10) for n in range(count)]
    return datasets.Dataset.from_list(
        [{"prompt": f"Question {n}?", "chosen": t, "rejected": "no"} for n, t in enumerate(texts)]
    )


def counted(data: datasets.Dataset) -> list[int]:
    """Return the tokens of rows of both sides, by the tokenizer and nothing of ours."""
    tokenizer = tiny.tokenizer("gpt2_bos")
    numbers = []
    for row in data:
        user = [{"role": "user", "content": row["prompt"]}]
        prompt = tokenizer.apply_chat_template(user, add_generation_prompt=True, tokenize=False)
        ends = [f"{row[name]}<|im_end|>" for name in ("chosen", "rejected")]
        texts = [prompt, *ends]
        tokens = sum(len(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts)
        numbers.append(2 * tokens)
    return numbers


def test_each_shard_has_its_share_of_the_tokens_to_half_of_what_is_scored_together() -> None:
    data = uneven()
    tokens = counted(data)
    units = [sum(tokens[start : start + 4]) for start in range(0, 200, 4)]
    found = [plan(data, (number, 7)) for number in range(1, 8)]
    bounds = [p.rows["train"] for p in found]
    assert bounds[0].start == 0 and bounds[-1].stop == 200
    assert all(one.stop == other.start for one, other in itertools.pairwise(bounds))
    for p in found:
        assert p.tokens == (sum(tokens[p.rows["train"].start : p.rows["train"].stop]), sum(tokens))
        assert p.counted_rows == 200
        assert abs(p.tokens[0] - sum(tokens) / 7) <= max(units)
    assert len({len(rows) for rows in bounds}) > 2  # not as many rows each


def test_of_much_data_the_tokens_of_some_rows_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    data = uneven(400)
    tokens = np.array(counted(data))
    asked: list[int] = []
    read = DrSoW.read_unrouted

    def count(self: DrSoW, prompts: Any, responses: Any) -> Any:
        asked.append(len(responses))
        return read(self, prompts, responses)

    monkeypatch.setattr(DrSoW, "read_unrouted", count)
    monkeypatch.setattr(plans, "COUNTED", 100)
    monkeypatch.setattr(plans, "_NEAR", 20)
    shares = []
    for number in range(1, 6):
        asked.clear()
        made = plan(data, (number, 5), size=6)
        assert sum(asked) == 2 * 100 == 2 * made.counted_rows
        rows = made.rows["train"]
        shares.append(tokens[rows.start : rows.stop].sum() / tokens.sum())
    assert sum(shares) == pytest.approx(1)
    assert shares == pytest.approx([0.2] * 5, abs=0.02)


def test_the_last_rows_are_estimated_by_those_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "COUNTED", 10)
    monkeypatch.setattr(plans, "_NEAR", 1)
    data = datasets.Dataset.from_list(pairs(1)).select([0] * 95)
    tokens = counted(data)
    first = plan(data, (1, 2), size=5)
    assert first.tokens[1] == pytest.approx(sum(tokens), rel=0.02)
    assert first.rows["train"].stop in (45, 50)


def test_a_prompt_counts_once_and_what_cannot_be_scored_not_at_all() -> None:
    scorer = fake_annotator(overflow="skip").scorer
    data = datasets.Dataset.from_list([*pairs(1), {**pairs(1)[0], "chosen": "lazy " * 600}])
    items = list(_items(data))
    (first, second), (one,) = scorer.tokens(items), counted(data.select([0]))
    assert first == one
    alone = scorer.tokens(_items(data.select([0]).map(lambda _: {"chosen": None})))
    assert alone == [0] and 0 < second < first


def _items(data: datasets.Dataset) -> Any:
    from drsow_plugin.annotate.items import read_rows

    return read_rows(data[:], find_layout(data.column_names, fake_annotator().config))


def test_rows_without_a_token_are_shared_out_by_number() -> None:
    data = datasets.Dataset.from_list([{**row, "chosen": None} for row in pairs(16)])
    assert [plan(data, (n, 2)).rows["train"] for n in (1, 2)] == [range(8), range(8, 16)]


def test_splits_are_cut_as_one() -> None:
    data = datasets.Dataset.from_list(candidates(16))
    splits = {"a": data, "b": data.select(range(4))}
    found = [plan(splits, (n, 2)) for n in (1, 2)]
    assert [p.rows["b"] for p in found] == [range(0), range(4)]
    assert found[0].rows["a"].stop == found[1].rows["a"].start in (8, 12)
    assert found[0].all_rows == {"a": 16, "b": 4}


def test_a_plan_follows_from_the_rows_and_not_from_how_they_lie_in_memory(tmp_path: Path) -> None:
    rows = [{**row, "n": None if row["id"] % 3 else 1.5, "l": [row["id"]]} for row in pairs(20)]
    whole = datasets.Dataset.from_list(rows)
    halves = [whole.select(range(7)), whole.select(range(7, 20))]
    turned = whole.select(range(19, -1, -1)).select(range(19, -1, -1))
    whole.to_parquet(tmp_path / "rows.parquet")
    loaded = datasets.Dataset.from_parquet(str(tmp_path / "rows.parquet"))
    expected = plan(whole, (2, 3))
    for other in (datasets.concatenate_datasets(halves), turned, loaded):
        assert plan(other, (2, 3)) == expected


VALUES = [
    *([1, None, 3], [1, 3, None], [1, 2, 3], [1.0, 2.0, 3.0], ["1", "2", "3"], [True, False, None]),
    *(["a", "bc"], ["ab", "c"], ["", None], [None, ""], [b"a", b"bc"]),
    *([[1], [2, 3]], [[1, 2], [3]], [[], None], [None, []], [["a"], ["b"]]),
    *([{"x": 1, "y": "a"}], [{"x": 1, "y": None}], [None], [{"x": 1}], [{"z": 1}]),
    *([[{"role": "user", "content": "a"}]], [[{"role": "user", "content": "b"}]]),
]


def content(table: pa.Table) -> str:
    digest = ContentHash()
    digest.add(table)
    return digest.hexdigest()


def test_any_other_value_gives_another_hash() -> None:
    tables = [pa.table({"c": values}) for values in VALUES]
    tables += [pa.table({"d": VALUES[0]}), pa.table({"c": pa.array(VALUES[0], pa.int32())})]
    assert len({content(table) for table in tables}) == len(tables)


@pytest.mark.parametrize("values", VALUES, ids=range(len(VALUES)))
def test_a_part_of_others_has_the_hash_that_it_has_alone(values: list[Any]) -> None:
    kind = pa.array(values).type
    more = pa.chunked_array([[*values, *values, *values]], kind)
    part = pa.table({"c": more.slice(len(values), len(values))})
    chunks = pa.table({"c": pa.chunked_array([[value] for value in values], kind)})
    alone = content(pa.table({"c": pa.array(values, kind)}))
    assert content(part) == content(chunks) == alone
    dictionary = pa.types.is_string(kind) and pa.array(values).dictionary_encode()
    if dictionary:
        assert content(pa.table({"c": dictionary})) == alone
