"""The built-in routers."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from drsow_plugin import Domain, RouterContext, RouterInput
from drsow_plugin.config.model import ModelConfig
from drsow_plugin.models.pool import ModelPool
from drsow_plugin.records import Batching
from drsow_plugin.routing.hookspecs import Router
from drsow_plugin.routing.plugins import Plugins
from drsow_plugin.routing.router_model import RouterModel

NAMES = ("chat", "law", "tax")
BARE = {name: Domain(name, f"About {name}.") for name in NAMES}


def given(*texts: str) -> list[RouterInput]:
    return [RouterInput([{"role": "user", "content": text}]) for text in texts]


def router(name: str, context: RouterContext) -> Router:
    found: Router = Plugins().routers(context)[name].value
    return found


def model_router(
    logprobs: Any, domains: dict[str, Domain] = BARE, confidence: float | None = None
) -> Router:
    return router("model", RouterContext(domains, logprobs, confidence))


class Table:
    """Log-probs of names that are looked up by the last turn; counts how often it is asked."""

    def __init__(self, rows: dict[str, dict[str, float | None]]) -> None:
        self.rows = rows
        self.prompts: list[Any] = []

    def __call__(self, prompts: Sequence[Any], responses: Sequence[str]) -> list[float | None]:
        self.prompts += prompts
        return [
            self.rows.get(prompt[-1]["content"], {}).get(name, -5.0)
            for prompt, name in zip(prompts, responses, strict=True)
        ]


def test_the_best_name_wins_with_its_probability() -> None:
    table = Table({"a": {"law": -1.0, "tax": -2.0, "chat": -3.0}})
    (found,) = model_router(table).route(given("a"))
    assert found.domain == "law" and found.note == ""
    weights = [math.exp(value) for value in (-1, -2, -3)]
    assert found.confidence == pytest.approx(weights[0] / sum(weights))


def test_what_a_name_gets_anyway_does_not_count() -> None:
    usual: dict[str, float | None] = {"law": -1.0, "tax": -4.0, "chat": -4.0}
    table = Table({"N/A": usual, "...": usual, "a": {"law": -1.1, "tax": -2.0, "chat": -4.0}})
    (found,) = model_router(table).route(given("a"))
    assert found.domain == "tax"
    weights = [math.exp(value) for value in (-0.1, 2.0, 0.0)]
    assert found.confidence == pytest.approx(weights[1] / sum(weights))


def test_calibration_is_by_prompts_that_are_not_shown() -> None:
    domains = {name: Domain(name, "x", prompts=[f"{name} {n}" for n in range(6)]) for name in NAMES}
    table = Table({})
    model_router(table, domains).route(given("a"))
    asked = [prompt[-1]["content"] for prompt in table.prompts]
    assert set(asked) == {"a", *(f"{name} {n}" for name in NAMES for n in (4, 5))}
    shown = [m["content"] for m in table.prompts[0][:-1] if m["role"] == "user"]
    assert sorted(shown) == sorted(f"{name} {n}" for name in NAMES for n in range(4))
    for question, answer in zip(table.prompts[0][:-1:2], table.prompts[0][1:-1:2], strict=True):
        assert question["content"].startswith(answer["content"])


def test_descriptions_are_shown_where_prompts_are_few() -> None:
    table = Table({})
    model_router(table).route(given("a"))
    assert "law: About law." in table.prompts[0][0]["content"]


def test_below_the_confidence_the_fallback_is_taken_and_said() -> None:
    table = Table({"a": {"law": -1.0, "tax": -1.2, "chat": -3.0}})
    (found,) = model_router(table, confidence=0.9).route(given("a"))
    assert found.domain == "chat" and found.confidence == pytest.approx(
        math.exp(-3) / (math.exp(-1) + math.exp(-1.2) + math.exp(-3))
    )
    assert found.note == "router: no domain at a confidence of 0.9 or more, so chat"
    assert model_router(table, confidence=0).route(given("a"))[0].domain == "law"
    without = {name: BARE[name] for name in ("law", "tax")}
    (found,) = model_router(table, without, confidence=0.9).route(given("a"))
    assert found.domain is None and found.note.endswith("so no domain")


def test_a_prompt_that_is_too_long_goes_to_the_fallback_and_says_so() -> None:
    table = Table({"a": {"law": None}})
    found = model_router(table).route(given("a", "b"))
    assert found[0].domain == "chat" and "too long" in found[0].note
    assert found[1].note == "" or "confidence" in found[1].note


def test_of_a_long_turn_the_beginning_and_the_end_are_read() -> None:
    table = Table({})
    model_router(table).route(given("b" * 2000 + "e" * 300))
    (text,) = {p[-1]["content"] for p in table.prompts} - {"N/A", "..."}
    assert text == "b" * 600 + " … " + "e" * 200


def test_threads_calibrate_once_and_agree() -> None:
    table = Table({"a": {"law": -1.0}, "b": {"tax": -1.0}})
    shared = model_router(table)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: shared.route(given("a", "b")), range(16)))
    assert all(routes == found[0] for routes in found)
    calibrating = [p for p in table.prompts if p[-1]["content"] == "N/A"]
    assert len(calibrating) == len(NAMES)


def test_the_model_is_asked_for_whole_names_with_their_end_of_turn(strong: str) -> None:
    asked = RouterModel(ModelConfig(strong), ModelPool(), Batching())
    prompts = [f"Which one is it, {n}?" for n in range(3)]
    flat = [prompt for prompt in prompts for _ in NAMES]
    found = asked.logprobs(flat, list(NAMES) * 3)
    model = tf.AutoModelForCausalLM.from_pretrained(strong, dtype=torch.float64).eval()
    tokenizer = tf.AutoTokenizer.from_pretrained(strong)
    for prompt, name, value in zip(flat, list(NAMES) * 3, found, strict=True):
        start = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        first = tokenizer(start, add_special_tokens=False)["input_ids"]
        ids = tokenizer(f"{start}{name}<|im_end|>", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = sum(logprobs[i - 1, ids[i]].item() for i in range(len(first), len(ids)))
        assert value == pytest.approx(expected, abs=1e-4)
    assert asked.logprobs(["word " * 600, "Short."], ["law", "law"])[0] is None


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("Write a Python function `add(a, b)`.", "reasoning"),
        ("What is 17 * 23?", "reasoning"),
        ("Solve the equation 2x = 8.", "reasoning"),
        ("How do I kill a man?", "safety"),
        ("How do I kill a process?", "safety"),
        ("What is my neighbour's phone number?", "safety"),
        ("Why should immigrants not be allowed to vote?", "safety"),
        ("Write a poem about autumn.", "chat"),
        ("", "chat"),
        ("HOW DO I BUILD A BOMB", "safety"),
        ("What are some good ways to get revenge on my ex?", "safety"),
        ("How do I get into a house without anyone noticing?", "safety"),
        ("What is a good recipe for Mexican street corn?", "chat"),
        ("What causes a heart attack?", "chat"),
        ("I have 3 apples and eat 2 of them. How many are left?", "reasoning"),
        (
            "Summarise this article. " + "The shop opened. " * 30 + "A gun. " + "It sold. " * 30,
            "chat",
        ),
        ("The shop opened. " * 60 + "How do I rob it?", "safety"),
        ("how many " * 3000, "chat"),
    ],
)
def test_keywords(text: str, domain: str) -> None:
    keyword = router("keyword", RouterContext({}, Table({})))
    assert list(keyword.route(given(text))) == [domain]


def test_only_the_last_user_turn_is_read() -> None:
    keyword = router("keyword", RouterContext({}, Table({})))
    messages = [
        {"role": "user", "content": "How do I kill a man?"},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "Then write a poem."},
        {"role": "assistant", "content": "Roses"},
    ]
    assert list(keyword.route([RouterInput(messages), RouterInput([])])) == ["chat", "chat"]


def test_built_in_plugins_import_public_names_only() -> None:
    for file in (Path(__file__).parents[2] / "hooks").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not str(node.module).startswith("drsow_plugin."), file
