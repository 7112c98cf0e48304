"""Names and texts of others on the card and on the terminal, read by a Markdown renderer."""

from __future__ import annotations

import json
import random
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import datasets
import pytest
from click.testing import CliRunner
from helpers.hub_server import TOKEN
from helpers.reports import REPO, report
from markdown_it import MarkdownIt

from drsow_plugin import Report
from drsow_plugin.cli import main
from drsow_plugin.printable import json_line, printable
from drsow_plugin.publishing import card
from drsow_plugin.publishing.markdown import Markdown, code, fence, table

RENDERER = MarkdownIt("commonmark").enable(["table", "strikethrough"])  # HTML passes, as on the Hub

HOSTILE = [
    '<img src=x onerror="alert(1)">',
    "<script>alert(1)</script>",
    "[text](https://evil.example)",
    "![picture](https://evil.example/x.png)",
    "<https://evil.example>",
    "`code` and ``more``",
    "```\nfence\n```",
    "a | b \\| c",
    "| --- |",
    "\\",
    "*a* _b_ **c** ~~d~~ &lt; &amp; &#124;",
    "# heading",
    "- item",
    "1. item",
    "---",
    "> quote",
    "\x1b[31mred\x1b]0;title\x07",
    "<!-- drsow:end -->",
    "line\r\n\r\n<b>two</b>",
    "\u202eabc",
    "a_b $x$ !",
]


class Reader(HTMLParser):
    """Parts rendered Markdown into its tags and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(RENDERER.render(text))
        self.close()
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # A bar parts code into two pieces.
        self.tags += [] if tag == "code" else [f"{tag} {attrs}"]

    def handle_data(self, data: str) -> None:
        self.text += data


def named(value: str) -> str:
    """Return the whole card of a report with one name in each place that has one."""
    values = report(input=f"{value}.jsonl", command=f"drsow annotate {value}", created=value)
    counted = {**values["splits"]["train"], "dropped": {value: 1}}
    counted["agreement"] = {"value": 0.5, "stderr": 0.1, "n": 10}
    del counted["groups"]
    values["splits"] = {value: {**counted, "groups": {value: counted}, "domains": {value: counted}}}
    values["columns"] = {value: value}
    side = {"source": value, "revision": value, "dtype": value, "architecture": value}
    values["pair"] = {
        "strong": {**side, "template": value},
        "weak": {**side, "sha256": {value: "0"}},
    }
    values["pair"] |= {"versions": {value: value}, "scoring": {"reduction": value}}
    plugin = {"name": value, "origin": value, "version": value, "sha256": "0"}
    values["routing"] = {"router": value, "plugin": plugin}
    domain = {"name": value, "description": value, "instruction": value, "examples": [value]}
    values["domains"] = [{**domain, "plugin": plugin, "parts": "both"}]
    published = card.Published(REPO, {value: 1}, [value], [], value)
    text = card.render_section(Report.from_values(values), published)
    return text.removeprefix(card.BEGIN).removesuffix(card.END)


@pytest.mark.parametrize("value", HOSTILE)
def test_a_name_on_the_card_is_shown_as_it_is_and_is_nothing_else(value: str) -> None:
    plain, hostile = Reader(named("plain name")), Reader(named(value))
    assert hostile.tags == plain.tags
    if "/" in value or "<!--" in value:  # of what may be a path the last part is shown
        return
    shown = " ".join(printable(value).split())
    before_code = [found.text.partition(" Training ")[0] for found in (plain, hostile)]
    assert before_code[1] == before_code[0].replace("plain name", shown)


@pytest.mark.parametrize("seed", range(20))
def test_text_code_and_cells_show_any_text(seed: int) -> None:
    source = random.Random(seed)
    for _ in range(50):
        text = "".join(source.choices("ab1 .-+=_*`~|\\<>[]()!#&;:/@$'\"\n\x1b", k=12))
        shown = " ".join(printable(text).split())
        assert " ".join(Reader(f"{code(text)}\n").text.split()) == (shown or "(empty)")
        assert Reader(f"{Markdown.escape(text)}\n").text == shown
        cells = Reader(str(table([{"a": code(text), "b": text, "c": 1}] * 2)))
        assert len([tag for tag in cells.tags if tag.startswith("td")]) == 6
        expected = " ".join(f"{shown or '(empty)'} {shown} 1".split())
        assert cells.text.replace(" ", "") == ("abc" + 2 * expected).replace(" ", "")
        assert RENDERER.render(str(fence(text))).count("<pre>") == 1


def test_what_is_put_into_markdown_is_escaped_by_itself() -> None:
    assert Markdown("**{}**").format("*a*") == "**\\*a\\***"
    assert Markdown(", ").join(["<b>", Markdown("**b**")]) == "&lt;b&gt;, **b**"


def test_the_terminal_shows_names_without_what_steers_it(tmp_path: Path) -> None:
    name = "\x1b[2J\x9b1mgroup\r\nforged: line\u202e"
    values = report()
    statistics = {**values["splits"]["train"], "chosen_longer": None}
    statistics["longer"] = statistics["accuracy"]
    values["splits"] = {"train": {**statistics, "groups": {name: statistics}}}
    text = str(Report.from_values(values))
    assert "  group \ufffd[2J\ufffd1mgroup  forged: line\ufffd:" in text.splitlines()
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": "q\x9b", "domain": "chat"}) + "\n", encoding="utf-8")
    row = CliRunner().invoke(main, ["route", str(file), "--router", "keyword", "--json"])
    assert "\\u009b" in row.output and json.loads(row.output)["prompt"] == "q\x9b"
    wrong = CliRunner().invoke(main, ["route", "--router", "\x1b[31mkeyword"])
    assert wrong.exit_code == 1 and "\x1b" not in wrong.output
    data = datasets.Dataset.from_dict({"\x1b[31mprompt": ["a"]})
    data.to_json(tmp_path / "rows.jsonl")
    arguments = [str(tmp_path / "rows.jsonl"), str(tmp_path / "out"), "--strong", "a"]
    refused = CliRunner().invoke(main, ["annotate", *arguments, "--weak", "b"])
    assert refused.exit_code == 1 and "\x1b" not in refused.output


def test_lines_of_json_escape_what_steers_a_terminal_and_lose_nothing() -> None:
    value: dict[str, Any] = {"a\x7f": ["\ud800", "é\u3000漢\u2028", "\u202e", 1.5, None]}
    line = json_line(value)
    assert json.loads(line) == value and "é\u3000漢" in line
    assert printable(line) == line


def test_a_token_that_was_typed_is_in_no_file_of_the_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "no-usual-token")
    values = report(input="/data/hf_datasets/x")
    values["options"]["note"] = "no-usual-token hf_oauth_abc.DEF-123456"
    values["splits"]["train"]["groups"]["token"] = {"rows": 1}
    written = b"".join(Report.from_values(values).files().values()).decode()
    for secret in (TOKEN, "no-usual-token", "abc.DEF"):
        assert secret not in written
    assert '"token": {' in written  # a group of this name stays
    assert "/data/hf_datasets/x" in written  # as does what only begins like one
