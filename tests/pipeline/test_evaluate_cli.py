"""drsow evaluate as a user types it: what it writes, and wrong input that is told at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import rewarding, tiny
from helpers.commands import drsow, write, wrong

from drsow_plugin import ConfigError
from drsow_plugin.pipeline import measuring
from drsow_plugin.pipeline.evaluation import Evaluation, parse_evaluation

ROW = {
    "prompt": "What is the capital of France?",
    "responses": ["Paris.", "A dog"],
    "response_tokens": [3, 2],
    "response_status": ["ok", "cut"],
    "problem": None,
}
MODELS = ("--policy", "nowhere/policy", "--start", "nowhere/start")


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    return write(tmp_path / "answers.jsonl", [ROW])


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be measured: what is wrong is seen before."""

    def measure(*_: Any) -> Any:
        raise AssertionError("something is measured")

    monkeypatch.setattr(measuring, "evaluate", measure)


def test_the_command_writes_what_reads_back(
    answers: Path, preference_file: Path, tmp_path: Path
) -> None:
    policy, start = (tiny.save(tmp_path / f"model{seed}", seed=seed) for seed in (3, 4))
    judge = rewarding.save(tmp_path / "judge")
    output, file = tmp_path / "measured.json", tmp_path / "options.yaml"
    file.write_text(f"judge: {judge}\npolicy: nowhere/model\ncache_dir: {tmp_path / 'cache'}\n")
    words = ["evaluate", answers, output, "--config", file, "--policy", policy, "--start", start]
    made = drsow(*words, "--pairs", preference_file, "--limit", 2)
    assert made.exit_code == 0, made.output
    assert made.stdout.splitlines() == ["2 answers, 2 pairs", f"Wrote {output}"]
    found = Evaluation.read(output)
    assert found.options == {"judge": judge, "policy": policy, "start": start}
    assert [(answer.tokens, answer.cut) for answer in found.answers] == [(3, False), (2, True)]
    assert all(answer.judge is not None and answer.reward is None for answer in found.answers)
    assert len(found.pairs) == 2 and (tmp_path / "cache").is_dir()


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "There is nothing to measure with: name a judge, a pair, or a policy"),
        (["--prompt-column", "prompt"], "There is nothing to measure with"),
        (MODELS[:2], "policy and start go together"),
        (MODELS[2:], "policy and start go together"),
        (["--policy-dtype", "float32"], "policy and start go together"),
        (["--strong", "nowhere/strong"], "weak"),
        (["--judge-dtype", "float32"], "judge_dtype has no effect without judge"),
        (["--judge", "j", "--judge-dtype", "float3"], "dtype 'float3'. Did you mean 'float32'"),
        (["--judge", "j", "--judge-template", "none"], "template=none"),
        ([*MODELS, "--policy-dtype", "float3"], "policy_dtype 'float3'"),
        (["--policy", "m", "--start", "m"], "policy and start are the same model"),
        (["--judge", "j", "--limit", "3"], "limit has no effect without pairs"),
        (["--judge", "j", "--data-split", "test"], "data_split has no effect without pairs"),
        (["--strong", "a", "--weak", "b", "--pairs", "p.jsonl"], "or by a judge: name one"),
        ([*MODELS, "--limit", "0", "--pairs", "p.jsonl"], "limit is a whole number of at least 1"),
        ([*MODELS, "--pairs", "none.jsonl"], "none.jsonl"),
    ],
)
def test_options_that_make_no_sense(answers: Path, words: list[str], message: str) -> None:
    assert message in wrong("evaluate", answers, answers.with_name("out.json"), *words)


@pytest.mark.usefixtures("idle")
def test_an_output_that_cannot_be_is_told_before_any_work(answers: Path, tmp_path: Path) -> None:
    judge = ("--judge", "nowhere/judge")
    asked = "Give ANSWERS and OUTPUT, a .json file"
    assert asked in wrong("evaluate", answers, tmp_path / "out.txt", *judge)
    assert asked in wrong("evaluate", answers, *judge)
    assert asked in wrong("evaluate", tmp_path / "out.json", *judge)
    for output in (tmp_path / "none" / "out.json", tmp_path / "answers.jsonl" / "out.json"):
        assert "out.json" in wrong("evaluate", answers, output, *judge)
    (tmp_path / "folder.json").mkdir()
    assert "folder.json" in wrong("evaluate", answers, tmp_path / "folder.json", *judge)


def test_answers_that_are_none(answers: Path, tmp_path: Path) -> None:
    judge, output = ("--judge", "nowhere/judge"), tmp_path / "out.json"
    plain = write(tmp_path / "prompts.jsonl", [{"prompt": "a", "text": "b"}])
    said = wrong("evaluate", plain, output, *judge)
    assert "There is no column 'responses', only prompt, text. Give what drsow generate" in said
    assert "no such file" in wrong("evaluate", tmp_path / "none.jsonl", output, *judge)
    said = wrong("evaluate", answers, output, *judge, "--prompt-column", "question")
    assert "There is no column 'question'" in said
    assert not output.exists()


def test_an_option_that_there_is_not(answers: Path, tmp_path: Path) -> None:
    made = drsow("evaluate", answers, tmp_path / "out.json", "--polcy", "m")
    assert made.exit_code == 2 and "--policy" in made.stderr
    file = tmp_path / "options.yaml"
    file.write_text("polcy: m\n")
    said = wrong("evaluate", answers, tmp_path / "out.json", "--config", file)
    assert "'polcy'" in said and "'policy'" in said
    with pytest.raises(ConfigError, match=r"'polcy'.*'policy'"):
        parse_evaluation({"polcy": "m"})


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("model", ["policy", "start", "judge"])
@pytest.mark.parametrize("name", ["trust_remote_code", "allow_pickle"])
def test_a_file_runs_no_code_unasked(answers: Path, tmp_path: Path, model: str, name: str) -> None:
    file = tmp_path / "options.yaml"
    models = {"judge": "nowhere/judge", "policy": "nowhere/policy", "start": "nowhere/start"}
    file.write_text(json.dumps({**models, f"{model}_{name}": True}))
    said = wrong("evaluate", answers, tmp_path / "out.json", "--config", file)
    assert "would run code" in said and f"nowhere/{model}" in said and "--allow-code" in said


def test_each_model_has_its_own_options() -> None:
    options = {"policy_adapter": "mine", "start_revision": "v1", "policy_dtype": "bfloat16"}
    shared = {"strong": "s", "weak": "w", "dtype": "float64", "batch_size": "3"}
    setup = parse_evaluation({"policy": "p", "start": "p", **options, **shared, "judge": "j"})
    assert setup.tuned is not None and setup.pair is not None
    assert (setup.pair.strong.dtype, setup.pair.weak.dtype) == ("float64", "float64")
    assert setup.judge == {"pretrained": "j", "overflow": "skip"}
    assert [model.source for model in setup.tuned] == ["p", "p"]
    assert [model.adapter for model in setup.tuned] == ["mine", None]
    assert [model.revision for model in setup.tuned] == [None, "v1"]
    assert [model.dtype for model in setup.tuned] == ["bfloat16", None]


@pytest.mark.parametrize("name", ["judge_pretrained", "judge_model"])
def test_a_judge_is_named_once(name: str) -> None:
    with pytest.raises(ConfigError):
        parse_evaluation({"judge": "mine", name: "another"})


@pytest.mark.parametrize("date", ["2024-01-02", "'2024-01-02'"], ids=["date", "text"])
def test_a_date_of_a_file_is_written_down(date: str, answers: Path, tmp_path: Path) -> None:
    """YAML reads an unquoted date as no text, which JSON has no word for."""
    strong, weak = (tiny.save(tmp_path / f"model{seed}", seed=seed) for seed in (1, 2))
    file, output = tmp_path / "options.yaml", tmp_path / "out.json"
    file.write_text(f"strong: {strong}\nweak: {weak}\ntemplate_date: {date}\n")
    made = drsow("evaluate", answers, output, "--config", file)
    assert made.exit_code == 0, made.output
    assert Evaluation.read(output).options["template_date"] == "2024-01-02"
