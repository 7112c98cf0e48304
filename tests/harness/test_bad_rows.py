"""Rows of published benchmarks that miss a field, or have something else in it: one error each."""

from __future__ import annotations

from typing import Any

import datasets
import pytest
import yaml
from helpers.benchmark_rows import BENCHMARKS
from helpers.tasks import task_files

from drsow_plugin.errors import DataError
from drsow_plugin.harness.benchmarks import loading, module_of

IDS = {"id", "pair_id", "question_id", "pair_uid", "bon_uid"}
FILES = [name for name, (_, rows) in BENCHMARKS.items() if rows]
FINE = {("preference", "prompt", "missing")}  # prompts may be what both responses begin with
BAD: dict[str, Any] = {"null": None, "number": 7, "list": [1], "mapping": {"a": 1}}


def load(name: str, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Load rows as the first task of a benchmark does from a file."""
    tasks, _ = BENCHMARKS[name]
    file = next(file for file in task_files() if file.stem == tasks[0])
    told = yaml.load(file.read_text(), yaml.BaseLoader).get("dataset_kwargs") or {}
    data = datasets.Dataset.from_list(rows)
    monkeypatch.setattr(loading, "load_data", lambda *_, **__: data)
    module_of(tasks[0]).load(data="FILE", **told)


@pytest.mark.parametrize("name", FILES)
def test_a_field_that_is_missing_or_of_another_kind_is_one_error(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, rows = BENCHMARKS[name]
    load(name, rows, monkeypatch)
    for field in [field for field in rows[0] if field not in IDS]:
        without = [{k: v for k, v in row.items() if k != field} for row in rows]
        wrong = {kind: [{**row, field: value} for row in rows] for kind, value in BAD.items()}
        for kind, changed in {"missing": without, **wrong}.items():
            if (name, field, kind) in FINE:
                continue
            with pytest.raises(DataError) as caught:
                load(name, changed, monkeypatch)
            said = str(caught.value)
            assert said.startswith(("FILE", "The task")), (name, field, kind, said)
            assert "\n" not in said


@pytest.mark.parametrize("name", ["rewardbench", "rewardbench2", "rm_bench", "m_rewardbench"])
def test_the_file_of_another_benchmark_is_one_error(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in FILES:
        if other != name:
            with pytest.raises(DataError, match=r"^FILE"):
                load(name, BENCHMARKS[other][1], monkeypatch)


def test_marks_of_kinds_in_a_table_of_texts_are_read_as_what_they_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, rows = BENCHMARKS["ppe"]
    texts = [{key: str(value) for key, value in row.items()} for row in rows]
    texts[0]["is_code"] = "False"
    data = datasets.Dataset.from_list(texts)
    monkeypatch.setattr(loading, "load_data", lambda *_, **__: data)
    (row,) = module_of("ppe_preference").load(data="FILE")["test"]
    assert "is_code" not in row["subset"] and "hard_prompt" in row["subset"]
