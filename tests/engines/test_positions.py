"""A guard: what goes through backbone and vocabulary projection stays at what is unavoidable.

Nothing is timed. Positions are counted on the real modules while the public entry scores the
workloads of the benchmark, and held against a count of distinct prefixes that shares no code
with the engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from helpers import tiny
from measure import Positions, causal_lms
from workloads import LLMBAR, Row, Unique, tokenised, unique, workload

from drsow_plugin import DrSoW
from drsow_plugin.engines.local.engine import LocalEngine
from drsow_plugin.records import TokenPair

pytestmark = pytest.mark.slow

MAX_BACKBONE, MAX_HEAD = 1.02, 1.00


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Models that read rows of any length, one of them without a chat template."""
    folders = {}
    for seed, side in enumerate(("strong", "weak")):
        folder = tmp_path_factory.mktemp(side)
        tiny.save(folder, seed=seed)
        config = json.loads((folder / "config.json").read_text())
        config["max_position_embeddings"] = 8192
        (folder / "config.json").write_text(json.dumps(config))
        folders[side] = str(folder)
    return {**folders, "weak_template": "none"}


@contextmanager
def counted(drsow: DrSoW) -> Iterator[Positions]:
    drsow.score(["Load."], ["Now."])
    positions = Positions()
    with positions.counting(causal_lms()):
        yield positions


def needed(drsow: DrSoW, rows: list[Row]) -> Unique:
    """Count, for both sides, what no causal model can do without."""
    strong, weak = (unique(tokenised(rows, side.tokenize)) for side in drsow.models.values())
    return strong + weak


@pytest.mark.parametrize("name", ["w1", "w2", "w3", "bestof16"])
def test_each_token_is_computed_once(pair: dict[str, str], name: str) -> None:
    drsow, rows = DrSoW(**pair), workload(name, 24)
    with counted(drsow) as positions:
        drsow.score([messages for messages, _ in rows], [text for _, text in rows])
    minimum = needed(drsow, rows)
    assert minimum.backbone <= positions.backbone <= MAX_BACKBONE * minimum.backbone
    assert minimum.head <= positions.head <= MAX_HEAD * minimum.head


def test_best_of_n_costs_what_the_responses_cost(pair: dict[str, str]) -> None:
    drsow, counts = DrSoW(**pair), {}
    for number in (2, 16):
        rows = workload(f"bestof{number}", 24)
        with counted(drsow) as positions:
            drsow.score([messages for messages, _ in rows], [text for _, text in rows])
        counts[number] = positions.backbone, positions.head
    more_backbone, more_head = (b - a for a, b in zip(counts[2], counts[16], strict=True))
    assert more_backbone <= more_head  # no prompt was read again


def test_the_same_is_true_of_map(pair: dict[str, str]) -> None:
    import datasets

    from drsow_plugin import Annotator

    rows = workload("w2", 24)
    data = datasets.Dataset.from_list(
        [
            {"prompt": p, "chosen": c, "rejected": r}
            for (p, c), (_, r) in zip(rows[::2], rows[1::2], strict=True)
        ]
    )
    annotate = Annotator(**pair)
    data.select([0]).map(annotate, batched=True)
    positions = Positions()
    with positions.counting(causal_lms()):
        data.map(annotate, batched=True)
    minimum = needed(DrSoW(**pair), rows)
    assert positions.backbone <= MAX_BACKBONE * minimum.backbone
    assert positions.head <= MAX_HEAD * minimum.head


def test_the_same_is_true_of_lm_eval(pair: dict[str, str]) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from drsow_plugin import DrSoWLM, tasks_path

    rows = [json.loads(line) for line in LLMBAR.read_text(encoding="utf-8").splitlines()]
    subset = [row for row in rows if row["subset"] == "llmbar-natural"][:12]
    expected = [
        ([{"role": "user", "content": row["prompt"]}], row[side])
        for row in subset
        for side in ("chosen", "rejected")
    ]
    manager = TaskManager(include_path=tasks_path(), include_defaults=False)
    lm, positions = DrSoWLM(**pair), Positions()
    lm.drsow.score(["Load."], ["Now."])
    with positions.counting(causal_lms()):
        simple_evaluate(
            model=lm, tasks=["llmbar_natural"], task_manager=manager, limit=12, bootstrap_iters=0
        )
    minimum = needed(DrSoW(**pair), expected)
    assert minimum.backbone <= positions.backbone <= MAX_BACKBONE * minimum.backbone
    assert minimum.head <= positions.head <= MAX_HEAD * minimum.head


def test_a_model_router_reads_its_own_prompt_once_a_call(
    pair: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Unique] = []
    own = LocalEngine.logprobs

    def noting(self: LocalEngine, pairs: list[TokenPair], *args: Any, **kwargs: Any) -> Any:
        calls.append(unique(pairs))
        return own(self, pairs, *args, **kwargs)

    drsow = DrSoW(**pair, router="model", router_model="strong")
    prompts = [f"What is {number} and {number}?" for number in range(8)]
    with counted(drsow) as positions:
        monkeypatch.setattr(LocalEngine, "logprobs", noting)
        drsow.score(prompts, ["It is."] * 8)
    assert len(calls) == 3  # names after prompts, then both sides
    minimum = sum(calls, Unique(0, 0, 0))
    assert minimum.backbone <= positions.backbone <= MAX_BACKBONE * minimum.backbone
    assert minimum.head <= positions.head <= MAX_HEAD * minimum.head
