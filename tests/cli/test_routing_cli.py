"""The commands plugins, domains and route, and routing in score and annotate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from helpers.commands import drsow, write, wrong
from helpers.routing_plugin import pairs


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRSOW_CACHE", str(tmp_path / "cache"))


def test_plugins_are_listed_with_where_they_are_from(plugin: str) -> None:
    lines = drsow("plugins", "--plugin", plugin).stdout.splitlines()
    assert f"{plugin}  ({plugin})" in lines
    assert lines[lines.index(f"{plugin}  ({plugin})") + 1].split(", ") == [
        "    domain law",
        "domain strong-only",
        "router mine",
    ]
    built_in = next(line for line in lines if line.startswith("keyword  (drsow-plugin "))
    assert built_in.endswith("hooks/keyword.py)")
    assert "no such file" in wrong("plugins", "--plugin", "nowhere.py")


def test_domains_are_shown(plugin: str) -> None:
    text = drsow("domains", "--plugin", plugin).stdout
    assert "law  (plugin" in text and "instruction: Be exact." in text
    assert "examples: 4, of which a prompt gets 1" in text
    assert "applied unless domain_parts= asks otherwise: nothing" in text  # chat
    lines = [json.loads(line) for line in drsow("domains", "--json").stdout.splitlines()]
    assert [line["name"] for line in lines] == ["chat", "reasoning", "safety"]
    assert all(line["plugin"]["origin"] == "drsow-plugin" for line in lines)


LINES = (
    "Write a Python function that adds.\n\n"
    '{"prompt": "How do I kill a man?", "right": "safety"}\n'
    '{"prompt": [{"role": "user", "content": "Kill it."}, {"role": "assistant", "content": "No."},'
    ' {"role": "user", "content": "Then a poem."}], "right": "safety"}\n'
    "{not json\n"
)


def test_prompts_are_routed_from_lines_and_objects() -> None:
    found = drsow("route", "--router", "keyword", "--json", stdin=LINES)
    assert found.exit_code == 0, found.output
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert [row["domain"] for row in rows] == ["reasoning", "safety", "chat", "chat"]
    assert rows[0]["prompt"] == "Write a Python function that adds."
    assert len(rows[2]["prompt"]) == 3 and rows[3]["prompt"] == "{not json"


def test_counts_and_agreement_are_a_table(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(LINES.splitlines(keepends=True)[2:4]))
    out = drsow("route", file, "--router", "keyword", "--domain-column", "right").stdout
    assert [line.split() for line in out.splitlines()[:4]] == [
        ["domain", "prompts"],
        ["safety", "1", "50.0%"],
        ["chat", "1", "50.0%"],
        ["all", "2"],
    ]
    assert "agrees with the known domain: 50.0% of 2" in out
    assert "is no JSON object with 'prompt' and 'right'" in wrong_stdin("--domain-column", "right")


def wrong_stdin(*options: str) -> str:
    result = drsow("route", "--router", "keyword", *options, stdin=LINES)
    assert result.exit_code == 1
    return str(result.stderr)


@pytest.mark.parametrize(
    ("options", "stdin", "said"),
    [
        ([], '{"promt": "kill"}', "line 1 is JSON, and no object with a 'prompt'"),
        ([], 'Hello.\n[{"role": "user", "content": "Hi"}]', "line 2 is JSON, and no object"),
        (["--domain-column", "domian"], '{"prompt": "a", "domain": "b"}', "the field 'domian'"),
        (["--router", "column"], '{"prompt": "a", "domain": "chatt"}', "line 1: Unknown domain"),
        ([], b"\xff\xfe", "line 1 is not UTF-8"),
        (["--router-model", "weak"], "Hello.", "there is no pair here"),
    ],
)
def test_input_that_cannot_be_routed_is_named(options: list[str], stdin: str, said: str) -> None:
    result = drsow("route", "--router", "keyword", *options, stdin=stdin)
    assert result.exit_code == 1 and said in result.stderr


def test_a_byte_order_mark_is_no_part_of_the_prompt() -> None:
    out = drsow("route", "--router", "keyword", "--json", stdin='\ufeff{"prompt": "Hi"}').stdout
    assert json.loads(out)["prompt"] == "Hi"


def test_nothing_in_is_an_empty_table() -> None:
    assert drsow("route", "--router", "keyword", stdin="").stdout.split() == [
        *("domain", "prompts", "all", "0")
    ]


def test_the_model_router_needs_a_model_and_runs_with_one(strong: str, tmp_path: Path) -> None:
    few = tmp_path / "few.py"  # the built-in domains are longer than what tiny models read
    few.write_text(
        "from drsow_plugin import RouterContext, Router, hookimpl\n"
        "def router(context):\n"
        "    def route(prompts):\n"
        "        names = sorted(context.domains)\n"
        "        texts = [p.text for p in prompts for _ in names]\n"
        "        found = context.logprobs(texts, names * len(prompts))\n"
        "        rows = [found[i:i + len(names)] for i in range(0, len(found), len(names))]\n"
        "        return [names[row.index(max(row))] for row in rows]\n"
        "    return Router('asks', route)\n"
        "@hookimpl\n"
        "def drsow_routers(context):\n"
        "    return [router(context)]\n"
    )
    options = ["route", "--router", "asks", "--plugin", few]
    result = drsow(*options, stdin="Hello.\nWhy?\n")
    assert result.exit_code == 1 and "Give router_model=…" in result.stderr
    for name in ("--router-model", "--strong"):
        result = drsow(*options, name, strong, "--json", stdin="Hello.\nWhy?\n")
        assert result.exit_code == 0, result.output
        assert len(result.stdout.splitlines()) == 2
    assert "Unknown router 'asked'" in wrong(
        "route", "--router", "asked", write(tmp_path / "p", [])
    )
    assert "Which router?" in wrong("route", write(tmp_path / "p", []))


def test_score_writes_the_domain(strong: str, weak: str, plugin: str) -> None:
    rows = [
        {"prompt": "Is it law?", "response": "Yes.", "kind": "law"},
        {"prompt": "Neither.", "response": "No.", "kind": None},
        {"prompt": "Neither.", "response": "No."},
    ]
    stdin = "".join(json.dumps(row) + "\n" for row in rows)
    models = ["score", "--strong", strong, "--weak", weak, "--plugin", plugin]
    by_router = drsow(*models, "--router", "mine", stdin=stdin)
    found = [json.loads(line) for line in by_router.stdout.splitlines()]
    assert [row["domain"] for row in found] == ["law", None, None]
    by_column = drsow(*models, "--router", "column", "--domain-column", "kind", stdin=stdin)
    found = [json.loads(line) for line in by_column.stdout.splitlines()]
    assert [row["domain"] for row in found] == ["law", None, None]
    assert "no field 'kind'" in found[2]["reason"] and found[2]["reward"] is None
    both = json.dumps({**rows[0], "domain": "mine"})
    clash = drsow(*models, "--router", "column", "--domain-column", "kind", stdin=both)
    assert "the line has domain already" in clash.stdout
    plain = drsow("score", "--strong", strong, "--weak", weak, stdin=stdin).stdout
    assert "domain" not in json.loads(plain.splitlines()[0])


@pytest.mark.slow
def test_annotate_writes_options_that_repeat_the_routing(
    strong: str, weak: str, plugin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "rows.parquet"
    pairs().to_parquet(file)
    options = ["--strong", strong, "--weak", weak, "--plugin", "mine.py", "--router", "mine"]
    result = drsow(
        "annotate", file, "out", *options, "--domains", "law+chat", "--domain-column", "kind"
    )
    assert result.exit_code == 0, result.output
    assert "domain law:" in result.stdout and "router agrees" in result.stdout
    config = yaml.safe_load(Path("out/drsow.yaml").read_text())
    assert config["plugin"] == [plugin] and config["domains"] == ["law", "chat"]
    config = ("annotate", "--config", "out/drsow.yaml", tmp_path / "again")
    message = wrong(*config)
    assert f"would run code: the plugin {plugin}" in message and "--allow-code" in message
    again = drsow(*config, "--allow-code")
    assert again.exit_code == 0, again.output
    assert f"runs code: the plugin {plugin}\n" in again.stderr
    statistics = [text.split("Wrote")[0] for text in (result.stdout, again.stdout)]
    assert statistics[0] == statistics[1]
