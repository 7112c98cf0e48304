"""The page in a real browser: used with mouse and keyboard, in both schemes and three widths."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import reported
from helpers.browser import Browser, browser

pytestmark = pytest.mark.pages

MINUS, NONE, END = "\u2212", "\u2013", "\u2039end of turn\u203a"
ENTER, ESCAPE, LEFT, RIGHT = "\ue007", "\ue00c", "\ue012", "\ue014"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def listed() -> list[dict[str, Any]]:
    made = reported.rows(120)
    for number in (3, 50):
        made[number] |= dict.fromkeys(
            ["drsow_margin", "drsow_chosen_reward", "drsow_chosen_strong_logprob"]
        )
        made[number]["drsow_status"] = "too long: strong: chosen: 9000 tokens"
    made[7] |= {"drsow_margin": 0.0, "drsow_chosen_reward": 0.0}
    return made


@pytest.fixture(scope="module")
def page(listed: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reported.saved(tmp_path_factory.mktemp("page") / "page.html", listed)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    listed = [*reported.hostile_rows(), *reported.rows(60)]
    listed[9] |= {"chosen": "Naïve 你好 👩‍👩‍👧\n\tok ", "rejected": " مرحبا"}
    path = tmp_path_factory.mktemp("coloured") / "page.html"
    return reported.saved(path, listed, drsow=reported.pair_of_tokenizers())


def column(chromium: Browser, name: str) -> list[str]:
    return [cell.get_property("textContent") for cell in chromium.all(f"#rows td.c-{name}")]


def numbers(cells: list[str]) -> list[float]:
    return [float(text.replace(MINUS, "-").replace(",", "")) for text in cells if text != NONE]


def choose(chromium: Browser, name: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(chromium.one(f"#{name}")).select_by_value(value)


def search(chromium: Browser, words: str) -> None:
    field = chromium.one("#search")
    field.clear()
    field.send_keys(words)
    time.sleep(1)  # the page waits for the end of a word


def margins(listed: list[dict[str, Any]]) -> list[float]:
    return [row["drsow_margin"] for row in listed if row["drsow_margin"] is not None]


def test_a_click_on_a_heading_sorts_and_another_turns_it_round(
    chromium: Browser, page: Path, listed: list[dict[str, Any]]
) -> None:
    chromium.open(page)
    chromium.one("[data-sort=margin]").click()
    expected = sorted(margins(listed), reverse=True)[:50]
    assert numbers(column(chromium, "margin")) == pytest.approx(expected, abs=0.006)
    chromium.one("[data-sort=margin]").click()
    expected = sorted(margins(listed))[:50]
    assert numbers(column(chromium, "margin")) == pytest.approx(expected, abs=0.006)
    assert chromium.one("th.c-margin").get_attribute("aria-sort") == "ascending"


@pytest.mark.parametrize("key", ["surprise", "length"])
def test_rows_are_sorted_by_surprise_and_by_length(chromium: Browser, page: Path, key: str) -> None:
    chromium.open(page)
    choose(chromium, "sort", key)
    found = numbers(column(chromium, key))
    assert found == sorted(found, reverse=True) and len(set(found)) > 10


def test_the_most_surprising_row_is_the_one_that_is_most_wrong(
    chromium: Browser, page: Path, listed: list[dict[str, Any]]
) -> None:
    chromium.open(page)
    choose(chromium, "sort", "surprise")
    found = numbers(column(chromium, "margin"))
    assert found[0] == pytest.approx(min(margins(listed)), abs=0.006)


def test_rows_are_sorted_by_domain(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    choose(chromium, "sort", "domain")
    found = column(chromium, "domain")
    assert found == ["law"] * 40 + ["maths"] * 10


def test_filters_leave_the_rows_that_they_name(
    chromium: Browser, page: Path, listed: list[dict[str, Any]]
) -> None:
    chromium.open(page)
    choose(chromium, "verdict", "wrong")
    wrong = [row for row in listed if (row["drsow_margin"] or 0) < 0]
    assert chromium.text("#count") == f"{len(wrong)} of 120 rows"
    choose(chromium, "group", "part 1")
    both = [row for row in wrong if row["part"] == "part 1"]
    assert chromium.text("#count") == f"{len(both)} of 120 rows"
    assert {*column(chromium, "verdict")} == {"✗ wrong"}
    choose(chromium, "group", "")
    choose(chromium, "verdict", "none")
    assert chromium.text("#count") == "2 of 120 rows"
    choose(chromium, "verdict", "tie")
    assert column(chromium, "verdict") == ["= tie"]


def test_the_search_finds_words_of_prompts_and_responses(
    chromium: Browser, page: Path, listed: list[dict[str, Any]]
) -> None:
    chromium.open(page)
    search(chromium, listed[77]["rejected"].upper())
    assert listed[77]["prompt"] in column(chromium, "prompt")
    search(chromium, "nothing holds this")
    assert chromium.text("#count") == "0 of 120 rows" and not column(chromium, "prompt")


def test_a_bar_of_the_margins_leaves_the_rows_that_it_counts(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    bar = chromium.all("#chart-margins rect[data-mark=bad]")[1]
    counted = int(re.match(r"\d+", bar.get_property("textContent"))[0])  # type: ignore[index]
    chromium.run("arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", bar)
    assert chromium.text("#count") == f"{counted} of 120 rows"
    assert {*column(chromium, "verdict")} == {"✗ wrong"}
    chromium.one("#clear").click()
    assert chromium.text("#count") == "120 rows"


def test_pages_of_the_table_are_turned(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    first = column(chromium, "prompt")
    chromium.one("#after").click()
    assert len(first) == 50 and not set(first) & set(column(chromium, "prompt"))
    chromium.one("#after").click()
    assert len(column(chromium, "prompt")) == 20
    assert not chromium.one("#after").is_enabled()
    assert chromium.text("#where") == "page 3 of 3"


def test_a_row_opens_has_an_address_and_closes(
    chromium: Browser, page: Path, listed: list[dict[str, Any]]
) -> None:
    chromium.open(page)
    chromium.all("#rows a")[4].click()
    assert chromium.until(lambda: chromium.driver.current_url.endswith("#row=train-4"))
    assert chromium.until(lambda: chromium.all("dialog[open]"))
    assert listed[4]["chosen"] in chromium.text("dialog[open] .side.chosen .text")
    assert listed[4]["rejected"] in chromium.text("dialog[open] .side.rejected .text")
    assert "--tokens true" in chromium.text("dialog[open]")
    chromium.press(ESCAPE)
    assert chromium.until(lambda: not chromium.all("dialog[open]"))
    assert chromium.until(lambda: "#" not in chromium.driver.current_url)
    focused = chromium.driver.switch_to.active_element
    assert focused.get_attribute("data-at") == "4"


def test_an_address_of_a_row_opens_it_and_going_back_closes_it(
    chromium: Browser, page: Path
) -> None:
    chromium.open(page, "#row=train-99")
    assert "Row train-99" in chromium.text("dialog[open] h2")
    chromium.open(page, "#row=no-such-row")
    assert not chromium.all("dialog[open]")
    chromium.all("#rows a")[0].click()
    assert chromium.until(lambda: chromium.all("dialog[open]"))
    chromium.driver.back()
    assert chromium.until(lambda: not chromium.all("dialog[open]"))


def test_all_is_done_with_the_keyboard_alone(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    chromium.press("/")
    assert chromium.driver.switch_to.active_element.get_attribute("id") == "search"
    chromium.press(ESCAPE)
    chromium.press("j", "j", "j", "k")
    chromium.press(ENTER)
    assert chromium.until(lambda: "Row train-1" in chromium.text("dialog[open] h2"))
    chromium.press(RIGHT)
    assert chromium.until(lambda: "Row train-2" in chromium.text("dialog[open] h2"))
    chromium.press(LEFT)
    assert chromium.until(lambda: "Row train-1" in chromium.text("dialog[open] h2"))
    chromium.press(ESCAPE)
    assert chromium.until(lambda: not chromium.all("dialog[open]"))


def test_no_text_of_the_data_is_ever_run_and_all_are_shown(
    chromium: Browser, coloured: Path
) -> None:
    chromium.open(coloured)
    chromium.complaints()
    for number, text in enumerate(reported.HOSTILE):
        chromium.open(coloured, f"#row=train-{number}")
        assert chromium.text("dialog .prompt .text") == text
        spans = [span.get_property("textContent") for span in chromium.all(".chosen .t")]
        assert "".join(spans) == f"yes {text}{END}"
        assert f"Notes: {text}" in chromium.text("dialog .note")
    assert chromium.run("return window.broken === undefined") is True
    assert not chromium.all("main img, dialog img, main a[href^=javascript]")
    assert chromium.complaints() == []


def test_tokens_show_their_numbers_on_hover_in_text_and_by_key(
    chromium: Browser, coloured: Path
) -> None:
    chromium.open(coloured, "#row=train-9")
    spans = chromium.all(".chosen .t")
    assert "".join(s.get_property("textContent") for s in spans).startswith(
        "Naïve 你好 👩‍👩‍👧\n\tok "
    )
    titles = [span.get_attribute("title") for span in spans]
    assert all(re.search(f"strong {MINUS}.*weak {MINUS}.*difference", said) for said in titles[:-1])
    chromium.one("#numbers").click()
    shown = chromium.run(
        "return getComputedStyle(document.querySelector('.chosen .t'), '::after').content"
    )
    assert re.fullmatch(rf'"[+{MINUS}]?\d+\.\d"', shown)
    chromium.one(".chosen .tokens").click()
    chromium.press(RIGHT)
    assert chromium.text(".chosen .readout") in titles
    before = chromium.all(".chosen .t")[1].get_attribute("data-n")
    chromium.one("[value=weak]").click()
    after = chromium.all(".chosen .t")[1].get_attribute("data-n")
    assert before != after and after.startswith(MINUS)


def test_what_the_deciding_tokens_add_is_what_the_table_of_all_says(
    chromium: Browser, coloured: Path
) -> None:
    chromium.open(coloured, "#row=train-12")
    for summary in chromium.all(".side summary"):
        summary.click()
    time.sleep(0.2)
    chosen = numbers([c.text for c in chromium.all(".chosen .all td:nth-child(4)")])
    rejected = numbers([c.text for c in chromium.all(".rejected .all td:nth-child(4)")])
    both = sorted([*chosen, *(-value for value in rejected)], key=abs, reverse=True)
    top = numbers([cell.text for cell in chromium.all(".deciding td:nth-child(5)")])
    assert top == pytest.approx(both[: len(top)], abs=0.006) and len(top) == 12
    assert chromium.text(".deciding td:nth-child(2)").count("chosen") > 0


@pytest.mark.parametrize("width", [320, 800, 1920])
@pytest.mark.parametrize("fragment", ["", "#row=train-9"])
def test_nothing_is_cut_at_any_width(
    chromium: Browser, coloured: Path, width: int, fragment: str
) -> None:
    chromium.open(coloured, fragment, width=width)
    sizes = "return [document.documentElement, document.querySelector('dialog')].map("
    beyond = chromium.run(f"{sizes}e => e.scrollWidth - e.clientWidth)")
    assert beyond == [0, 0]
    assert all(box.rect["x"] + box.rect["width"] <= width for box in chromium.all("main > *"))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("fragment", ["", "#row=train-9"])
@pytest.mark.parametrize("width", [320, 1280])
def test_axe_finds_names_contrast_and_order_right(
    chromium: Browser, coloured: Path, *, dark: bool, fragment: str, width: int
) -> None:
    chromium.open(coloured, fragment, width=width, dark=dark)
    assert chromium.violations() == []


def test_both_schemes_have_their_own_colours(chromium: Browser, page: Path) -> None:
    grounds = []
    for dark in (False, True):
        chromium.open(page, dark=dark)
        grounds.append(chromium.run("return getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(255, 255, 255)", "rgb(23, 27, 32)"]


def test_nothing_is_asked_of_the_network(chromium: Browser, coloured: Path) -> None:
    chromium.open(coloured)
    chromium.complaints()
    chromium.all("#rows a")[0].click()
    assert {address.partition("#")[0] for address in chromium.requests()} == {coloured.as_uri()}
    assert chromium.run("return performance.getEntriesByType('resource').length") == 0
    assert chromium.complaints() == []


def test_two_thousand_rows_open_within_two_seconds(chromium: Browser, tmp_path: Path) -> None:
    words = "The quick brown fox jumps over the lazy dog, and then some more of it. " * 30
    texts = [f"{number} {words}" for number in range(2000)]
    listed = reported.rows(2000, chosen=texts, rejected=texts)
    page = reported.saved(tmp_path / "page.html", listed)
    assert page.stat().st_size > 8_000_000
    took = [math.inf]
    while min(took) >= 2000 and len(took) < 7:  # other work on the machine only makes it longer
        chromium.open(page)
        assert chromium.text("#count") == "2,000 rows"
        timing = "return performance.getEntriesByType('navigation')[0].loadEventEnd"
        took.append(chromium.run(timing))
    assert min(took) < 2000, took
