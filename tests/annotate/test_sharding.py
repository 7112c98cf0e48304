"""How many rows make a shard where no number is given, and where a run goes on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from helpers import tiny
from helpers.fakes import fake_annotator
from helpers.labelling import scores
from helpers.preferences import pairs

from drsow_plugin import DataError, DrSoW
from drsow_plugin.annotate import runner, sharding
from drsow_plugin.annotate.sharding import OF_SMALL, USUAL, usual_size

SMALL, LARGE = 1 << 30, 15 << 30


def pair(*models: tuple[str, int | None]) -> Any:
    made = (SimpleNamespace(device=device, weight_bytes=size) for device, size in models)
    return SimpleNamespace(models=dict(zip(("strong", "weak"), made, strict=True)))


@pytest.mark.parametrize(
    ("models", "rows", "processes", "size"),
    [
        ([("cuda:0", SMALL), ("cuda", SMALL)], None, 1, OF_SMALL),
        ([("cuda:0", SMALL), ("cuda:0", SMALL)], 10_000, 4, OF_SMALL),
        ([("cuda:0", SMALL), ("cuda:0", SMALL)], 10_000, 8, USUAL),  # two each
        ([("cuda:0", SMALL), ("cuda:0", SMALL)], 2000, 1, USUAL),
        ([("cuda:0", SMALL), ("cuda:0", LARGE)], None, 1, USUAL),
        ([("cuda:0", SMALL), ("cuda:0", None)], None, 1, USUAL),
        ([("cuda:0", SMALL), ("cpu", SMALL)], None, 1, USUAL),
        ([("auto", SMALL), ("auto", SMALL)], None, 1, USUAL),
    ],
)
def test_small_models_on_a_gpu_get_larger_shards(
    models: list[Any], rows: int | None, processes: int, size: int
) -> None:
    assert usual_size(pair(*models), rows, processes) == size


def test_bytes_of_weights_are_known_before_they_are_loaded(strong: str) -> None:
    made = tiny.model()
    stated = sum(p.numel() * p.element_size() for p in made.parameters())
    drsow = DrSoW(strong, made, weak_tokenizer=tiny.tokenizer("gpt2_bos"))
    assert drsow.models["strong"].weight_bytes == drsow.models["weak"].weight_bytes == stated
    assert not drsow.models["strong"].is_loaded
    fake = fake_annotator().scorer.open()
    assert fake.models["strong"].weight_bytes is None
    assert usual_size(fake, None, 1) == USUAL


def sized(folder: Path, data: Any, **options: Any) -> tuple[int, int]:
    """Run, and return the size of shard and the number of shards that were scored."""
    before = len(scores(folder))
    annotator = fake_annotator()
    annotator.run(data, cache_dir=str(folder), **options)
    assert annotator.report is not None
    size = annotator.report.values["shard_rows"]
    assert size == annotator.report.shard_rows
    return size, len(scores(folder)) - before


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine be one on which shards are larger by themselves than they were."""
    monkeypatch.setattr(runner, "usual_size", lambda *_: 8)


DATA = datasets.Dataset.from_list(pairs(20))


def test_a_number_that_is_given_wins(tmp_path: Path, large: None) -> None:
    assert sized(tmp_path, DATA, shard_rows=5) == (5, 4)
    assert sized(tmp_path, DATA, shard_rows=8) == (8, 3)
    assert sized(tmp_path, DATA, shard_rows=5) == (5, 0)


@pytest.mark.parametrize("streams", [False, True])
def test_a_run_goes_on_with_the_size_that_it_was_begun_with(
    tmp_path: Path, large: None, streams: bool
) -> None:
    data = DATA.to_iterable_dataset() if streams else DATA
    assert sized(tmp_path, data) == (8, 3)
    assert sized(tmp_path / "other", data, shard_rows=5) == (5, 4)
    assert sized(tmp_path / "other", data) == (5, 0)
    more = datasets.Dataset.from_list(pairs(25))
    assert sized(tmp_path / "other", more) == (5, 1)


def test_other_rows_of_the_same_pair_get_the_usual_size(tmp_path: Path, large: None) -> None:
    sized(tmp_path, DATA, shard_rows=5)
    assert sized(tmp_path, DATA.select(range(19, -1, -1))) == (8, 3)
    assert sized(tmp_path, DATA) == (5, 0)


def test_a_split_that_fits_any_shard_does_not_decide(tmp_path: Path, large: None) -> None:
    splits = datasets.DatasetDict(a=DATA.select(range(16, 20)), b=DATA.select(range(16)))
    assert sized(tmp_path, splits, shard_rows=5) == (5, 5)
    assert sized(tmp_path, splits) == (5, 0)


def test_work_of_before_sizes_were_noted_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = datasets.Dataset.from_list(pairs(USUAL + 10))
    assert sized(tmp_path, data) == (USUAL, 2)
    (note,) = tmp_path.glob("scores/*/pair.json")
    note.write_text(note.read_text().replace('"shard_rows"', '"other"'))
    monkeypatch.setattr(runner, "usual_size", lambda *_: 4)
    assert sized(tmp_path, data) == (USUAL, 0)


@pytest.mark.parametrize("content", ["", "[]", '{"shard_rows": 5}', '{"shard_rows": ["x", -1]}'])
def test_a_note_that_is_damaged_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "pair.json").write_text(content)
    assert sharding.sizes_in(tmp_path) == []
    assert sharding.sizes_in(tmp_path / "none") == []


def test_rows_that_map_labelled_have_no_shards() -> None:
    annotator = fake_annotator()
    mapped = DATA.map(annotator, batched=True)
    assert "shard_rows" not in annotator.report_on(mapped).values


@pytest.mark.parametrize("left", [20, 200], ids=["nothing", "other rows"])
def test_no_row_is_lost_of_a_stream_that_can_be_read_once(tmp_path: Path, left: int) -> None:
    sized(tmp_path, DATA, shard_rows=5)  # so that the first rows of others are looked at
    rows = [{**row, "prompt": f"{n}?"} for n, row in enumerate(pairs(left))]
    features = datasets.Dataset.from_list(rows).features

    def stream() -> datasets.IterableDataset:
        once = iter(rows)
        return datasets.IterableDataset.from_generator(lambda: once, features=features)

    with pytest.raises(DataError, match=r"begins otherwise .*shard_rows=128"):
        sized(tmp_path, stream())
    annotator = fake_annotator()
    labelled = annotator.run(stream(), cache_dir=str(tmp_path), shard_rows=128)
    assert labelled["prompt"][:] == [row["prompt"] for row in rows]
