"""A trained reward model as a model of lm-eval: its command, its cache, missing rewards."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers import rewarding
from helpers.harness import metadata_argument, request, run
from lm_eval.api.model import CachingLM
from lm_eval.api.registry import get_model

from drsow_plugin import ConfigError, RewardModelLM
from drsow_plugin.cli import main
from drsow_plugin.errors import OverflowLengthError


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    return rewarding.save(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    return rewarding.save(tmp_path_factory.mktemp("other"), "qwen3")


@pytest.mark.usefixtures("own_tasks")
def test_the_command_runs_it_by_name_and_names_the_results_after_it(
    tmp_path: Path, trained: str, preference_file: Path
) -> None:
    assert get_model("reward") is RewardModelLM
    result = CliRunner().invoke(
        main,
        [
            *("eval", "--model", "reward", "--model_args", f"pretrained={trained},dtype=float64"),
            *("--tasks", "preference", "--metadata", metadata_argument(preference_file)),
            *("--output_path", str(tmp_path / "out"), "--log_samples"),
        ],
    )
    assert result.exit_code == 0, result.output
    (file,) = (tmp_path / "out").rglob("results_*.json")
    assert Path(trained).name in file.parent.name
    described = json.loads(file.read_text())["config"]["reward_model"]
    assert described["dtype"] == "float64" and described["max_length"] == 512
    assert {*described["sha256"]} >= {"model.safetensors", "config.json"}
    rows = [json.loads(line) for line in preference_file.read_text().splitlines()]
    chosen, rejected = (
        rewarding.plain(
            trained, [([{"role": "user", "content": r["prompt"]}], r[side]) for r in rows]
        )
        for side in ("chosen", "rejected")
    )
    (samples,) = (tmp_path / "out").rglob("samples_*.jsonl")
    margins = [json.loads(line)["margin"] for line in samples.read_text().splitlines()]
    expected = [a - b for a, b in zip(chosen, rejected, strict=True)]
    assert margins == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("given", "limit"), [({"batch_size": 1}, None), ({"batch_size": "8"}, 8), ({}, None)]
)
def test_batch_sizes_of_lm_eval(trained: str, given: dict[str, Any], limit: int | None) -> None:
    lm = RewardModelLM.create_from_arg_string(
        f"pretrained={trained},overflow=skip,add_special_tokens=False", {**given, "device": "cuda"}
    )
    assert lm.model.config.batch_size == limit
    assert not lm.model.config.add_special_tokens and lm.model.config.overflow == "skip"


def test_a_missing_reward_is_counted_and_refused_where_it_would_be_a_number(
    trained: str, preference_file: Path
) -> None:
    long = json.dumps({"prompt": "word " * 600, "chosen": "a", "rejected": "b"}) + "\n"
    preference_file.write_text(preference_file.read_text() + long)
    metadata = {"data": str(preference_file)}
    with pytest.raises(OverflowLengthError, match=r"row 6: .* more than max_length 512"):
        run(RewardModelLM(pretrained=trained), ["preference"], metadata=metadata)
    lm = RewardModelLM(pretrained=trained, overflow="skip")
    results = run(lm, ["preference"], metadata=metadata)
    assert results["results"]["preference"]["overflow,none"] == 1
    assert math.isfinite(results["results"]["preference"]["margin,none"])
    assert results["config"]["reward_model"]["responses_without_reward"] == 2
    with pytest.raises(ConfigError, match=r"'arc_easy' cannot take .*overflow=skip"):
        lm.loglikelihood([request("loglikelihood", ("Q?", " yes"), "arc_easy")])


def test_rewards_are_the_same_with_and_without_the_chat_template_flag(
    trained: str, preference_file: Path
) -> None:
    lm = RewardModelLM(pretrained=trained)
    margins = [
        [sample["margin"] for sample in results["samples"]["preference"]]
        for flag in (False, True)
        for results in [
            run(
                lm,
                ["preference"],
                metadata={"data": str(preference_file)},
                apply_chat_template=flag,
                log_samples=True,
            )
        ]
    ]
    assert margins[0] == margins[1]
    with pytest.raises(ConfigError, match="template=FILE in --model_args"):
        lm.chat_template("named")


def test_a_response_cache_has_a_table_for_each_model(
    tmp_path: Path, trained: str, other: str
) -> None:
    path = str(tmp_path / "cache.db")
    asked = [request("loglikelihood", ("Q?", answer), "t", i) for i, answer in enumerate("ab")]
    models = [lambda f=f: RewardModelLM(pretrained=f) for f in (trained, other)]
    expected = [make().loglikelihood(asked) for make in models]
    assert expected[0] != expected[1]
    for _ in range(2):
        got = [CachingLM(make(), path).loglikelihood(asked) for make in models]
        assert [[tuple(answer) for answer in of] for of in got] == expected


def test_generation_and_perplexity_are_refused(trained: str) -> None:
    lm = RewardModelLM(pretrained=trained)
    with pytest.raises(ConfigError, match="'gsm8k' asks for generated text, and a trained reward"):
        lm.generate_until([request("generate_until", ("Q?", {}), "gsm8k")])
    with pytest.raises(ConfigError, match="perplexity"):
        lm.loglikelihood_rolling([])
