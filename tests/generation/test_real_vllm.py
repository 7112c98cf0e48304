"""A policy sampled with vLLM, as it is, with the demo model: `make test-servers`."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from helpers.real_servers import FOLDER, VENV

from drsow_plugin import LanguageModel, generate
from drsow_plugin.generation.policy import Ask
from drsow_plugin.generation.texts import prompt_ids
from drsow_plugin.models.weights import Weights

pytestmark = [pytest.mark.servers, pytest.mark.slow]

# What vLLM's environment lacks is found in this one, which comes last. The weights are loaded once
# for all calls; the last call ends what computed with them.
_THERE = """
import json, site, sys
site.addsitedir(sys.argv[1])
import datasets, drsow_plugin, psutil
from drsow_plugin.generation.vllm import VllmPolicy
load, close, held = VllmPolicy._load, VllmPolicy.close, []
def once(policy):
    held.extend([] if held else [load(policy)])
    return held[0]
VllmPolicy._load, VllmPolicy.close = once, lambda policy: None
calls = json.load(sys.stdin)
for number, (prompts, options) in enumerate(calls, 1):
    if number == len(calls):
        VllmPolicy.close = close
    data = datasets.Dataset.from_list([{"prompt": prompt} for prompt in prompts])
    made, report = drsow_plugin.generate(data, sys.argv[2], engine="vllm", **options)
    rows = {name: list(made[name]) for name in made.column_names}
    titles = []
    for child in psutil.Process().children(recursive=True):
        if child.status() != psutil.STATUS_ZOMBIE:
            titles += child.cmdline()[:1]
    said = {"rows": rows, "policy": report.policy, "at_work": [t for t in titles if "VLLM" in t]}
    print("\\n" + json.dumps(said), file=sys.stderr)
"""
_SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stdout",
}

PROMPTS = [
    "Name a colour.",
    "The capital of France?",
    "Count to three.",
    "Say hello in Spanish.",
    "Why is the sky blue?",
    "What is two and two?",
    "Long " * 9000,
]
ONE = PROMPTS[0]
GREEDY: dict[str, Any] = {"candidates": 1, "temperature": 0, "max_tokens": 32, "max_cut": 1}
SAMPLED: dict[str, Any] = {"candidates": 3, "temperature": 1.0, "max_tokens": 16, "max_cut": 1}
FIRST: dict[str, Any] = {
    **{"candidates": 300, "temperature": 0.8, "top_k": 5, "top_p": 1.0},
    **{"max_tokens": 1, "max_cut": 1},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what vLLM made of several calls, each without finished work."""
    calls = [
        (PROMPTS, GREEDY),
        (PROMPTS[:6], SAMPLED),
        ([PROMPTS[4], PROMPTS[1]], SAMPLED),
        (PROMPTS[:2], {**SAMPLED, "seed": 1}),
        ([ONE], FIRST),
    ]
    folders = [str(tmp_path_factory.mktemp("cache")) for _ in calls]
    asked = [
        (prompts, {**options, "compile": "off", "cache_dir": folder})
        for (prompts, options), folder in zip(calls, folders, strict=True)
    ]
    words = [str(VENV / "bin" / "python"), "-c", _THERE, sysconfig.get_path("purelib"), str(FOLDER)]
    result = subprocess.run(
        words,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env={**os.environ, **_SETTINGS},
        cwd=VENV,
        timeout=1500,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    lines = [line for line in result.stderr.splitlines() if line.startswith('{"rows"')]
    return [json.loads(line) for line in lines]


def test_the_likeliest_tokens_are_those_that_transformers_takes(
    made: list[dict[str, Any]], tmp_path: Path
) -> None:
    data = datasets.Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS])
    here, report = generate(data, str(FOLDER), cache_dir=str(tmp_path), **GREEDY)
    rows = made[0]["rows"]
    assert rows["responses"] == [*here["responses"]]
    assert rows["response_tokens"] == [*here["response_tokens"]]
    assert rows["response_status"] == [*here["response_status"]]
    assert {*map(str, rows["response_status"])} == {"['ok']", "['cut']", "[]"}
    assert rows["problem"] == [*here["problem"]] and "too long" in rows["problem"][-1]
    fingerprint = report.policy["fingerprint"]
    assert made[0]["policy"] == {"engine": "vLLM 0.32.0", "fingerprint": fingerprint}


def test_vllms_processes_end_with_the_run(made: list[dict[str, Any]]) -> None:
    assert all(one["at_work"] for one in made[:-1]) and not made[-1]["at_work"]


def test_a_response_of_vllm_is_its_prompts_own(made: list[dict[str, Any]]) -> None:
    whole, few, other = (made[index]["rows"]["responses"] for index in (1, 2, 3))
    assert few == [whole[4], whole[1]]
    assert all(ours != theirs for ours, theirs in zip(whole, other, strict=False))
    assert all(len({*responses}) > 1 for responses in whole)


def test_tokens_are_drawn_as_likely_as_they_are(made: list[dict[str, Any]]) -> None:
    model = LanguageModel(str(FOLDER))
    ask = Ask([{"role": "user", "content": ONE}], 0, "row 0")
    (ids,) = prompt_ids(model, [ask], 1)
    weights = Weights("model", model.config, model.identity.source)
    with torch.inference_mode():
        logits = weights.model(torch.tensor([ids])).logits[0, -1].float()
    likeliest = logits.topk(FIRST["top_k"])
    expected = (likeliest.values / FIRST["temperature"]).softmax(0)
    texts = [model.tokenizer.decode([index]) for index in likeliest.indices.tolist()]
    drawn = made[4]["rows"]["responses"][0]
    assert {*drawn} <= {*texts}
    for text, probability in zip(texts, expected.tolist(), strict=True):
        # Five standard deviations: with five tokens by chance less than one time in 300,000.
        width = 5 * (probability * (1 - probability) / len(drawn)) ** 0.5
        assert drawn.count(text) / len(drawn) == pytest.approx(probability, abs=width)
