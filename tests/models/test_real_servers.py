"""vLLM and llama.cpp, as they are, with the demo model: `make test-servers`."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import drsow
from helpers.harness import request
from helpers.pages import Reader, blocks
from helpers.real_servers import FOLDER, PAGE, ROOT, Server, llama_cpp, vllm

from drsow_plugin import ConfigError, DrSoW, LanguageModel, Problem
from drsow_plugin.harness.model import DrSoWLM
from drsow_plugin.models.demo import demo_model
from drsow_plugin.models.row import ModelRow
from drsow_plugin.records import TokenPair

pytestmark = [pytest.mark.servers, pytest.mark.slow]

NATS = 1e-3
LONG = "All work and no play makes Jack a dull boy. " * 300


def rows() -> tuple[list[Any], list[str]]:
    """Return rows of LLMBar and some that are unusual."""
    read = map(json.loads, (ROOT / "tasks" / "llmbar.jsonl").read_text().splitlines())
    short = [row for row in read if len(row["prompt"] + row["chosen"] + row["rejected"]) < 500]
    pairs = [(row["prompt"], row[side]) for row in short[:24] for side in ("chosen", "rejected")]
    turns = [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": "The capital of France?"},
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "And of Italy?"},
    ]
    pairs += [(turns, "Rome."), (turns, "  Rome"), (turns[1:], "\n\nRome.\n"), (turns[1:], "")]
    texts = [
        "  Muy bien",
        "\tpass\n",
        "Ça va, naïve façade.",
        "Привет, мир. 你好。",
        "🙂🙃 <|im_end|>",
    ]
    pairs += [("Say something.", text) for text in texts]
    pairs += [(LONG, "Yes."), ("Say it.", LONG)]
    prompts, responses = zip(*pairs, strict=True)
    return list(prompts), list(responses)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with vllm() as started:
        yield started


@pytest.mark.parametrize("template", ["tokenizer", "none"])
def test_vllm_gives_the_log_probs_that_the_weights_give_here(server: Server, template: str) -> None:
    prompts, responses = rows()
    options: dict[str, Any] = {"template": template, "overflow": "skip", "max_length": 2047}
    there = LanguageModel(str(FOLDER), server=server.url, server_model="demo", **options)
    here = LanguageModel(str(FOLDER), **options)
    assert there.device.startswith("vLLM 0.32.0 at ")
    found, expected = there.logprobs(prompts, responses), here.logprobs(prompts, responses)
    assert sum(logprob.problem is None for logprob in found) >= 50
    for mine, its in zip(found, expected, strict=True):
        assert mine.problem == its.problem and mine.num_tokens == its.num_tokens
        assert mine.total == pytest.approx(its.total, abs=NATS, nan_ok=True)
        assert mine.token_logprobs == pytest.approx(its.token_logprobs, abs=NATS)
    assert {str(mine.problem)[:8] for mine in found if mine.problem} == {"too long"}


def test_the_page_is_followed_word_by_word(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRSOW_CACHE", str(demo_model().parent))
    shown, printed = "", {}
    with Reader() as reader:
        for block in blocks(PAGE):
            text = block.text.replace("http://127.0.0.1:8000", server.url)
            if block.language == "text":
                assert block.text.strip() in printed[shown]
            elif block.language == "python" or text.startswith("drsow"):
                shown = block.text
                printed[shown] = reader.follow(type(block)(block.language, block.file, text))
    assert len(printed) == 2


def test_lm_eval_and_the_command_give_the_rewards_of_the_weights(server: Server) -> None:
    pair = "strong=demo,weak=demo,weak_template=none"
    requests = [
        request("loglikelihood", ("Name a prime.", text), "x") for text in ("Seven.", "A cat.")
    ]
    here = DrSoWLM.create_from_arg_string(pair).loglikelihood(requests)
    there = DrSoWLM.create_from_arg_string(f"{pair},server={server.url}").loglikelihood(requests)
    rows = "".join(
        json.dumps({"prompt": "Name a prime.", "response": text}) + "\n"
        for text in ("Seven.", "A cat.")
    )
    options = ["--strong", "demo", "--weak", "demo", "--weak-template", "none"]
    scored = drsow("score", *options, "--server", server.url, stdin=rows)
    assert scored.exit_code == 0, scored.output
    commanded = [json.loads(line)["reward"] for line in scored.stdout.splitlines()]
    assert [reward for reward, _ in there] == pytest.approx([r for r, _ in here], abs=2 * NATS)
    assert commanded == pytest.approx([r for r, _ in here], abs=2 * NATS)


def test_a_row_that_vllm_refuses_fails_alone(server: Server) -> None:
    model = LanguageModel(str(FOLDER), server=server.url, server_model="demo")
    pairs = [TokenPair((5, 6), (7, 8)), TokenPair((5, 6), (60_000,)), TokenPair((5, 6), (9,))]
    found = dict(model.engine.logprobs(pairs))
    assert isinstance(found[1], Problem) and "out of vocabulary" in found[1].detail
    assert not any(isinstance(found[index], Problem) for index in (0, 2))


def test_a_model_that_vllm_does_not_have_is_said(server: Server) -> None:
    with pytest.raises(ConfigError, match=r"serves 'demo', and model_server_model='gpt' is none"):
        LanguageModel(str(FOLDER), server=server.url, server_model="gpt")
    alias = server.url.replace("127.0.0.1", "localhost")
    with pytest.raises(ConfigError, match="are the same model"):
        DrSoW("demo", "demo", strong_server=server.url, weak_server=alias)


def test_vllm_is_killed_and_started_again_and_nothing_is_lost(server: Server) -> None:
    prompts, responses = rows()
    model = LanguageModel(
        str(FOLDER), server=server.url, server_model="demo", overflow="skip", batch_size=2
    )
    expected = model.logprobs(prompts, responses)
    pairs = [
        pair
        for pair in model.tokenize(_model_rows(prompts, responses))
        if isinstance(pair, TokenPair) and pair.problem is None
    ]
    found, restart = {}, threading.Thread(target=server.start)
    with closing(model.iter_logprobs(pairs)) as scored:
        for number, logprob in scored:
            found[number] = logprob.total
            if len(found) == 5:
                server.kill()
                restart.start()
    restart.join()
    whole = [logprob.total for logprob in expected if logprob.problem is None]
    assert [found[number] for number in range(len(pairs))] == pytest.approx(whole, abs=NATS)


def _model_rows(prompts: list[Any], responses: list[str]) -> list[Any]:
    both = zip(prompts, responses, strict=True)
    return [ModelRow.read(prompt, text, f"row {n}") for n, (prompt, text) in enumerate(both)]


def test_llama_cpps_server_is_refused() -> None:
    with (
        llama_cpp(demo_model()) as server,
        pytest.raises(ConfigError, match=r"\(llama\.cpp\) gives no .* give the \.gguf file itself"),
    ):
        LanguageModel("demo", server=server.url)
