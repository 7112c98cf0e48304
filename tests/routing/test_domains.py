"""Domains: what is joined to a conversation, and that nothing else is."""

from __future__ import annotations

import random

import pytest

from drsow_plugin import ConfigError, Domain
from drsow_plugin.routing.domains import condition


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def example(number: int) -> list[dict[str, str]]:
    return [turn("user", f"question {number}"), turn("assistant", f"answer {number}")]


DOMAIN = Domain("law", "About law.", instruction="Be exact.", examples=[example(1)])
MANY = Domain("law", "About law.", examples=[example(n) for n in range(6)], shots=2)
PROMPT = [turn("user", "Is it legal?")]


def test_the_instruction_is_the_system_message_and_examples_come_before_the_prompt() -> None:
    assert condition(PROMPT, DOMAIN) == [turn("system", "Be exact."), *example(1), *PROMPT]


def test_a_system_message_that_is_there_follows_the_instruction() -> None:
    own = [turn("system", "Answer in French."), *PROMPT]
    assert condition(own, DOMAIN) == [
        turn("system", "Be exact.\n\nAnswer in French."),
        *example(1),
        *PROMPT,
    ]
    assert condition(own, DOMAIN, parts="examples") == [own[0], *example(1), *PROMPT]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ("none", PROMPT),
        ("instruction", [turn("system", "Be exact."), *PROMPT]),
        ("examples", [*example(1), *PROMPT]),
        ("both", [turn("system", "Be exact."), *example(1), *PROMPT]),
    ],
)
def test_parts_are_ablations(parts: str, expected: list[dict[str, str]]) -> None:
    assert condition(PROMPT, DOMAIN, parts=parts) == expected  # type: ignore[arg-type]
    by_default = Domain("law", "x", instruction="Be exact.", examples=[example(1)], parts=parts)  # type: ignore[arg-type]
    assert condition(PROMPT, by_default) == expected


def test_the_prompt_is_not_changed_in_place() -> None:
    own = [turn("system", "Answer in French."), *PROMPT]
    condition(own, DOMAIN)
    assert own[0]["content"] == "Answer in French."


def test_examples_are_chosen_by_the_prompts_content_alone() -> None:
    prompts = [[turn("user", f"Prompt {n}")] for n in range(40)]
    first = [condition(prompt, MANY) for prompt in prompts]
    random.seed(1)
    assert [condition(prompt, MANY) for prompt in reversed(prompts)] == first[::-1]
    chosen = {conversation[0]["content"] + conversation[2]["content"] for conversation in first}
    assert len(chosen) > 8  # of the 15 pairs
    for conversation in first:
        numbers = [int(m["content"].split()[1]) for m in conversation[:-1:2]]
        assert len(numbers) == 2 and numbers == sorted(numbers)
    assert (
        len(
            {
                str(condition(p, Domain("tax", "x", examples=MANY.examples, shots=2))[0])
                for p in prompts
            }
        )
        > 1
    )


def test_shots_can_be_given() -> None:
    assert len(condition(PROMPT, MANY, shots=1)) == 3
    assert len(condition(PROMPT, MANY, shots=9)) == 13


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "a b"}, "letters, digits"),
        ({"name": "a+b"}, "letters, digits"),
        ({"description": " "}, "needs a description"),
        ({"instruction": None}, "instruction is a text"),
        ({"parts": "all"}, "Unknown parts 'all'"),
        ({"side": "weak"}, "Unknown side 'weak'"),
        ({"shots": 0}, "at least 1"),
        ({"shots": True}, "at least 1"),
        ({"instruction": "half \ud83d"}, "not valid Unicode"),
        ({"prompts": "one"}, "a list of texts"),
        ({"examples": [[turn("user", "q")]]}, "by turns"),
        ({"examples": ["q"]}, "by turns"),
        ({"examples": [[turn("assistant", "a"), turn("user", "q")]]}, "by turns"),
        ({"examples": [[turn("user", "q"), {"role": "assistant", "content": None}]]}, "by turns"),
    ],
)
def test_a_domain_that_cannot_be_used_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Domain(**{"name": "law", "description": "About law.", **options})  # type: ignore[arg-type]
