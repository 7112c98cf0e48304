"""Every task with a pair of models, with one model's likelihoods and with a trained reward model.

What each gives a response is what it gives outside of lm-eval, or plain transformers says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import transformers as tf
import yaml
from helpers import rewarding, tiny
from helpers.benchmark_rows import BENCHMARKS, write
from helpers.harness import NEXT, run
from helpers.tasks import task_files
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM

from drsow_plugin import DrSoWLM, RewardModelLM
from drsow_plugin.harness.documents import responses_of

LONG = {"max_position_embeddings": 4096}  # LLMBar's rows, of a token a byte


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "strong": language_model(folder / "strong", seed=1),
        "weak": language_model(folder / "weak", seed=2),
        "trained": rewarding.save(folder / "trained", "qwen3", pad_token_id=0, **LONG),
    }


def language_model(folder: Path, seed: int) -> str:
    tiny.from_config(tf.LlamaConfig(**{**tiny._SIZES, **LONG}), seed).save_pretrained(folder)
    tiny.tokenizer("bytes").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def models(folders: dict[str, str]) -> Mapping[str, LM]:
    strong, weak, trained = folders.values()
    return {
        "drsow": DrSoWLM(strong=strong, weak=weak, max_length=4096),
        "hf": HFLM(pretrained=strong, device="cpu", dtype="float32"),
        "reward": RewardModelLM(pretrained=trained),
    }


def test_the_table_has_every_task() -> None:
    files = {file: yaml.load(file.read_text(), yaml.BaseLoader) for file in task_files()}
    leaves = {task["task"] for task in files.values() if isinstance(task.get("task"), str)}
    assert leaves == {task for tasks, _ in BENCHMARKS.values() for task in tasks}


@pytest.mark.parametrize("model", ["drsow", "hf", "reward"])
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_task_runs_with_every_kind_of_model(
    tmp_path: Path,
    models: Mapping[str, LM],
    folders: dict[str, str],
    benchmark: str,
    model: str,
) -> None:
    tasks, metadata = write(benchmark, tmp_path)
    limit = 3 if metadata else 1  # LLMBar, which comes with the package, has many
    lm = models[model]
    results = run(lm, [*tasks], metadata=metadata, log_samples=True, limit=limit)
    rows, got = [], []
    for task in tasks:
        for sample in results["samples"][task]:
            if sample["doc"].get("subset") == "(no rows)":
                continue
            rows += [(sample["doc"]["prompt"], text) for text in responses_of(sample["doc"])]
            got += [(resp[0] if NEXT else resp)[0] for resp in sample["filtered_resps"]]
        scores = results["results"][task]
        main = scores.get("acc,none", scores.get("score,none"))
        assert main is not None and not (isinstance(main, float) and math.isnan(main))
    assert len(got) == len(rows) >= 2 and len({*got}) > 1
    assert all(map(math.isfinite, got))
    if isinstance(lm, DrSoWLM):
        rewards = lm.drsow.score([row[0] for row in rows], [row[1] for row in rows])
        assert got == pytest.approx([reward.reward for reward in rewards], abs=1e-4)
    elif isinstance(lm, RewardModelLM):
        assert got == pytest.approx(rewarding.plain(folders["trained"], rows), abs=2e-5)
        described = results["config"]["reward_model"]
        assert described["responses_scored"] > 0 and described["source"] == folders["trained"]
    else:
        assert max(got) < 0
