"""What a study is asked for, in Python, in files and on a command line; what is wrong is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drsow_plugin import ConfigError
from drsow_plugin.study.options import parse_study
from drsow_plugin.study.values import parse_model_text, parse_size

TWO: dict[str, Any] = {"a": "org/a", "b": "org/b"}


def test_models_have_options_of_their_own_and_share_others() -> None:
    setup = parse_study(
        {"chat": "demo", "plain": {"source": "demo", "template": "none", "dtype": "bfloat16"}},
        {"dtype": "float32", "overflow": "truncate_prompt", "batch_size": "4"},
    )
    chat, plain = setup.models
    assert (chat.config.template, plain.config.template) == ("tokenizer", "none")
    assert (chat.config.dtype, plain.config.dtype) == ("float32", "bfloat16")
    assert setup.scoring.overflow == "truncate_prompt" and setup.batching.rows == 4
    assert plain.options == {"source": "demo", "dtype": "bfloat16", "template": "none"}


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("a=org/a", "a", {"source": "org/a"}),
        (
            "a=x,template=none,memory=2GB",
            "a",
            {"source": "x", "template": "none", "memory": "2GB"},
        ),
        (
            'a=x,template_args={"n": 1, "m": [2, 3]},dtype=float32',
            "a",
            {"source": "x", "template_args": '{"n": 1, "m": [2, 3]}', "dtype": "float32"},
        ),
        ("a=x=y,z", "a", {"source": "x=y,z"}),
    ],
)
def test_a_model_is_written_in_one_word(text: str, name: str, options: dict[str, str]) -> None:
    assert parse_model_text(text) == (name, options)


@pytest.mark.parametrize("text", ["org/a", "=org/a", "a=", ""])
def test_a_model_that_is_not_written_so_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write NAME=SOURCE"):
        parse_model_text(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GB", 24 * 10**9), ("24 GiB", 24 * 2**30), ("1.5 gb", 15 * 10**8), (100, 100)],
)
def test_sizes_are_read(text: Any, size: int) -> None:
    assert parse_size("memory", text) == size


@pytest.mark.parametrize("text", ["many", "-1GB", "0", True, "24XB", "GB", "nan"])
def test_what_is_no_size_is_refused(text: Any) -> None:
    with pytest.raises(ConfigError, match="memory is a size such as 24GB"):
        parse_size("memory", text)


def test_scores_come_from_a_file_and_from_models(tmp_path: Path) -> None:
    file = tmp_path / "scores.csv"
    file.write_text("model,MMLU,GSM8K\na,60,1\nb,50.5,2\nother,1,\n", encoding="utf-8")
    setup = parse_study(
        {"a": "org/a", "b": {"source": "org/b", "scores": {"GSM8K": 7}}}, {"scores": str(file)}
    )
    assert setup.models[0].scores == {"MMLU": 60.0, "GSM8K": 1.0}
    assert setup.models[1].scores == {"MMLU": 50.5, "GSM8K": 7.0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model,MMLU\na,1\n", "The score 'MMLU' has no value for the model 'b'"),
        ("model,MMLU\na,1\nb,\n", "The score 'MMLU' has no value for the model 'b'"),
        ("model,MMLU\na,1\nb,high\n", "model b, MMLU is a number, got 'high'"),
        ("model,MMLU\na,1\na,2\n", "two lines for the model 'a'"),
        ("name,MMLU\na,1\n", "needed are a column 'model'"),
        ("model\na\n", "at least one column of numbers"),
        ("", "needed are a column 'model'"),
        ('model,MMLU\n"a,1\n', "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_scores_that_do_not_fit_the_models_are_refused(
    tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "scores.csv"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        parse_study(TWO, {"scores": str(file)})


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        ({"a": "org/a"}, {}, "at least two models"),
        ([], {}, "at least two models"),
        ({"a": "org/a", "b": "org/a"}, {}, "a and b are the same model"),
        ({"a.b": "org/a", "a_b": "org/b"}, {}, r"a\.b and a_b are the same model"),
        ({"a": "org/a", "b": {"source": "org/b", "sourse": 1}}, {}, "model b: Unknown option"),
        ({"a": "org/a", "b": {}}, {}, "No b model was given"),
        ({"a": "org/a", "x=y": "org/b"}, {}, "name of a model"),
        ({"a": "org/a", "b\n": "org/b"}, {}, "name of a model"),
        ({"a": "org/a", 3: "org/b"}, {}, "name of a model"),
        ({"a": "org/a", "b": {"source": "org/b", "scores": [1]}}, {}, "scores is a mapping"),
        ({"a": "org/a", "b": {"source": "org/b", "cost": "much"}}, {}, "cost is a number"),
        ({"a": "org/a", "b": {"source": "org/b", "dtype": "int1"}}, {}, "b_dtype"),
        (TWO, {"refine": "0.1"}, "Unknown option 'refine'"),
        (TWO, {"strong": "x"}, "Unknown option 'strong'"),
        (TWO, {"resamples": "10"}, "resamples at least 100"),
        (TWO, {"folds": 1}, "folds is at least 2"),
        (TWO, {"seed": -1}, "seed is a whole number"),
        (TWO, {"min_common": 2}, "min_common is a number from 0 to 1"),
        (TWO, {"max_cost": "inf"}, "max_cost is a number"),
        (TWO, {"template": "rendered"}, "Set control_tokens=parse"),
        (TWO, {"server_key": "KEY"}, "no effect without server"),
    ],
)
def test_what_is_wrong_is_said(models: Any, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_study(models, options)
