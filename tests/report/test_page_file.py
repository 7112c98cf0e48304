"""The page as a file: what it says, what it shows, and that no text of the data gets out."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from helpers import reported, tiny
from helpers.labelled import pair, pairs_of
from helpers.wrote import DATA, Tags, page_data

from drsow_plugin import DrSoW
from drsow_plugin.engines.fake import FakeEngine
from drsow_plugin.errors import ConfigError, DataError
from drsow_plugin.quality.labelled import LabelledData
from drsow_plugin.report.charts import RIGHT, margins
from drsow_plugin.report.choice import choose
from drsow_plugin.report.findings import find
from drsow_plugin.report.options import PageConfig, parse_page
from drsow_plugin.report.page import embedded
from drsow_plugin.report.pictures import pictures
from drsow_plugin.report.verdict import verdict
from drsow_plugin.report.write import check_target, material_of, write_page


def html_of(listed: list[dict[str, Any]], **options: Any) -> str:
    config = PageConfig(**options)
    return write_page(reported.material(listed, config), config).html


def test_the_data_in_a_page_is_what_it_was_and_ends_no_script() -> None:
    html = html_of(reported.hostile_rows())
    parsed = Tags(html)
    assert parsed.tags.count("script") == 2 and "img" not in parsed.tags
    texts = [row["q"][0]["c"] for row in page_data(html)["rows"]]
    assert texts == list(reported.HOSTILE)


def test_json_that_is_embedded_has_no_sign_of_html_and_no_half_of_a_pair() -> None:
    value = {"a": ["</script><!--", "&amp;", "\u2028", "\ud83d", float("nan")]}
    text = str(embedded(value))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text.encode()) == {"a": [*value["a"][:-1], None]}


def test_a_page_is_small_beside_its_data_and_has_the_hashes_of_its_parts() -> None:
    html = html_of(reported.rows(200))
    rest = html.replace(Tags(html).texts[DATA], "")
    assert len(rest.encode()) < 300_000
    assert "default-src 'none'" in html and "unsafe-inline" not in html
    assert not re.search(r"(?:src|href)=", html)


def test_tokens_add_up_by_the_reduction_that_they_were_scored_with() -> None:
    engines = FakeEngine(1000), FakeEngine(10)
    drsow = DrSoW(*engines, tokenizer=tiny.tokenizer("bytes"), reduction="mean")
    texts = ["The quick", "a lazy dog"]
    found = [reward.reward for reward in drsow.score(["Hello?"] * 2, texts)]
    row = {**pair((found[0], 5), (found[1], 5)), "prompt": "Hello?"}
    row |= {"chosen": texts[0], "rejected": texts[1]}
    wrong = {**row, "drsow_chosen_reward": found[0] + 0.04, "drsow_margin": 0.04}
    material = reported.material([row, wrong])  # without a report, which would tell the reduction
    page = page_data(write_page(material, PageConfig(), drsow).html)
    assert page["reduction"] == "mean"
    chosen = [row["a"][0] for row in page["rows"]]
    assert "x" not in chosen[0] and "nats a token" in chosen[1]["x"]
    tokens = chosen[0]["k"]
    strong, weak = (sum(tokens[side]) / sum(tokens[f"{side}n"]) for side in "sw")
    assert strong - weak == pytest.approx(found[0], abs=1e-3)


def test_two_thousand_of_many_rows_are_shown_by_a_rule_that_is_named() -> None:
    material = reported.material(reported.rows(5000))
    numbers, said = choose(material, 2000, "mixed", 0)
    assert len(set(numbers.tolist())) == 2000 and (np.diff(numbers) > 0).all()
    counts = [int(text.replace(",", "")) for text in re.findall(r"([\d,]+) (?:with|at)", said)]
    assert sum(counts) == 2000 and min(counts) == 500
    assert said.startswith("2,000 of 5,000 rows are shown (mixed): 500 with the smallest distance")


@pytest.mark.parametrize("rule", ["contested", "right", "wrong"])
def test_each_rule_takes_the_first_of_its_order(rule: str) -> None:
    margins = np.random.default_rng(3).normal(size=300)
    data = LabelledData.of(pairs_of(margins.tolist()))
    config = parse_page({"rule": rule, "rows": "20"})
    found, _ = choose(material_of(data, config), config.rows, config.rule, config.seed)
    order = {"contested": np.abs(margins), "right": -margins, "wrong": margins}[rule]
    assert sorted(found.tolist()) == sorted(np.argsort(order)[:20].tolist())


def test_random_rows_are_the_same_for_the_same_seed_and_others_for_another() -> None:
    material = reported.material(reported.rows(300))
    one, again = (choose(material, 40, "random", 1)[0].tolist() for _ in range(2))
    assert one == again != choose(material, 40, "random", 2)[0].tolist()
    assert choose(material, 3, "first", 0)[0].tolist() == [0, 1, 2]


def test_the_figures_of_a_large_data_set_are_those_of_a_sample_that_is_stated() -> None:
    config = PageConfig(sample=300, rows=10)
    data = LabelledData.of(pairs_of(np.ones(5000).tolist()))
    material = material_of(data, config)
    html = write_page(material, config).html
    assert material.rows == 300 and len(material.pairs) == 300
    assert "a random sample of 300 of 5,000 rows" in html
    assert len(page_data(html)["rows"]) == 10


def test_accuracy_and_the_longer_response_are_as_counted_by_hand() -> None:
    data = LabelledData.of(pairs_of([1.0, -2.0, 0.0, 3.0], [5, 5, -5, 0]))
    found = find(material_of(data, PageConfig()))
    assert found.whole is not None and found.ties == 1
    assert found.whole.accuracy.value == 2.5 / 4 and found.whole.longer.value == 2.5 / 4


def test_parts_are_counted_by_domain_and_by_group() -> None:
    listed = reported.rows(90)
    found = find(reported.material(listed))
    counted = {part.name: part.accuracy.n for part in found.domains}
    assert counted == {"maths": 30, "law": 30, "(none)": 30}
    for part in found.groups:
        margins = [row["drsow_margin"] for row in listed if row["part"] == part.name]
        assert part.accuracy.value == pytest.approx(np.mean(np.sign(margins) / 2 + 0.5))


def test_bars_of_the_margins_count_every_pair_once() -> None:
    listed = reported.rows(400)
    material = reported.material(listed)
    chart = pictures(material, find(material))[0]
    counts = [[int(cell.replace(",", "")) for cell in row[1:]] for row in chart.rows]
    margins = np.array([row["drsow_margin"] for row in listed])
    assert np.sum(counts, axis=0).tolist() == [(margins > 0).sum(), (margins < 0).sum()]
    drawn = re.findall(r"<title>([\d,]+) pairs", str(chart.body))
    assert sum(int(text.replace(",", "")) for text in drawn) == (margins != 0).sum()


def test_pictures_are_files_of_their_own_too() -> None:
    from xml.dom.minidom import parseString

    material = reported.material(reported.hostile_rows() + reported.rows(40))
    drawn = pictures(material, find(material))
    assert [c.name for c in drawn] == ["margins", "lengths", "calibration", "by-domain", "by-group"]
    for chart in drawn:
        root = parseString(chart.file().decode()).documentElement
        assert root is not None and root.tagName == "svg"
        assert not root.getElementsByTagName("script")


@pytest.mark.parametrize(
    ("margins", "lengths", "said"),
    [
        ([1.0] * 60, [-3, 3] * 30, "beats picking the longer response: +50.0 points"),
        ([1.0] * 60, [-3] * 60, "more often than a coin. It decides as picking the shorter"),
        ([1.0, -1.0] * 40, [3, -3] * 40, "A coin cannot be ruled out. It decides as picking"),
        (
            [-1.0] * 60,
            [3] * 60,
            "wrong more often than not; picking the longer response does better",
        ),
        ([1.0, -1.0] * 60, [-3, -3, 3, 3] * 30, "it cannot be told apart from picking the longer"),
        ([1.0], [2], "Too few prompts"),
    ],
)
def test_the_verdict_says_no_more_than_the_intervals(
    margins: list[float], lengths: list[int], said: str
) -> None:
    data = LabelledData.of(pairs_of(margins, lengths))
    assert said in (verdict(material_of(data, PageConfig())) or "")


def test_surprise_is_the_log_loss_of_the_calibrated_margin() -> None:
    margins = [2.0, -1.0, 3.0, 0.5, -0.25, 1.5] * 10
    data = LabelledData.of(pairs_of(margins))
    page = page_data(write_page(material_of(data, PageConfig()), PageConfig()).html)
    temperature = page["temperature"]
    for row, margin in zip(page["rows"], margins, strict=True):
        assert row["u"] == pytest.approx(math.log1p(math.exp(-margin / temperature)), abs=1e-4)


def test_single_responses_and_candidates_without_ratings_have_a_page() -> None:
    single = [
        {
            "prompt": f"q{n}",
            "response": f"a{n}",
            **{f"drsow_{name}": float(n) for name in ("reward", "strong_logprob", "weak_logprob")},
            **{f"drsow_{name}": n for name in ("strong_tokens", "weak_tokens")},
            "drsow_status": "ok",
        }
        for n in range(5)
    ]
    html = html_of(single)
    assert "Reward against length" in html and page_data(html)["rows"][3]["a"][0]["v"] == 3.0
    lists = {f"drsow_{n}s": [3.0, 1.0] for n in ("reward", "strong_logprob", "weak_logprob")}
    lists |= {f"drsow_{name}_tokens": [4, 5] for name in ("strong", "weak")}
    row = {"prompt": "q", "responses": ["a", "b"], **lists, "drsow_margin": 2.0}
    row |= {"drsow_chosen_index": 0, "drsow_rejected_index": 1, "drsow_status": "ok"}
    html = html_of([row, {**row, "prompt": "r"}])
    assert "the data does not say which response is better" in html
    assert page_data(html)["rows"][0]["o"] is None
    assert "chosen minus rejected" in html and not re.search(RIGHT + "|although the better", html)
    rated = html_of(reported.rows(5))
    assert "better minus other" in rated and len(re.findall(RIGHT, rated)) > 1


def test_pairs_are_counted_in_whole_numbers() -> None:
    counted = [margins(np.array([10.0, 20.0] * n), gold=False).body for n in (1, 2, 400)]
    ticks = [re.findall(r'text-anchor="end">([^<]+)<', body) for body in counted]
    assert ticks == [["0", "1"], ["0", "1", "2"], ["0", "100", "200", "300", "400"]]


def test_rows_that_are_not_labelled_are_one_clear_error() -> None:
    plain = datasets.Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(DataError, match=r"holds no labelled rows.*Label them first"):
        LabelledData.of(plain)


def test_a_page_is_written_over_a_page_and_over_nothing_else(tmp_path: Path) -> None:
    path = reported.saved(tmp_path / "page.html", reported.rows(3))
    check_target(path)
    path.write_text("<html>mine</html>")
    with pytest.raises(ConfigError, match="'drsow report' did not write it"):
        check_target(path)
    with pytest.raises(ConfigError, match="is an HTML file"):
        check_target(tmp_path / "page.pdf")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rows": "0"}, "rows is a whole number of at least 1"),
        ({"rule": "best"}, "Unknown value of rule 'best'"),
        ({"seed": "-1"}, "seed is a whole number, at least 0"),
        ({"row": "1"}, "Unknown option 'row'. Did you mean 'rows'?"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse_page(options)
