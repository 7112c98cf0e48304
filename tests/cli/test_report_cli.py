"""The commands report and explain, and annotate with a page, as a user types them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers.commands import drsow, write, wrong
from helpers.preferences import pairs
from helpers.wrote import page_data

from drsow_plugin import DrSoW
from drsow_plugin.annotate.place import DRAWN, Place

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def labelled(tmp_path: Path, models: list[str]) -> Path:
    file = write(
        tmp_path / "rows.jsonl", [{**row, "subset": n % 2} for n, row in enumerate(pairs())]
    )
    out = tmp_path / "labelled"
    result = drsow("annotate", file, out, *models, "--page", "true")
    assert result.exit_code == 0, result.output
    return out


def test_annotate_writes_the_page_beside_the_rows_and_publish_links_it(
    labelled: Path, tmp_path: Path
) -> None:
    drawn = {path.name for path in labelled.glob("*.svg")}
    assert {"margins.svg", "lengths.svg", "by-group.svg"} <= drawn <= {*DRAWN}
    rows = page_data((labelled / "report.html").read_text())["rows"]
    assert len(rows) == len(pairs()) and rows[0]["a"][0]["v"] is not None
    Place.of(labelled).check_whole()
    card = tmp_path / "card"
    assert drsow("publish", labelled, "me/data", "--dry-run", card).exit_code == 0
    text = (card / "README.md").read_text()
    assert "(drsow/report.html)" in text and "![margins.svg](drsow/margins.svg)" in text
    assert "margins.png" not in text
    assert (card / "drsow/report.html").read_bytes() == (labelled / "report.html").read_bytes()
    assert (card / "drsow/margins.svg").read_bytes().startswith(b"<svg")
    assert str(tmp_path) not in (card / "drsow/report.html").read_text()


@pytest.mark.slow
def test_a_page_with_tokens_uses_the_pair_that_labelled_the_rows(
    labelled: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    result = drsow("report", labelled, "-o", page, "--tokens", "true", "--rows", "4")
    assert result.exit_code == 0 and result.stdout == f"Wrote {page}\n", result.output
    text = page.read_text()
    assert "of another pair" not in text
    for row in page_data(text)["rows"]:
        for answer in row["a"]:
            tokens = answer["k"]
            assert "x" not in answer
            assert sum(tokens["s"]) - sum(tokens["w"]) == pytest.approx(answer["v"], abs=0.01)


def test_tokens_of_another_pair_are_said_to_be_of_another(
    labelled: Path, tmp_path: Path, models: list[str]
) -> None:
    page = tmp_path / "page.html"
    swapped = ["--strong", models[3], "--weak", models[1]]
    result = drsow("report", labelled, "-o", page, "--tokens", "true", "--rows", "2", *swapped)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert "of another pair, or other policies, than the rewards" in text
    assert "not to the reward in the data" in page_data(text)["rows"][0]["a"][0]["x"]


def test_what_cannot_be_reported_is_one_clear_error_and_writes_nothing(
    labelled: Path, tmp_path: Path, models: list[str]
) -> None:
    page = tmp_path / "page.html"
    plain = write(tmp_path / "plain.jsonl", pairs())
    assert "holds no labelled rows" in wrong("report", plain, "-o", page)
    assert "no effect without --tokens true" in wrong("report", labelled, "-o", page, *models)
    assert "does not say which" in wrong("report", plain, "-o", page, "--tokens", "true")
    assert "Unknown value of rule" in wrong("report", labelled, "-o", page, "--rule", "best")
    options = yaml.safe_load((labelled / "drsow.yaml").read_text())
    (labelled / "drsow.yaml").write_text(yaml.safe_dump({**options, "plugin": ["mine.py"]}))
    assert "would run code" in wrong("report", labelled, "-o", page, "--tokens", "true")
    assert not page.exists()


def test_a_shard_has_no_page(tmp_path: Path, models: list[str]) -> None:
    file = write(tmp_path / "rows.jsonl", pairs())
    arguments = (file, tmp_path / "out", *models, "--shard", "1/2", "--page", "true")
    assert "--page has no effect with --shard" in wrong("annotate", *arguments)


def test_explain_prints_every_token_and_what_decided(
    models: list[str], strong: str, weak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["It is Paris.", "fox"]
    result = drsow("explain", "Where?", *texts, *models, "--top", "3")
    assert result.exit_code == 0 and "\x1b" not in result.stdout, result.output
    rewards = [r.reward or 0 for r in DrSoW(strong, weak).score(["Where?"] * 2, texts)]
    for number, reward in enumerate(rewards, 1):
        assert f"Response {number}: reward {reward:+.2f} nats = strong" in result.stdout
    assert f"by {abs(rewards[0] - rewards[1]):.2f} nats. What decided:" in result.stdout
    assert len(result.stdout.split("What decided:")[1].splitlines()) == 5
    given = '{"prompt": [{"role": "user", "content": "Where?"}], "chosen": "It is Paris.", '
    again = drsow("explain", "-", *models, "--top", "3", stdin=given + '"rejected": "fox"}')
    assert again.stdout == result.stdout


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        ("{", "is no JSON"),
        ("[1]", "is to hold an object with a prompt and responses"),
        ('{"prompt": "q", "responses": [1]}', "A response is a text"),
        ('{"prompt": "q", "responses": []}', "at least one response"),
    ],
)
def test_a_standard_input_that_is_no_prompt_is_one_clear_error(
    stdin: str, said: str, models: list[str]
) -> None:
    result = drsow("explain", "-", *models, stdin=stdin)
    assert result.exit_code == 1 and said in result.stderr


def test_a_response_without_a_reward_says_why(models: list[str]) -> None:
    result = drsow(
        "explain", "Where?", "", *models, "--reduction", "mean", "--end-of-turn", "false"
    )
    assert "Response 1: no reward: bad row:" in result.stdout
