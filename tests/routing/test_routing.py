"""Routing in use: rewards, options, fingerprints, other threads."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from helpers.routing_plugin import PLUGIN, PROMPTS, RESPONSES

from drsow_plugin import ConfigError, DataError, Domain, DrSoW
from drsow_plugin.config.pair import as_options, parse_pair
from drsow_plugin.routing.domains import condition
from drsow_plugin.routing.plugins import Plugins


@pytest.fixture
def routed(strong: str, weak: str, plugin: str) -> DrSoW:
    return DrSoW(strong, weak, router="mine", plugin=plugin)


def values(rewards: list[Any]) -> list[tuple[float, float]]:
    return [(r.strong_logprob, r.weak_logprob) for r in rewards]


def by_hand(strong: str, weak: str, plugin: str, **options: Any) -> list[tuple[float, float]]:
    """Return the log-probs of conversations that were conditioned one by one, without a router."""
    domains = {n: offer.value for n, offer in Plugins([plugin]).domains.items()}
    names = ["law", "strong-only", None, "law", None]
    plain = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    full = [
        messages if name is None else condition(messages, domains[name], **options)
        for messages, name in zip(plain, names, strict=True)
    ]
    pair = DrSoW(strong, weak)
    conditioned, bare = values(pair.score(full, RESPONSES)), values(pair.score(plain, RESPONSES))
    return [
        (both[0], alone[1] if name == "strong-only" else both[1])
        for both, alone, name in zip(conditioned, bare, names, strict=True)
    ]


def test_a_reward_is_that_of_the_conversation_with_the_domain_before_it(
    strong: str, weak: str, plugin: str, routed: DrSoW
) -> None:
    rewards = routed.score(PROMPTS, RESPONSES)
    assert [r.domain for r in rewards] == ["law", "strong-only", None, "law", None]
    for got, expected in zip(values(rewards), by_hand(strong, weak, plugin), strict=True):
        assert got == pytest.approx(expected, abs=2e-5)
    bare = DrSoW(strong, weak).score(PROMPTS, RESPONSES)
    differs = [abs(a.reward - b.reward) > 1e-3 for a, b in zip(rewards, bare, strict=True)]  # type: ignore[operator]
    assert differs == [True, True, False, True, False]


@pytest.mark.parametrize("parts", ["none", "instruction", "examples", "both"])
def test_ablations_are_one_option(strong: str, weak: str, plugin: str, parts: Any) -> None:
    drsow = DrSoW(strong, weak, router="mine", plugin=plugin, domain_parts=parts)
    expected = by_hand(strong, weak, plugin, parts=parts)
    for got, wanted in zip(values(drsow.score(PROMPTS, RESPONSES)), expected, strict=True):
        assert got == pytest.approx(wanted, abs=2e-5)


def test_the_side_can_be_given(strong: str, weak: str, plugin: str, routed: DrSoW) -> None:
    only = DrSoW(strong, weak, router="mine", plugin=plugin, domain_side="strong")
    both = DrSoW(strong, weak, router="mine", plugin=plugin, domain_side="both")
    bare = DrSoW(strong, weak).score(PROMPTS, RESPONSES)
    own, all_of_it = only.score(PROMPTS, RESPONSES), both.score(PROMPTS, RESPONSES)
    for one, every, plain in zip(own, all_of_it, bare, strict=True):
        assert one.strong_logprob == pytest.approx(every.strong_logprob, abs=2e-5)
        assert one.weak_logprob == pytest.approx(plain.weak_logprob, abs=2e-5)
    assert abs(all_of_it[1].weak_logprob - bare[1].weak_logprob) > 1e-3  # type: ignore[operator]


def test_order_and_neighbours_change_nothing(routed: DrSoW) -> None:
    rows = list(zip(PROMPTS, RESPONSES, strict=True)) * 3
    first = routed.score(*zip(*rows, strict=True))
    order = list(range(len(rows)))
    random.Random(3).shuffle(order)
    again = routed.score(*zip(*(rows[i] for i in order), strict=True))
    for position, index in enumerate(order):
        assert again[position].reward == pytest.approx(first[index].reward, abs=1e-5)
        assert again[position].domain == first[index].domain


def test_what_is_cut_of_a_domain_is_said(strong: str, weak: str, plugin: str) -> None:
    drsow = DrSoW(
        strong, weak, plugin=plugin, domains="law", overflow="truncate_prompt", max_length=40
    )
    (reward,) = drsow.score(PROMPTS[:1], RESPONSES[:1])
    assert reward.strong_truncated > 0
    assert any("what was cut from the left is the domain's" in note for note in reward.notes)


def test_domains_left_out_are_routed_and_not_applied(strong: str, weak: str, plugin: str) -> None:
    drsow = DrSoW(strong, weak, router="mine", plugin=plugin, domains=["strong-only"])
    rewards = drsow.score(PROMPTS[:1], RESPONSES[:1])
    bare = DrSoW(strong, weak).score(PROMPTS[:1], RESPONSES[:1])
    assert rewards[0].domain == "law"
    assert rewards[0].reward == pytest.approx(bare[0].reward, abs=1e-6)


def test_one_domain_without_a_router_is_applied_to_all(strong: str, weak: str, plugin: str) -> None:
    drsow = DrSoW(strong, weak, plugin=plugin, domains="law")
    assert [r.domain for r in drsow.score(PROMPTS, RESPONSES)] == ["law"] * 5


def test_the_column_router_goes_by_what_it_is_given(strong: str, weak: str, plugin: str) -> None:
    drsow = DrSoW(strong, weak, router="column", plugin=plugin)
    rewards = drsow.score(["A?"] * 3, ["B."] * 3, domains=["law", None, "chat"])
    assert [r.domain for r in rewards] == ["law", None, "chat"]
    assert rewards[1].reward == pytest.approx(rewards[2].reward, abs=1e-5)
    assert abs(rewards[0].reward - rewards[1].reward) > 1e-3  # type: ignore[operator]
    with pytest.raises(DataError, match=r"row 1: Unknown domain 'lw'. Did you mean 'law'"):
        drsow.score(["A?"] * 2, ["B."] * 2, domains=["chat", "lw"])
    null = drsow.score(["A?"] * 2, ["B."] * 2, domains=["chat", "lw"], on_error="null")
    assert null[0].reward is not None and null[1].reward is None
    assert null[1].reason and null[1].reason.startswith("bad row: Unknown domain")
    with pytest.raises(DataError, match="domains has 1 entries for 2 prompts"):
        drsow.score(["A?"] * 2, ["B."] * 2, domains=["chat"])
    with pytest.raises(DataError, match="row 0: domains are names or None, got 3"):
        drsow.score(["A?"], ["B."], domains=[3])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="goes by the domains= of the prompts"):
        drsow.score(["A?"], ["B."])
    with pytest.raises(ConfigError, match="open the pair with router"):
        DrSoW(strong, weak).score(["A?"], ["B."], domains=["chat"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"router": "keywrd"}, "Unknown router 'keywrd'. Did you mean 'keyword'?"),
        ({"router": "keyword", "domains": "chat+sfety"}, "Unknown domain 'sfety'"),
        ({"domains": "chat+safety"}, "Give router=…"),
        ({"domain_parts": "both"}, "domain_parts has no effect without router"),
        ({"plugin": "mine.py"}, "plugin has no effect without router"),
        ({"router_model": "demo"}, "router_model has no effect without router"),
        ({"router": "model", "router_dtype": "float16"}, "router_dtype has no effect"),
        ({"router": "model", "router_confidence": 1.2}, "a number from 0 to 1, got 1.2"),
        ({"router": "model", "router_confidence": True}, "a number from 0 to 1, got True"),
        ({"router": "keyword", "domain_parts": "some"}, "Unknown value of domain_parts 'some'"),
        ({"router": "keyword", "domain_shots": 0}, "domain_shots is a whole number"),
        ({"router": "keyword", "domains": "chat+chat"}, "given twice"),
        ({"router": "keyword", "domains": ["chat", 3]}, "domains is a list of names"),
        ({"router": ["keyword"]}, "router is a text, got ['keyword']"),
        ({"router_confidence": 0}, "router_confidence has no effect without router"),
        ({"domains": "chat", "router_confidence": 0.5}, "no effect without router=…."),
        ({"domains": "chat", "router_model": "demo"}, "no effect without router=…."),
        ({"router": "keyword", "domains": []}, "domains: a name is missing"),
        ({"router": "model", "router_model": 5}, "router_model is strong, weak or a model"),
        ({"router": "keyword", "plugin": "nowhere.py"}, "no such file"),
        ({"router": "model", "router_model": "nowhere/"}, "router"),
    ],
)
def test_a_wrong_option_is_an_error_at_once(
    strong: str, weak: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        DrSoW(strong, weak, **options)
    assert said in str(caught.value)


def test_options_survive_a_round_trip(strong: str, weak: str, plugin: str) -> None:
    given = {
        "strong": strong,
        "weak": weak,
        "router": "model",
        "domains": ["chat", "law"],
        "plugin": [plugin],
        "domain_column": "kind",
        "domain_parts": "none",
        "domain_side": "strong",
        "domain_shots": 3,
        "router_model": strong,
        "router_dtype": "float64",
        "router_confidence": 0.0,
    }
    config = parse_pair(given)
    assert as_options(config) == given
    assert parse_pair(as_options(config)) == config
    text = {**given, "domains": "chat+law", "plugin": plugin, "router_confidence": "0"}
    assert parse_pair(text) == config


@pytest.mark.slow
def test_the_fingerprint_covers_all_that_routing_decides(
    strong: str, weak: str, plugin: str
) -> None:
    def fingerprint(**options: Any) -> str:
        return DrSoW(strong, weak, **options).fingerprint

    variants: list[dict[str, Any]] = [
        {},
        {"router": "keyword"},
        {"router": "column"},
        {"router": "model"},
        {"router": "model", "router_confidence": 0.9},
        {"router": "model", "router_model": "weak"},
        {"router": "model", "router_model": strong, "router_template": "none"},
        {"router": "keyword", "domains": "safety"},
        {"domains": "safety"},
        {"router": "keyword", "domain_parts": "none"},
        {"router": "keyword", "domain_side": "strong"},
        {"router": "keyword", "domain_shots": 1},
        {"router": "mine", "plugin": plugin},
    ]
    prints = [fingerprint(**options) for options in variants]
    assert len(set(prints)) == len(prints)
    assert [fingerprint(**options) for options in variants] == prints
    Path(plugin).write_text(PLUGIN.replace("p.text", "p.text.lower()"))
    assert fingerprint(router="mine", plugin=plugin) != prints[-1]
    Path(plugin).write_text(PLUGIN.replace("Be exact.", "Be kind."))
    assert fingerprint(router="mine", plugin=plugin) != prints[-1]


def test_a_plugin_file_counts_by_what_is_in_it(
    strong: str, weak: str, plugin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "elsewhere+here" / "other.py"
    moved.parent.mkdir()
    moved.write_text(PLUGIN)
    first = DrSoW(strong, weak, router="mine", plugin=plugin).fingerprint
    for spelled in (str(moved), [str(moved)], moved):
        drsow = DrSoW(strong, weak, router="mine", plugin=spelled)  # type: ignore[arg-type]
        assert drsow.fingerprint == first
        assert parse_pair(as_options(drsow.config)) == drsow.config
    monkeypatch.chdir(tmp_path)
    assert DrSoW(strong, weak, router="mine", plugin="mine.py").fingerprint == first


def test_a_router_cannot_change_what_is_scored(strong: str, weak: str, tmp_path: Path) -> None:
    file = tmp_path / "meddles.py"
    file.write_text(
        "from drsow_plugin import Router, hookimpl\n"
        "def route(prompts):\n"
        "    for p in prompts:\n"
        "        p.messages[-1]['content'] = ''\n"
        "    return ['chat'] * len(prompts)\n"
        "@hookimpl\n"
        "def drsow_routers():\n"
        "    return [Router('meddles', route)]\n"
    )
    messages = [[{"role": "user", "content": text}] for text in PROMPTS]
    routed = DrSoW(strong, weak, router="meddles", plugin=str(file)).score(messages, RESPONSES)
    bare = DrSoW(strong, weak).score(messages, RESPONSES)
    assert [r.reward for r in routed] == [r.reward for r in bare]


@pytest.mark.slow
def test_without_a_router_no_plugin_is_loaded(strong: str, weak: str) -> None:
    code = f"""
import sys
from drsow_plugin import DrSoW
DrSoW({strong!r}, {weak!r})
assert not [m for m in sys.modules if m.startswith("drsow_plugin.hooks.")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_threads_may_share_a_pair(strong: str, weak: str, plugin: str) -> None:
    drsow = DrSoW(strong, weak, router="model", plugin=plugin)
    rows = [
        (f"{prompt} {n}", response)
        for n in range(4)
        for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
    ]
    alone = DrSoW(strong, weak, router="model", plugin=plugin).score(*zip(*rows, strict=True))
    with ThreadPoolExecutor(4) as pool:
        together = list(
            pool.map(
                lambda part: drsow.score(*zip(*part, strict=True)), [rows[n::4] for n in range(4)]
            )
        )
    for n in range(4):
        for got, expected in zip(together[n], alone[n::4], strict=True):
            assert got.domain == expected.domain
            assert got.reward == pytest.approx(expected.reward, abs=1e-5)


def test_a_domain_is_made_of_plain_values() -> None:
    domain = Domain(
        "law",
        "x",
        prompts=["a"],
        examples=[[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]],
    )
    assert Domain(**json.loads(json.dumps(domain.describe()))) == domain
