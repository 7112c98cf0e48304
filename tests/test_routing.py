"""Routing in use: rewards, entries, fingerprints, other threads and processes."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import pytest

from drsow_plugin import Annotator, ConfigError, DataError, Domain, DrSoW, PluginError
from drsow_plugin.config import as_options, parse_pair
from drsow_plugin.domains import condition
from drsow_plugin.plugins import Plugins

PLUGIN = """
from drsow_plugin import Domain, Router, hookimpl

def turn(role, content):
    return {"role": role, "content": content}

LAW = Domain(
    "law", "About law.", instruction="Be exact.", shots=1,
    examples=[[turn("user", f"Why {n}?"), turn("assistant", f"So {n}.")] for n in range(4)],
)
STRONG = Domain("strong-only", "For the strong model.", instruction="Be strong.", side="strong")

def route(prompts):
    return [next((n for n in ("law", "strong-only") if n in p.text), None) for p in prompts]

@hookimpl
def drsow_domains():
    return [LAW, STRONG]

@hookimpl
def drsow_routers():
    return [Router("mine", route)]
"""

PROMPTS = ["Is it law?", "A strong-only one.", "Neither.", "More law.", "Write a Python function."]
RESPONSES = ["Yes.", "No, it is not.", "Maybe so.", "Some more of it.", "    return 1\n"]


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return str(path)


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
        ({"router": ["keyword"]}, "router is a name"),
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


def pairs(number: int = 12) -> datasets.Dataset:
    rows = [
        {
            "prompt": f"{PROMPTS[n % 5]} ({n})",
            "chosen": RESPONSES[n % 5],
            "rejected": "Something else.",
            "kind": ["law", "strong-only", "", "law", "reasoning"][n % 5],
        }
        for n in range(number)
    ]
    return datasets.Dataset.from_list(rows)


def test_labelled_rows_name_their_domain_and_the_report_counts_them(
    strong: str, weak: str, plugin: str, tmp_path: Path
) -> None:
    annotate = Annotator(strong, weak, router="mine", plugin=plugin, domain_column="kind")
    mapped = pairs().map(annotate, batched=True, batch_size=5)
    labelled = annotate.run(pairs(), cache_dir=str(tmp_path / "cache"))
    expected = ["law", "strong-only", None, "law", None]
    assert labelled["drsow_domain"] == [expected[n % 5] for n in range(12)]
    assert list(mapped["drsow_domain"]) == list(labelled["drsow_domain"])
    assert annotate.report is not None
    report = annotate.report.values
    figures = report["splits"]["train"]
    assert {k: v["rows"] for k, v in figures["domains"].items()} == {
        "law": 5,
        "strong-only": 3,
        "(none)": 4,
    }
    won = [row["drsow_margin"] > 0 for row in labelled if row["drsow_domain"] == "law"]
    assert figures["domains"]["law"]["accuracy"]["value"] == pytest.approx(sum(won) / 5)
    # law and strong-only are named for 8 rows, reasoning for 2, where the router says nothing
    assert figures["agreement"]["n"] == 10 and figures["agreement"]["value"] == pytest.approx(0.8)
    assert report["routing"]["router"] == "mine"
    assert report["routing"]["plugin"]["sha256"]
    assert {d["name"] for d in report["domains"]} >= {"law", "safety"}
    assert "domain law:" in str(annotate.report) and "router agrees" in str(annotate.report)
    assert (
        annotate.report_on(mapped).values["splits"]["train"]["domains"].keys()
        == figures["domains"].keys()
    )


def test_other_routing_scores_anew_and_the_same_does_not(
    strong: str, weak: str, plugin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = str(tmp_path / "cache")
    with_router = Annotator(strong, weak, router="mine", plugin=plugin).run(
        pairs(), cache_dir=cache
    )
    without = Annotator(strong, weak).run(pairs(), cache_dir=cache)
    assert with_router["drsow_margin"] != without["drsow_margin"]
    by_column = Annotator(strong, weak, router="column", plugin=plugin, domain_column="kind")
    first = by_column.run(pairs(), cache_dir=cache)
    moved = pairs().map(lambda row: {"kind": "law"})
    assert by_column.run(moved, cache_dir=cache)["drsow_margin"] != first["drsow_margin"]
    monkeypatch.setattr(DrSoW, "score", None)  # no more of that
    again = Annotator(strong, weak, router="mine", plugin=plugin).run(pairs(), cache_dir=cache)
    assert list(again) == list(with_router)


def test_a_pickled_annotator_routes_alike(strong: str, weak: str, plugin: str) -> None:
    annotate = Annotator(strong, weak, router="mine", plugin=plugin)
    restored = pickle.loads(pickle.dumps(annotate))
    batch = pairs()[:5]
    assert restored(batch)["drsow_domain"] == annotate(batch)["drsow_domain"]
    assert restored.fingerprint == annotate.fingerprint


SCRIPT = """
import json, sys
import multiprocess
from drsow_plugin import Annotator
from test_routing import pairs

if __name__ == "__main__":
    multiprocess.set_start_method("spawn")
    annotate = Annotator(sys.argv[1], sys.argv[2], router="mine", plugin=sys.argv[3])
    mapped = pairs().map(annotate, batched=True, batch_size=4, num_proc=2, with_rank=True)
    run = annotate.run(pairs(), num_proc=2, shard_rows=4)
    alone = pairs().map(annotate, batched=True, batch_size=4)
    columns = ("drsow_domain", "drsow_margin")
    print(json.dumps([[list(d[c]) for c in columns] for d in (mapped, run, alone)]))
"""


def test_processes_route_alike(strong: str, weak: str, plugin: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent),
        "DRSOW_CACHE": str(tmp_path / "c"),
    }
    result = subprocess.run(
        [sys.executable, script, strong, weak, plugin],
        env=environment,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    mapped, run, alone = json.loads(result.stdout.splitlines()[-1])
    for domains, margins in (mapped, run):
        assert domains == alone[0] and margins == pytest.approx(alone[1], abs=1e-5)


def test_a_router_that_fails_stops_the_run_and_keeps_finished_work(
    strong: str, weak: str, plugin: str, tmp_path: Path
) -> None:
    Path(plugin).write_text(
        PLUGIN.replace("return [next", "assert '(9)' not in str(prompts)\n    return [next")
    )
    cache = tmp_path / "cache"
    with pytest.raises(PluginError, match=r"router 'mine' of the plugin .*mine.py"):
        Annotator(strong, weak, router="mine", plugin=plugin).run(
            pairs(), cache_dir=str(cache), shard_rows=4
        )
    assert len(list(cache.glob("scores/*/*.parquet"))) == 2


def test_a_missing_domain_column_is_an_error(strong: str, weak: str) -> None:
    data = pairs().remove_columns("kind")
    with pytest.raises(DataError, match=r"domain_column: Unknown column 'domain'"):
        Annotator(strong, weak, router="column")(data[:2])
    with pytest.raises(DataError, match=r"domain_column: Unknown column 'kind'"):
        Annotator(strong, weak, router="keyword", domain_column="kind")(data[:2])


def test_a_domain_that_is_no_text_is_a_bad_row(strong: str, weak: str) -> None:
    batch = {**pairs()[:2], "kind": [1, "chat"]}
    out = Annotator(strong, weak, router="column", domain_column="kind")(batch)
    assert out["drsow_status"] == ["bad row: the domain is the name of one, got 1.", "ok"]


def test_a_domain_is_made_of_plain_values() -> None:
    domain = Domain(
        "law",
        "x",
        prompts=["a"],
        examples=[[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]],
    )
    assert Domain(**json.loads(json.dumps(domain.describe()))) == domain
