"""Routing through lm-eval: options, known domains, counts and the response cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.fakes import fake_pair
from helpers.harness import run
from lm_eval import simple_evaluate
from lm_eval.api.model import CachingLM
from lm_eval.tasks import TaskManager

from drsow_plugin import ConfigError, DataError, DrSoW, DrSoWLM, tasks_path
from drsow_plugin.routing.domains import condition
from drsow_plugin.routing.plugins import Plugins


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": "Is it law?", "chosen": "Yes.", "rejected": "A dog.", "kind": "law"},
        {"prompt": "More law.", "chosen": "Some.", "rejected": "None.", "kind": "strong-only"},
        {"prompt": "Neither.", "chosen": "Well.", "rejected": "Ill.", "kind": ""},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def evaluate(strong: str, weak: str, file: Path, **options: Any) -> dict[str, Any]:
    arguments = ",".join(f"{k}={v}" for k, v in {"strong": strong, "weak": weak, **options}.items())
    metadata = {"data": str(file), "domain_column": "kind"}
    manager = TaskManager(include_path=tasks_path(), include_defaults=False, metadata=metadata)
    results = simple_evaluate(
        model="drsow",
        model_args=arguments,
        tasks=["preference"],
        task_manager=manager,
        bootstrap_iters=10,
    )
    assert results is not None
    return results


def margins(results: dict[str, Any]) -> list[float]:
    return [sample["margin"] for sample in results["samples"]["preference"]]


def test_results_tell_of_each_domain(strong: str, weak: str, plugin: str, file: Path) -> None:
    results = evaluate(strong, weak, file, router="mine", plugin=plugin, domain_column="domain")
    domain = Plugins([plugin]).domains["law"].value
    pair = DrSoW(strong, weak)
    for index, text in enumerate(("Is it law?", "More law.")):
        prompt = condition([{"role": "user", "content": text}], domain)
        responses = [("Yes.", "A dog."), ("Some.", "None.")][index]
        chosen, rejected = pair.score([prompt] * 2, responses)
        margin = chosen.reward - rejected.reward  # type: ignore[operator]
        assert margins(results)[index] == pytest.approx(margin, abs=2e-5)
    drsow = json.loads(json.dumps(results["config"]["drsow"]))
    wins = [margin > 0 for margin in margins(results)]
    law, none = drsow["domains"]["domains"]["law"], drsow["domains"]["domains"]["(none)"]
    assert (law["prompts"], law["pairs"], none["prompts"], none["pairs"]) == (2, 2, 1, 1)
    assert law["acc"] == sum(wins[:2]) / 2 and none["acc"] == wins[2]
    assert drsow["domains"]["agreement"]["known"] == 2
    assert drsow["domains"]["agreement"]["share"] == 0.5
    assert drsow["routing"]["router"] == "mine"
    assert drsow["routing"]["plugin"]["sha256"]
    assert {d["name"] for d in drsow["routing"]["domains"]} >= {"law", "safety"}


def test_the_column_router_reads_the_documents(
    strong: str, weak: str, plugin: str, file: Path
) -> None:
    results = evaluate(strong, weak, file, router="column", plugin=plugin)
    found = results["config"]["drsow"]["domains"]
    assert set(found["domains"]) == {"law", "strong-only", "(none)"}
    assert found["agreement"] is None  # it would agree with itself
    with pytest.raises(DataError, match=r"'preference': the field 'sort' is to name a domain"):
        evaluate(strong, weak, file, router="column", domain_column="sort", plugin=plugin)


def test_the_word_none_reaches_domain_parts(
    strong: str, weak: str, plugin: str, file: Path
) -> None:
    results = evaluate(strong, weak, file, router="mine", plugin=plugin, domain_parts="none")
    assert margins(results) == pytest.approx(margins(evaluate(strong, weak, file)), abs=1e-6)
    assert results["config"]["drsow"]["domains"]["domains"]["law"]["pairs"] == 2


def test_our_tasks_say_which_domain_their_prompts_belong_to() -> None:
    lm = DrSoWLM(**fake_pair(router="keyword", overflow="skip"))
    results = run(lm, ["llmbar_natural"], limit=8)
    agreement = results["config"]["drsow"]["domains"]["agreement"]
    assert agreement["known"] == 8 and 0.5 < agreement["share"] <= 1


def test_a_section_without_rows_counts_for_no_domain(tmp_path: Path) -> None:
    file = tmp_path / "part.jsonl"
    row = {"prompt": "Q?", "chosen": "A.", "rejected": "B.", "subset": "hep-go", "id": 1}
    file.write_text(json.dumps(row) + "\n")
    lm = DrSoWLM(**fake_pair(router="column", overflow="skip"))
    results = run(lm, ["rewardbench"], metadata={"data": str(file)})
    found = results["config"]["drsow"]["domains"]["domains"]
    assert {name: of["pairs"] for name, of in found.items()} == {"reasoning": 1}


def test_another_routing_has_a_table_of_its_own_in_a_cache(plugin: str, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache.db")
    routed = {"router": "mine", "plugin": plugin}
    first = CachingLM(DrSoWLM(**fake_pair(**routed)), cache).dbdict
    again = CachingLM(DrSoWLM(**fake_pair(**routed)), cache).dbdict
    other = CachingLM(DrSoWLM(**fake_pair()), cache).dbdict
    first["row"] = 1.0
    first.commit()
    assert (again.get("row"), other.get("row")) == (1.0, None)
    for table in (first, again, other):
        table.close()


def test_a_cache_is_refused_where_a_field_of_the_data_decides(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="router=column goes by a field"):
        CachingLM(DrSoWLM(**fake_pair(router="column")), str(tmp_path / "other.db"))
