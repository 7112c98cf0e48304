"""How data sets are read: names that look like patterns, damaged files, formats."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drsow_plugin.data.loading import load_data
from drsow_plugin.errors import DataError

ROWS = [{"prompt": f"p{n}", "chosen": "a " * 30, "rejected": "b"} for n in range(40)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def named(path: Path) -> Path:
    """Write a file whose one row names it."""
    return write(path, lines([{"prompt": path.name, "response": "x"}]))


@pytest.mark.parametrize("name", ["a[1].jsonl", "b*.jsonl", "q?.jsonl", "[!x].jsonl", "{a}.jsonl"])
def test_a_name_is_that_of_one_file_and_never_a_pattern(tmp_path: Path, name: str) -> None:
    for other in ("a1.jsonl", "bc.jsonl", "qx.jsonl", "y.jsonl", "a.jsonl"):
        named(tmp_path / other)
    assert load_data([str(named(tmp_path / name))])["prompt"] == [name]


@pytest.mark.parametrize("name", ["run[1]", "run*", "a::b"])
def test_a_folder_with_such_a_name_is_read_and_not_another(tmp_path: Path, name: str) -> None:
    for folder in ("run1", "runs", name):
        named(tmp_path / folder / "data" / "train.jsonl")
        write(tmp_path / folder / "data" / "test.jsonl", lines([{"prompt": folder}]))
    loaded = load_data([str(tmp_path / name)])
    assert loaded["test"]["prompt"] == [name] and len(loaded["train"]) == 1
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved[1]"))
    assert len(load_data([str(tmp_path / "saved[1]")])) == 40


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def latin(rows: list[dict[str, Any]]) -> bytes:
    return lines(rows).replace(b"p5", b"p\xe95")


@pytest.mark.fault(
    "rows",
    "a file of rows is cut short, damaged, or in another encoding",
    "one line with the file and the line of it, before any work",
)
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.jsonl.gz", cut(gzip.compress(lines(ROWS))), "damaged or cut short"),
        ("x.jsonl.gz", lines(ROWS), "Not a gzipped file"),
        ("x.jsonl", latin(ROWS), r": line 6: not valid UTF-8 \(byte 0xe9\)"),
        ("x.csv", b"prompt,response\na,b\nc,\xe9\n", r": line 3: not valid UTF-8"),
        ("x.jsonl", lines(ROWS[:3]) + b'{"prompt":\n', ": line 4: not JSON"),
        ("x.parquet", b"PAR1 and no more", "cannot be read"),
    ],
    ids=["cut short", "not gzip", "json bytes", "csv bytes", "json", "parquet"],
)
def test_a_damaged_file_is_named_with_the_line(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    good = write(tmp_path / f"good{name[1:]}", b"")
    if name.endswith("parquet"):
        datasets.Dataset.from_list(ROWS).to_parquet(str(good))
    else:
        text = b"prompt,response\na,b\n" if "csv" in name else lines(ROWS)
        write(good, gzip.compress(text) if name.endswith("gz") else text)
    bad = write(tmp_path / "folder" / name, content)
    (tmp_path / "folder" / good.name).write_bytes(good.read_bytes())
    for given in ([bad], [good, bad], [tmp_path / "folder"]):
        with pytest.raises(DataError, match=f"folder/{name}.*{said}") as caught:
            load_data([str(path) for path in given])
        assert "\n" not in str(caught.value) and "good" not in str(caught.value)


@pytest.mark.fault(
    "rows", "bytes in a column of texts that are no UTF-8", "one line with the row, before any work"
)
def test_texts_that_no_text_can_be_are_found_before_any_work(tmp_path: Path) -> None:
    raw = pa.array([b"fine", b"caf\xe9"], pa.binary())
    column = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    pq.write_table(pa.table({"prompt": column, "response": column}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet cannot be read as parquet: row 1: .*utf-8"):
        load_data([str(tmp_path / "x.parquet")])
    saved = datasets.Dataset(pa.table({"prompt": column}))
    saved.save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=r"saved, row 1: .*utf-8"):
        load_data([str(tmp_path / "saved")])


def test_tab_separated_files_are_read(tmp_path: Path) -> None:
    one = write(tmp_path / "x.tsv", b"prompt\tresponse\na, b\tc\n")
    assert list(load_data([str(one)])) == [{"prompt": "a, b", "response": "c"}]
    other = write(tmp_path / "x.csv", b"prompt,response\na,b\n")
    with pytest.raises(DataError, match=r"one format, got \.csv, \.tsv"):
        load_data([str(one), str(other)])


@pytest.mark.parametrize("option", ["split", "name", "revision"])
def test_options_that_say_nothing_about_a_file_are_refused(tmp_path: Path, option: str) -> None:
    with pytest.raises(DataError, match="Leave"):
        load_data([str(named(tmp_path / "a.jsonl"))], **{option: "x"})


def test_a_folder_without_data_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="any data files"):
        load_data([str(tmp_path / "empty")])
    with pytest.raises(DataError, match="'::' cannot be read"):
        load_data([str(named(tmp_path / "a::b.jsonl"))])


def test_conversations_as_json_in_the_cells_of_a_table_are_lists(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    texts = ['[{"x": 1}]', '["a", "b"]']
    rows = {"chosen": [json.dumps(turns), json.dumps(turns[1:])], "rejected": texts, "id": [1, 2]}
    datasets.Dataset.from_dict({**rows, "late": [None, json.dumps(turns)]}).to_csv(
        str(tmp_path / "folder" / "x.csv")
    )
    for name in ("folder", "folder/x.csv"):
        loaded = load_data([str(tmp_path / name)])
        assert list(loaded["chosen"]) == [turns, turns[1:]] and loaded["late"] == [None, turns]
        assert list(loaded["rejected"]) == texts and loaded.column_names == [*rows, "late"]


def test_the_root_of_the_file_system_is_no_data_set() -> None:
    with pytest.raises(DataError, match="is the root of the file system"):
        load_data(["/"])


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz"])
def test_the_cells_of_a_table_are_the_texts_that_they_are(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"rows.{ending}"
    cells = [["prompt", "chosen", "rejected"], ["007?", "42.50", "NA"], ["x", "None", ""]]
    text = "\n".join(("\t" if ending == "tsv" else ",").join(row) for row in cells) + "\n"
    file.write_bytes(gzip.compress(text.encode()) if ending.endswith("gz") else text.encode())
    data = load_data([str(file)])
    assert [list(row.values()) for row in data] == cells[1:]


def test_a_table_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("prompt,response,response\na,b,c\n")
    with pytest.raises(DataError, match="the column 'response' is there twice"):
        load_data([str(file)])
