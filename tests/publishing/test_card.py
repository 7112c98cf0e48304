"""The card: our section, and merging it into a README; no network."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.fakes import fake_annotator
from helpers.reports import REPO, report
from helpers.routing_plugin import PLUGIN, pairs

from drsow_plugin import Report
from drsow_plugin.publishing import card
from drsow_plugin.publishing import readme as readmes
from drsow_plugin.publishing.publish import front_matter, size_category
from drsow_plugin.redaction import without_local_paths


def made(**changes: Any) -> Report:
    return Report.from_values(report(**changes))


def redacted(report: Report) -> Report:
    return Report.from_values(without_local_paths(report.values))


@pytest.mark.parametrize(
    "damaged",
    [
        "A\n{begin}\nB\n",
        "A\n{end}\nB\n",
        "A\n{end}\nB\n{begin}\nC",
        "A\n{begin}\nB\n{end}\nC\n{begin}\nD\n{end}\nE\n",
        "A\n{begin}\nB\n{begin}\nC\n{end}\n",
    ],
)
def test_damaged_markers_lose_no_text_and_are_whole_again(damaged: str) -> None:
    readme = damaged.format(begin=readmes.BEGIN, end=readmes.END)
    section = f"{readmes.BEGIN}\nours\n{readmes.END}"
    merged = readmes.merge(readme, section, {"tags": ["drsow"]})
    text = damaged.format(begin="", end="").split()
    assert [line for line in merged.split("\n") if line in "ABCDE" and line] == text
    assert merged.count(readmes.BEGIN) == merged.count(readmes.END) == merged.count("ours") == 1
    again = readmes.merge(merged, section.replace("ours", "newer"), {"tags": ["drsow"]})
    assert again == merged.replace("ours", "newer")


def test_markers_inside_a_line_are_text_of_the_user() -> None:
    readme = f"Our section is between `{readmes.BEGIN}` and `{readmes.END}`.\n"
    merged = readmes.merge(readme, f"{readmes.BEGIN}\nours\n{readmes.END}", {})
    assert readme in merged and merged.endswith(f"\n\n{readmes.BEGIN}\nours\n{readmes.END}\n")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("tags:\n- a  # why\n\n# of b\nb: 1", {"tags": ["a", "drsow"], "b": 1}),
        ("{tags: a, b: 1}", {"tags": ["a", "drsow"], "b": 1}),
        ("b: |\n  x\n  y\ntags:", {"tags": ["drsow"], "b": "x\ny\n"}),
        ("tags: drsow\nb: é", {"tags": ["drsow"], "b": "é"}),
        ("  tags: []\n  b: 1", {"tags": ["drsow"], "b": 1}),
    ],
)
def test_front_matter_in_any_style_takes_the_tags(before: str, after: dict[str, Any]) -> None:
    merged = readmes.merge(f"---\n{before}\n---\ntext", "S", {"tags": ["drsow"]})
    found = merged.split("---\n")
    assert yaml.safe_load(found[1]) == after
    assert found[2] == "text\n\nS\n"
    assert "# of b\nb: 1" in found[1] or "#" not in before


@pytest.mark.parametrize(
    ("kind", "relabel", "said", "creators"),
    [
        ("pairs", "keep", "the labels are its own", "found"),
        ("pairs", "swap", "labels of this data set were made by", "machine-generated"),
        ("candidates", None, "labels of this data set were made by", "machine-generated"),
        ("single", None, "responses of this data set were scored by", "machine-generated"),
    ],
)
def test_the_card_says_whose_labels_they_are(
    kind: str, relabel: str | None, said: str, creators: str
) -> None:
    values = made(kind=kind, annotation={"relabel": relabel} if relabel else {})
    published = card.Published(REPO, {"train": 1}, ["prompt"], [])
    text = " ".join(card.render_section(values, published).split())
    assert said in text
    assert ("no annotators" in text) == ("labels of this data set were made" in said)
    assert front_matter(values, published, {})["annotations_creators"] == [creators]


def test_what_follows_from_the_rows_is_written_anew_and_the_users_own_stays() -> None:
    section = f"{readmes.BEGIN}\nours\n{readmes.END}"
    first = {"annotations_creators": ["found"], "size_categories": ["n<1K"], "license": "mit"}
    second = {
        "annotations_creators": ["machine-generated"],
        "size_categories": ["1K<n<10K"],
        "license": "apache-2.0",
    }
    published = readmes.merge("", section, first)
    again = yaml.safe_load(readmes.merge(published, section, second).split("---")[1])
    assert again == {**second, "license": "mit", "tags": []}
    edited = published.replace("- found", "- crowdsourced")
    kept = yaml.safe_load(readmes.merge(edited, section, second).split("---")[1])
    assert kept["annotations_creators"] == ["crowdsourced"]
    others = readmes.merge("---\nannotations_creators: [found]\n---\n", section, second)
    assert yaml.safe_load(others.split("---")[1])["annotations_creators"] == ["found"]


def test_absent_values_leave_no_trace_on_the_card() -> None:
    bare = {"source": None, "revision": None, "sha256": None}
    published = card.Published(REPO, {"train": 1}, ["prompt"], [])
    for kind in ("pairs", "candidates", "single"):
        minimum = {
            "kind": kind,
            "pair": {"strong": {"source": "org/strong"}, "weak": bare},
            "splits": {"train": {"rows": 1, "accuracy": None, "groups": None}},
        }
        text = card.render_section(Report.from_values(minimum), published)
        assert "None" not in text and "Undefined" not in text
        assert ("DPOTrainer" in text) == (kind != "single")
        assert not re.search(r"\n\n\n|: *\.\n|``\n\n``", text)
        tables = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
        assert tables == [
            "|  | strong | weak |",
            "| model | [org/strong](https://huggingface.co/org/strong) |  |",
            "| split | rows |",
            "| train | 1 |",
        ]
    assert "None" not in card.render_section(made(annotation=None, domains=None), published)


def test_the_card_shows_of_a_local_path_only_its_last_part() -> None:
    published = card.Published(REPO, {"train": 1}, ["prompt"], [])
    text = card.render_section(made(input="/home/someone/a.jsonl, b.csv"), published)
    assert "`weak`" in text and "`a.jsonl`, `b.csv`" in text and "/home" not in text
    assert "[org/strong](https://huggingface.co/org/strong)" in text


def test_a_quoted_prompt_cannot_end_the_section_or_its_code_block() -> None:
    published = card.Published(REPO, {"train": 1}, ["prompt"], [])
    domain = {"name": "x", "instruction": f"````\n{readmes.END}\n", "examples": ["`a`", {"q": 1}]}
    text = card.render_section(made(domains=[domain]), published)
    assert text.count(readmes.END) == 1 and "`````text\n````" in text


def test_the_card_says_what_sent_prompts_to_domains_and_what_they_added(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN)
    annotate = fake_annotator(router="mine", plugin=str(plugin), domain_column="kind")
    annotate.run(pairs(), cache_dir=str(tmp_path / "cache"))
    assert annotate.report is not None
    published = card.Published(REPO, {"train": 12}, ["prompt"], [])
    text = card.render_section(redacted(annotate.report), published)
    assert "The router `mine` (mine.py, SHA-256 `" in text and str(tmp_path) not in text
    assert "Be exact." in text and "user: Why 0?\n\nassistant: So 0." in text
    assert "| `strong-only` | mine.py | both | strong model |" in text
    assert "Prompts of `train` by domain:" in text and "In `train` it agrees with 80.0" in text
    assert "None" not in text
    only = fake_annotator(router="mine", plugin=str(plugin), domain_parts="examples")
    only.run(pairs(), cache_dir=str(tmp_path / "cache"))
    assert only.report is not None
    told = replace(only.report, command=f"drsow annotate --plugin a.b+{plugin} x")
    text = card.render_section(redacted(told), published)
    assert "Be exact." not in text and "So 0." in text and "--plugin a.b+mine.py" in text


@pytest.mark.parametrize(
    ("rows", "name"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**6, "1M<n<10M")],
)
def test_sizes_are_named_as_the_hub_names_them(rows: int, name: str) -> None:
    assert size_category(rows) == name


def test_no_address_of_a_server_is_published_nor_where_its_key_is() -> None:
    url, place = "http://gpu-7.internal:8000/v1", "SECRET_PLACE"
    report = {
        "options": {"strong": "a/b", "strong_server": [url], "strong_server_key": place},
        "pair": {"strong": {"source": "a/b", "server": [url], "served": {"model": "b"}}},
        "command": f"drsow annotate a/data out --strong a/b --strong-server {url} "
        f"--strong-server-key={place} --strong-server-model b",
        "groups": {"server": {"rows": 3}},
    }
    kept = without_local_paths(report)
    assert url not in str(kept) and place not in str(kept)
    assert kept["options"] == {"strong": "a/b"}
    assert kept["pair"]["strong"] == {"source": "a/b", "served": {"model": "b"}}
    assert kept["groups"] == {"server": {"rows": 3}}
    assert kept["command"].endswith("--strong-server-model b")
