"""What the commands score and route read: lines of text, compressed or not, and data sets."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers.commands import drsow, write, wrong

ROWS = [
    {"prompt": "Say it.", "response": "It is\nquick.", "id": 1, "domain": "chat", "score": None},
    {"prompt": "Write Python code.", "response": "a", "id": 2, "domain": "chat", "score": 0.5},
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRSOW_CACHE", str(tmp_path / "cache"))


def _zipped(path: Path) -> None:
    path.write_bytes(gzip.compress(write(path.with_suffix(""), ROWS).read_bytes()))


def _splits(path: Path) -> None:
    one, two = (datasets.Dataset.from_list([row]) for row in ROWS)
    datasets.DatasetDict(one=one, two=two).save_to_disk(str(path))


MAKERS: dict[str, Callable[[Path], Any]] = {
    "rows": lambda path: write(path, ROWS),
    "rows.jsonl": lambda path: write(path, ROWS),
    "rows.jsonl.gz": _zipped,
    "rows.json": lambda path: path.write_text(json.dumps(ROWS)),
    "rows.parquet": lambda path: datasets.Dataset.from_list(ROWS).to_parquet(path),
    "rows.csv": lambda path: datasets.Dataset.from_list(ROWS).to_csv(path),
    "saved": lambda path: datasets.Dataset.from_list(ROWS).save_to_disk(str(path)),
    "splits": _splits,
}


@pytest.mark.parametrize("name", MAKERS)
def test_route_reads_what_annotate_reads(tmp_path: Path, name: str) -> None:
    MAKERS[name](tmp_path / name)
    options = ("--router", "keyword", "--domain-column", "domain")
    found = drsow("route", tmp_path / name, *options, "--json")
    assert found.exit_code == 0, found.output
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in ROWS]
    assert [row["domain"] for row in rows] == ["chat", "reasoning"]
    assert "50.0% of 2" in drsow("route", tmp_path / name, *options).stdout


def test_route_finds_the_prompt_where_annotate_does(tmp_path: Path) -> None:
    turn = {"role": "user", "content": "Write Python code."}
    pair = {name: [turn, {"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    file = write(tmp_path / "rows.jsonl", [pair, {"instruction": "Write Python code."}])
    found = drsow("route", file, "--router", "keyword", "--json")
    assert [json.loads(line)["domain"] for line in found.stdout.splitlines()] == ["reasoning"] * 2


@pytest.fixture(scope="module")
def rewards(strong: str, weak: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    def score(name: Path | str, *options: str) -> tuple[int, list[dict[str, Any]]]:
        result = drsow("score", name, "--strong", strong, "--weak", weak, *options)
        return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]

    return score


@pytest.mark.slow
def test_score_reads_the_same_and_keeps_what_was_given(tmp_path: Path, rewards: Any) -> None:
    MAKERS["rows.jsonl"](tmp_path / "rows.jsonl")
    code, expected = rewards(tmp_path / "rows.jsonl")
    assert code == 0 and all(row["reward"] is not None for row in expected)
    assert [{name: row[name] for name in ROWS[0]} for row in expected] == ROWS
    for name in ("rows.jsonl.gz", "rows.parquet", "splits"):
        MAKERS[name](tmp_path / name)
        assert rewards(tmp_path / name) == (0, expected)
    code, rows = rewards(tmp_path / "splits", "--data-split", "two")
    assert code == 0 and [row["id"] for row in rows] == [2]
    assert rows[0]["reward"] == pytest.approx(expected[1]["reward"], abs=1e-5)


def test_rows_without_a_reward_are_written_and_end_with_status_3(
    tmp_path: Path, rewards: Any
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "a", "id": NaN}\n\n' + "[" * 100_000 + "\n" + json.dumps(ROWS[0]))
    code, rows = rewards(file)
    assert code == 3 and [row["reward"] is None for row in rows] == [True, True, False]
    assert rows[0]["prompt"] == "a" and rows[0]["id"] is None  # JSON has no NaN
    assert [row["reason"] and row["reason"][:15] for row in rows] == [
        *("bad row: line 1", "bad row: line 3"),
        None,
    ]


def test_what_cannot_be_read_is_told_before_any_model_is_opened(tmp_path: Path) -> None:
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "a"}' * 99)[:40])
    (tmp_path / "not.jsonl.gz").write_bytes(b"not gzip")
    (tmp_path / "not.parquet").write_bytes(b"nothing")
    write(tmp_path / "rows.jsonl", ROWS)
    route = ("route", "--router", "keyword")
    assert "cut.jsonl.gz cannot be read" in wrong(*route, tmp_path / "cut.jsonl.gz")
    assert "not.jsonl.gz cannot be read" in wrong(*route, tmp_path / "not.jsonl.gz")
    models = ("--strong", "no/such", "--weak", "no/model")
    for command in (route, ("score", *models)):
        assert "not.parquet cannot be read" in wrong(*command, tmp_path / "not.parquet")
        assert "there is no such file" in wrong(*command, tmp_path / "none.jsonl")
        assert "neither a file here" in wrong(*command, "no/such-data")
        split = wrong(*command, tmp_path / "rows.jsonl", "--data-split", "x")
        assert "holds lines, about which --data-split says nothing" in split


def piped(redirection: str) -> tuple[int, str]:
    """Run route in a shell, with something else than a terminal or a file at an end."""
    command = f"{sys.executable} -m drsow_plugin.cli route --router keyword {redirection}"
    found = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=100, check=False
    )
    return found.returncode, found.stderr


@pytest.mark.fault("disk", "no room on the standard output, or it is closed", "one line; status 1")
@pytest.mark.parametrize(
    ("redirection", "said"),
    [
        ("<&-", "Error: The standard input is closed. Give the name of a file, or a pipe.\n"),
        ("<<< hello >&-", "Error: The standard output is closed. Give it a file or a pipe.\n"),
        ("<<< hello > /dev/full", "Error: The standard output cannot be written: No space left"),
        ("<(echo hello)", ""),
    ],
)
@pytest.mark.slow
def test_closed_and_full_streams_are_one_line(redirection: str, said: str) -> None:
    code, stderr = piped(redirection)
    assert code == bool(said) and stderr.startswith(said) and stderr.count("\n") == bool(said)


def test_an_error_of_a_plugin_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("raise RuntimeError('first\\n  second')")
    result = drsow("plugins", "--plugin", tmp_path / "bad.py")
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: plugin={tmp_path}/bad.py cannot be loaded: RuntimeError: first second. Fix it.\n"
    )
