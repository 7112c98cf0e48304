"""The pages, pictures and tables of a study: complete, escaped, the same each time."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from helpers.small_disk import small_disk
from helpers.studies import known_model, random_margins, study_rows
from markdown_it import MarkdownIt

from drsow_plugin import ConfigError, Study, StudyReport
from drsow_plugin.errors import StorageError
from drsow_plugin.study import output
from drsow_plugin.study.output import save
from drsow_plugin.study.pages import blocks, to_html, to_markdown
from drsow_plugin.study.plots import draw

HOSTILE = "<script>alert(1)</script> $x$ [a](http://b) `c`"
KINDS = ("h1", "h2", "p", "table", "tr", "th", "td", "img")
FILES = {
    *("study.json", "study.md", "study.html", "models.csv", "pairs.csv", "parts.csv"),
    *(f"{name}.{kind}" for name in ("accuracy", "gap-1", "gap-2") for kind in ("png", "svg")),
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> StudyReport:
    margins = random_margins(4, 24)
    models: dict[str, Any] = {f"m{n}": known_model(margins[n], f"m{n}") for n in range(3)}
    models[HOSTILE] = known_model(margins[3], HOSTILE)
    models["gone"] = "/there/is/<b>nothing</b>"
    rows = study_rows(24, subset=["one"] * 12 + [HOSTILE] * 12)
    rows[3]["chosen"] = None
    made = Study(models, resamples=100)
    cache = str(tmp_path_factory.mktemp("cache"))
    return made.run(rows, name=HOSTILE, cache_dir=cache)


class Tags(HTMLParser):
    """Collects the tags of a page, with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.slow
def test_a_folder_holds_all_of_it_and_tables_agree_with_the_figures(
    report: StudyReport, tmp_path: Path
) -> None:
    assert set(save(report, tmp_path / "out")) == FILES
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    values = json.loads((tmp_path / "out" / "study.json").read_text())
    assert values == report.values()
    tables = {
        name: list(csv.DictReader(io.StringIO((tmp_path / "out" / name).read_text())))
        for name in ("models.csv", "pairs.csv", "parts.csv")
    }
    assert [row["model"] for row in tables["models.csv"]] == ["m0", "m1", "m2", HOSTILE]
    for row, pair in zip(tables["pairs.csv"], report.pairs, strict=True):
        assert float(row["accuracy"]) == pair.accuracy.value and row["strong"] == pair.strong
        assert {"gap likelihood accuracy", "gap log-likelihood"} <= set(row)
    assert len(tables["parts.csv"]) == len(report.pairs) * 2


@pytest.mark.slow
def test_pictures_are_pictures_and_the_same_each_time(report: StudyReport) -> None:
    first, second = draw(report), draw(report)
    assert first == second
    for name, content in first.items():
        if name.endswith(".png"):
            assert content.startswith(b"\x89PNG")
        else:
            assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"


def test_the_html_page_needs_nothing_else_and_runs_nothing(report: StudyReport) -> None:
    page = Tags(to_html(list(blocks(report)), draw(report)))
    kinds = {tag for tag, _ in page.tags}
    assert kinds <= {"html", "head", "meta", "title", "style", "body", *KINDS}
    sources = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 3 and all(s.startswith("data:image/svg+xml;base64,") for s in sources)
    assert not any("href" in attributes for _, attributes in page.tags)
    assert page.text.count(HOSTILE) > 3 and "<b>nothing</b>" in page.text


def test_the_markdown_page_shows_names_as_they_are(report: StudyReport) -> None:
    text = to_markdown(list(blocks(report)))
    page = Tags(MarkdownIt("commonmark").enable("table").render(text))
    assert "script" not in {tag for tag, _ in page.tags} and "a" not in {t for t, _ in page.tags}
    assert page.text.count(HOSTILE) > 3
    pictures = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert pictures == ["accuracy.png", "gap-1.png", "gap-2.png"]


def test_both_pages_say_what_is_missing_and_what_was_left_out(report: StudyReport) -> None:
    for text in (
        to_markdown(list(blocks(report))),
        to_html(list(blocks(report)), draw(report)),
        str(report),
    ):
        assert re.search(r"bad row\W.*?1|1 rows, bad row", text, re.DOTALL)
        assert "gone" in text and "nothing" in text
        assert f"{100 * report.pairs[0].accuracy.value:.1f}" in text
        assert "is to be expected of a pair that is chosen so" in text


@pytest.mark.slow
def test_models_that_cannot_be_told_apart_have_no_law_and_a_page_still(tmp_path: Path) -> None:
    same = [1.0] * 8
    models = {name: known_model(same, name) for name in ("a", "b", "c")}
    report = Study(models, resamples=100).run(study_rows(8), cache_dir=str(tmp_path / "cache"))
    assert all(pair.ties == 8 and pair.accuracy.value == 0.5 for pair in report.pairs)
    assert all(law.pearson is None for law in report.laws)
    save(report, tmp_path / "out")
    assert "not defined" in (tmp_path / "out" / "study.md").read_text()


@pytest.mark.slow
def test_a_folder_of_other_rows_or_of_anything_else_is_left_as_it_is(
    report: StudyReport, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    save(report, out)
    save(dataclasses.replace(report, date="2030-01-01"), out)
    assert json.loads((out / "study.json").read_text())["date"] == "2030-01-01"
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(ConfigError, match="holds a study of other rows"):
        save(dataclasses.replace(report, data_sha256="0"), out)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds no study"):
        save(report, tmp_path / "mine")
    with pytest.raises(ConfigError, match="is a file"):
        save(report, tmp_path / "mine" / "notes.txt")


@pytest.mark.fault(
    "disk",
    "the disk of the output of a study is full",
    "one line; log-probs are kept, and with room the same study writes it",
)
@pytest.mark.slow
def test_a_full_disk_is_told_and_leaves_nothing_half_written(
    report: StudyReport, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 20) as disk:
        with pytest.raises(
            StorageError, match=r"^[^\n]*out cannot be written: No space left on de"
        ):
            save(report, disk.path / "out")
        assert not list((disk.path / "out").iterdir())
        disk.resize(8000)
        assert set(save(report, disk.path / "out")) == FILES


@pytest.mark.fault(
    "kill", "Ctrl-C while the pages of a study are written", "the same study writes them again"
)
@pytest.mark.slow
def test_a_folder_whose_writing_was_interrupted_is_written_again(
    report: StudyReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", stop_at("study.md", Path.replace))
        with pytest.raises(KeyboardInterrupt):
            save(report, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {output.REPORT}
    assert set(save(report, tmp_path / "out")) == FILES
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def stop_at(name: str, replace: Any) -> Any:
    def stop(self: Path, target: Path) -> Path:
        if target.name == name:
            raise KeyboardInterrupt
        return replace(self, target)  # type: ignore[no-any-return]

    return stop
