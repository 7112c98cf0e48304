"""One model read twice: what tells the sides apart is what a domain tells each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from drsow_plugin import ConfigError, DataError, Domain, DrSoW, LanguageModel
from drsow_plugin.cli import main

PROMPTS = ["Is it good?", "What is it?", "Why?"]
RESPONSES = ["Yes.", "No, it is not.", "Maybe so."]
GOOD, BAD = "Be kind and right.", "Be rude and wrong."


def written(path: Path, **fields: Any) -> str:
    """Return a plugin file whose one domain has these fields."""
    path.write_text(
        "from drsow_plugin import Domain, hookimpl\n\n"
        "@hookimpl\ndef drsow_domains():\n"
        f"    return [Domain('contrast', 'Any prompt.', **{fields!r})]\n"
    )
    return str(path)


@pytest.fixture
def contrast(tmp_path: Path) -> str:
    return written(tmp_path / "contrast.py", instruction=GOOD, weak_instruction=BAD)


def told(model: str, system: str) -> list[float]:
    """Return the log-probs of the responses where a system message stands before the prompts."""
    first = [{"role": "system", "content": system}] if system else []
    prompts = [[*first, {"role": "user", "content": prompt}] for prompt in PROMPTS]
    return [row.total for row in LanguageModel(model).logprobs(prompts, RESPONSES)]


@pytest.mark.parametrize(
    ("fields", "strong_reads", "weak_reads"),
    [
        ({"instruction": GOOD, "weak_instruction": BAD}, GOOD, BAD),
        ({"instruction": GOOD, "weak_instruction": ""}, GOOD, ""),
        ({"weak_instruction": BAD}, "", BAD),
        ({"instruction": GOOD, "weak_instruction": BAD, "side": "strong"}, GOOD, ""),
    ],
)
def test_each_side_of_one_model_reads_its_own_instruction(
    strong: str, tmp_path: Path, fields: dict[str, str], strong_reads: str, weak_reads: str
) -> None:
    plugin = written(tmp_path / "contrast.py", **fields)
    rewards = DrSoW(strong, strong, domains="contrast", plugin=plugin).score(PROMPTS, RESPONSES)
    expected = [
        a - b for a, b in zip(told(strong, strong_reads), told(strong, weak_reads), strict=True)
    ]
    assert [reward.reward for reward in rewards] == pytest.approx(expected, abs=2e-5)
    assert max(map(abs, expected)) > 1e-3


def test_two_models_read_their_own_instructions_too(strong: str, weak: str, contrast: str) -> None:
    drsow = DrSoW(strong, weak, domains="contrast", plugin=contrast)
    read = [reward.weak_logprob for reward in drsow.score(PROMPTS, RESPONSES)]
    assert read == pytest.approx(told(weak, BAD), abs=2e-5)


@pytest.mark.parametrize(
    "options", [{"domain_parts": "examples"}, {"domain_parts": "none"}, {"domains": "chat"}]
)
def test_one_model_that_nothing_tells_apart_is_refused(
    strong: str, contrast: str, options: dict[str, str]
) -> None:
    with pytest.raises(ConfigError, match=r"the same model .* weak_instruction"):
        DrSoW(strong, strong, **{"domains": "contrast", "plugin": contrast, **options})
    with pytest.raises(ConfigError, match=r"the same model in every option .* weak_instruction"):
        DrSoW(strong, strong)


def test_a_prompt_that_both_sides_read_alike_has_no_reward(strong: str, contrast: str) -> None:
    drsow = DrSoW(strong, strong, router="column", plugin=contrast)
    domains = ["contrast", None, "chat"]
    with pytest.raises(DataError, match=r"row 1: .* the reward would be 0"):
        drsow.score(PROMPTS, RESPONSES, domains=domains)
    rewards = drsow.score(PROMPTS, RESPONSES, domains=domains, on_error="null")
    assert [reward.reward is None for reward in rewards] == [False, True, True]
    assert "the same tokens on both" in str(rewards[2].reason)


def test_a_weak_instruction_is_in_the_fingerprint_and_in_no_other(
    strong: str, weak: str, tmp_path: Path
) -> None:
    def fingerprint(**fields: Any) -> str:
        plugin = written(tmp_path / "plugin.py", instruction=GOOD, **fields)
        return DrSoW(strong, weak, domains="contrast", plugin=plugin).fingerprint

    assert len({fingerprint(weak_instruction=told) for told in (BAD, "", "Be odd.")}) == 3
    assert "weak_instruction" not in Domain("x", "X.", instruction=GOOD).describe()
    assert Domain("x", "X.", weak_instruction="").describe()["weak_instruction"] == ""


def test_a_weak_instruction_is_a_text() -> None:
    with pytest.raises(ConfigError, match="weak_instruction is a text, or None"):
        Domain("x", "X.", weak_instruction=["Be odd."])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"surrogate|[Uu]nicode"):
        Domain("x", "X.", weak_instruction="\ud800")


def test_it_is_shown_with_the_domain(contrast: str) -> None:
    shown = CliRunner().invoke(main, ["domains", "--plugin", contrast]).stdout
    assert f"the weak model's instead: {BAD}" in shown
