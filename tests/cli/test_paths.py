"""Inputs and output: words of the command line, or of a file."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.commands import drsow

from drsow_plugin.cli.paths import named_paths


@pytest.mark.parametrize(
    ("words", "options", "expected"),
    [
        (("a", "b", "out"), {}, (["a", "b"], "out")),
        (("a", "out"), {"input": ["x", "y"], "output": "z"}, (["a"], "out")),
        (("out",), {"input": ["x", "y"], "output": "z"}, (["x", "y"], "out")),
        ((), {"input": "x", "output": "z"}, (["x"], "z")),
        (("out",), {"output": "z"}, ([], "out")),
        ((), {"input": ["x"]}, (["x"], "")),
    ],
    ids=["words", "words first", "output alone", "file", "no input", "no output"],
)
def test_words_come_before_the_file(
    words: tuple[str, ...], options: dict[str, Any], expected: tuple[list[str], str]
) -> None:
    assert named_paths(words, options) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["annotate", "x", "--strong", "demo", "--weak", "demo"], "Give INPUT and OUTPUT, such as"),
        (["generate", "x", "--policy", "demo"], "Give PROMPTS and OUTPUT, such as: drsow generate"),
        (["tune", "x", "--policy", "demo"], "Give PAIRS and OUTPUT, such as: drsow tune labelled"),
    ],
)
def test_one_word_alone_is_no_input(words: list[str], message: str) -> None:
    result = drsow(*words)
    assert result.exit_code == 1 and message in result.output
