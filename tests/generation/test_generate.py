"""drsow generate: candidates for each prompt, kept, repeatable, and refused where they mislead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from click.testing import CliRunner
from helpers import tiny

from drsow_plugin import Annotator, ConfigError, DataError, generate
from drsow_plugin.cli import main
from drsow_plugin.errors import Interrupted
from drsow_plugin.generation.policy import seed_of
from drsow_plugin.models.sampling import Sampled, WeightSampler

PROMPTS = [f"Tell me about {n}." for n in range(20)]
SAMPLED: dict[str, Any] = {"candidates": 2, "max_tokens": 6, "temperature": 1.0, "max_cut": 1}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.save(tmp_path_factory.mktemp("policy"), seed=3)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the seeds of the responses that were sampled; a first number stops after so many."""
    sample, seeds = WeightSampler.sample, list[int]()

    def counted(self: WeightSampler, prompts: Any, given: Any, sampling: Any) -> Any:
        seeds.extend(given)
        return sample(self, prompts, given, sampling)

    monkeypatch.setattr(WeightSampler, "sample", counted)
    return seeds


def rows(prompts: list[Any]) -> datasets.Dataset:
    return datasets.Dataset.from_list([{"prompt": p, "n": i} for i, p in enumerate(prompts)])


def test_each_prompt_gets_its_candidates(policy: str, tmp_path: Path) -> None:
    made, report = generate(rows(PROMPTS), policy, cache_dir=str(tmp_path), **SAMPLED)
    assert made.column_names[:2] == ["prompt", "n"] and made["n"] == [*range(20)]
    assert all(len(row["responses"]) == len(row["response_status"]) == 2 for row in made)
    assert made["problem"] == [None] * 20
    assert report.splits["train"].responses == 40
    assert report.splits["train"].tokens == sum(sum(tokens) for tokens in made["response_tokens"])
    for row in made:
        for tokens, status in zip(row["response_tokens"], row["response_status"], strict=True):
            assert (status == "cut") == (tokens == 6) or status == "duplicate"


def test_a_response_is_its_prompts_own(policy: str, tmp_path: Path) -> None:
    whole, _ = generate(rows(PROMPTS), policy, cache_dir=str(tmp_path / "a"), **SAMPLED)
    part = [PROMPTS[7], PROMPTS[2]]
    few, _ = generate(rows(part), policy, cache_dir=str(tmp_path / "b"), **SAMPLED)
    assert [*few["responses"]] == [whole["responses"][7], whole["responses"][2]]
    other, _ = generate(rows(part), policy, cache_dir=str(tmp_path / "b"), **SAMPLED, seed=1)
    assert [*other["responses"]] != [*few["responses"]]
    assert (
        len({seed_of(0, "p", 0), seed_of(0, "p", 1), seed_of(1, "p", 0), seed_of(0, "q", 0)}) == 4
    )


def test_an_interrupted_run_goes_on(
    policy: str, tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [f"Say {n}" for n in range(300)]
    options = {**SAMPLED, "candidates": 1, "max_tokens": 2, "cache_dir": str(tmp_path)}
    usual, calls = WeightSampler.sample, [0]

    def interrupted(self: WeightSampler, *args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 18:  # batches of 16: the second window of 256 has begun
            raise KeyboardInterrupt
        return usual(self, *args)

    monkeypatch.setattr(WeightSampler, "sample", interrupted)
    with pytest.raises(Interrupted, match="are kept; the same run goes on"):
        generate(rows(prompts), policy, **options)
    monkeypatch.setattr(WeightSampler, "sample", usual)
    before = len(asked)
    assert before == 272
    made, _ = generate(rows(prompts), policy, **options)
    assert len(asked) - before == 300 - before  # what was whole is kept
    again, report = generate(rows(prompts), policy, **options)
    assert len(asked) == 300 and [*again["responses"]] == [*made["responses"]]
    assert report.splits["train"].responses == 300
    for file in list(tmp_path.glob("responses/*/*.parquet"))[:1]:
        file.write_bytes(file.read_bytes()[:-40])
    mended, _ = generate(rows(prompts), policy, **options)
    assert len(asked) == 300 + 16 and [*mended["responses"]] == [*made["responses"]]


def test_a_prompt_that_cannot_be_answered_costs_one_row(policy: str, tmp_path: Path) -> None:
    data = rows([PROMPTS[0], None, "long " * 600, PROMPTS[1]])
    made, report = generate(data, policy, cache_dir=str(tmp_path), **SAMPLED)
    assert [len(responses) for responses in made["responses"]] == [2, 0, 0, 2]
    assert made["problem"][1].startswith("bad row: ")
    assert "too long" in made["problem"][2] and "lower max_tokens" in made["problem"][2]
    assert report.splits["train"].without == {"bad row": 1, "too long": 1}
    assert "2 prompts without responses (1 bad row, 1 too long)" in str(report)


def test_what_annotate_takes(policy: str, strong: str, weak: str, tmp_path: Path) -> None:
    made, _ = generate(
        rows([*PROMPTS[:3], None]), policy, cache_dir=str(tmp_path), **{**SAMPLED, "candidates": 3}
    )
    annotate = Annotator(strong, weak)
    labelled = annotate.run(made, cache_dir=str(tmp_path), keep_unusable=True)
    assert [len(rewards) for rewards in labelled["drsow_rewards"][:3]] == [3, 3, 3]
    assert labelled["drsow_margin"][3] is None


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (rows(["a", "b", "a", "a"]), {}, r"prompts repeat \(row 2 repeats row 0; row 3 repeats"),
        (rows(["a"]).rename_column("prompt", "text"), {}, "no column 'prompt', only text, n"),
        (rows(["a"]).add_column("problem", ["x"]), {}, "has the column 'problem' already"),
        (rows(["a"]), {"tempersture": 1}, "tempersture"),
        (rows(["a"]), {"server_model": "x"}, "server_model has no effect without"),
        (rows(["a"]), {"server": "http://127.0.0.1:9/v1", "template": "none"}, "template has no"),
        (rows(["a"]), {"server": "http://127.0.0.1:9/v1", "engine": "vllm"}, "engine has no eff"),
        (rows(["a"]), {"engine": "vllm", "adapter": "x", "batch_size": 2}, "adapter, batch_size"),
        (rows(["a"]), {"engine": "hf"}, "engine.*transformers, vllm"),
        (rows(["a"]), {"engine": "vllm"}, "vLLM, which is not installed here: pip install vllm"),
    ],
    ids=[
        *("repeats", "column", "taken", "name", "idle", "served"),
        *("engine of a server", "idle with vLLM", "no engine", "no vLLM"),
    ],
)
def test_what_is_refused_before_any_work(
    policy: str,
    data: datasets.Dataset,
    options: dict[str, Any],
    message: str,
    asked: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("drsow_plugin.generation.vllm.find_spec", lambda _name: None)
    with pytest.raises((ConfigError, DataError), match=message):
        generate(data, policy, **options)
    assert not asked


def test_a_policy_that_does_not_stop(
    policy: str, tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**SAMPLED, "max_tokens": 1, "cache_dir": str(tmp_path), "max_cut": 0.9}
    with pytest.raises(ConfigError, match=r"does not stop: \d+ of 80 responses reached max_tok"):
        generate(rows([f"Say {n}" for n in range(40)]), policy, **options)
    made, _ = generate(rows(PROMPTS[:2]), policy, **{**options, "max_cut": 1})
    assert made["response_status"][0][0] == "cut"
    asked.clear()
    monkeypatch.setattr(WeightSampler, "_ended", lambda _self, ids: Sampled(ids, False))
    with pytest.raises(ConfigError, match=r"does not stop: 32 of 32"):
        generate(rows([f"Now say {n}" for n in range(300)]), policy, **options)
    assert len(asked) <= 256  # of 600


def test_the_command_and_its_files(policy: str, tmp_path: Path) -> None:
    source, output = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in PROMPTS[:3]))
    words = [
        *("generate", str(source), str(output), "--policy", policy, "--candidates", "2"),
        *("--max-tokens", "4", "--max-cut", "1", "--cache-dir", str(tmp_path / "cache")),
    ]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert "6 responses to 3 prompts" in result.output
    made = [json.loads(line) for line in output.read_text().splitlines()]
    assert [len(row["responses"]) for row in made] == [2, 2, 2]
    report = json.loads((tmp_path / "out.jsonl.report.json").read_text())
    assert report["sampling"]["temperature"] == 0.7 and report["splits"]["train"]["responses"] == 6
    again = CliRunner().invoke(main, words)
    assert again.exit_code == 0 and "Wrote" in again.output
    shown = CliRunner().invoke(main, ["cache", "--cache-dir", str(tmp_path / "cache")])
    assert f"responses of {policy}, candidates=2" in shown.output
    missing = CliRunner().invoke(main, words[:3])
    assert missing.exit_code == 1 and "No policy was given" in missing.output
